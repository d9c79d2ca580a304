"""What convolutions and pools share: kernel, strides, dilations and the several ways to say padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.training.ops.registry import NodeView

__all__ = ["Window", "pad_spatial", "read_window"]


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial axes; `begin` and `end` are the explicit pads of each axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    auto_pad: str
    ceil_mode: bool

    @property
    def reach(self) -> tuple[int, ...]:
        """Elements that the window spans along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def symmetric(self) -> bool:
        """Whether the pads are known before running and equal on both sides, as torch's own arguments want them."""
        return self.auto_pad in ("NOTSET", "VALID") and self.begin == self.end

    def amounts(self, spatial: Sequence[int]) -> tuple[list[int], list[int]]:
        """Give the pads before and after each axis for an input of these sizes (without what ceil_mode adds)."""
        if self.auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
            return list(self.begin), list(self.end)
        before, after = [], []
        for size, stride, reach in zip(spatial, self.strides, self.reach, strict=True):
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            small, large = total // 2, total - total // 2
            before.append(small if self.auto_pad == "SAME_UPPER" else large)
            after.append(large if self.auto_pad == "SAME_UPPER" else small)
        return before, after

    def places(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Give how many windows there are along each axis for an input of these sizes, ceil_mode left aside."""
        before, after = self.amounts(spatial)
        reached = zip(spatial, before, after, self.reach, self.strides, strict=True)
        return tuple((size + b + a - reach) // stride + 1 for size, b, a, reach, stride in reached)

    def overhang(self, spatial: Sequence[int], before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Give how far the last window of ceil_mode reaches beyond the padded input, per axis.

        A window that would start beyond the input and its left padding does not exist (ONNX, MaxPool, opset 22).
        """
        extra = []
        for axis, size in enumerate(spatial):
            stride, reach = self.strides[axis], self.reach[axis]
            padded = size + before[axis] + after[axis]
            count = (padded - reach) // stride + 1
            if self.ceil_mode:
                count = -(-(padded - reach) // stride) + 1
                if (count - 1) * stride >= size + before[axis]:
                    count -= 1
            extra.append(max((count - 1) * stride + reach - padded, 0))
        return extra


def read_window(view: NodeView, kernel: tuple[int, ...] | None = None) -> Window:
    """Read the window of a Conv or pool node; `kernel` where the weight tells it."""
    kernel = view.get_ints("kernel_shape") or kernel
    if not kernel:
        raise view.unsupported("without a kernel shape that is known before running")
    rank = len(kernel)
    pads = view.get_ints("pads") or (0,) * (2 * rank)
    auto_pad = view.get_string("auto_pad", "NOTSET")
    if auto_pad == "VALID":
        pads = (0,) * (2 * rank)
    return Window(
        kernel=kernel,
        strides=view.get_ints("strides") or (1,) * rank,
        dilations=view.get_ints("dilations") or (1,) * rank,
        begin=pads[:rank],
        end=pads[rank:],
        auto_pad=auto_pad,
        ceil_mode=bool(view.get_int("ceil_mode", 0)),
    )


def pad_spatial(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the trailing axes of `x` with a constant; negative amounts crop."""
    if not any(before) and not any(after):
        return x
    amounts = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
    return F.pad(x, amounts, value=value)
