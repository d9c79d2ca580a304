"""Convolutions of every rank as the executor runs them, strided 1x1 kernels kept away from oneDNN."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["RANKS", "convolve", "convolve_transposed"]

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
_AVG_POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

RANKS = frozenset(_CONV)
"""Numbers of spatial axes over which convolutions exist."""


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[int],
    padding: Sequence[int],
    dilations: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """Convolve `x` (N, C, ...) with `weight` (O, C / groups, ...), the padding being equal on both sides of an axis."""
    operator = _CONV[len(strides)]
    if not _is_unsafe(x, weight, strides):
        return operator(x, weight, bias, strides, padding, dilations, groups)
    if any(padding):
        x = F.pad(x, [amount for amount in reversed(padding) for _ in range(2)])
    # the mean of one element is that element; the gradient of a slice would come back in another memory format
    return operator(_AVG_POOL[len(strides)](x, 1, strides), weight, bias, 1, 0, 1, groups)


def convolve_transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilations: Sequence[int],
) -> Tensor:
    """Convolve `x` (N, C, ...) with `weight` (C, O / groups, ...) transposed; arguments as torch has them."""
    operator = _CONV_TRANSPOSE[len(strides)]
    if not _is_unsafe(x, weight, strides):
        return operator(x, weight, bias, strides, padding, output_padding, groups, dilations)
    close = operator(x, weight, None, 1, 0, 0, groups, 1)
    sizes = [(size - 1) * stride + 1 for size, stride in zip(close.shape[2:], strides, strict=True)]
    wide = close.new_zeros((*close.shape[:2], *sizes))
    if close.is_contiguous(memory_format=torch.channels_last) and close.dim() == 4:
        wide = wide.contiguous(memory_format=torch.channels_last)
    places: list[slice] = [slice(None, None, stride) for stride in strides]
    wide[(slice(None), slice(None), *places)] = close
    amounts = [
        a for pad, extra in zip(reversed(padding), reversed(output_padding), strict=True) for a in (-pad, extra - pad)
    ]
    if any(amounts):
        wide = F.pad(wide, amounts)
    return wide if bias is None else wide + bias.reshape(1, -1, *(1,) * len(strides))


def _is_unsafe(x: Tensor, weight: Tensor, strides: Sequence[int]) -> bool:
    """Tell whether oneDNN must not see this convolution.

    The backward pass of a strided 1x1 convolution writes past its workspace when the input has fewer channels than a
    vector register has places (oneDNN issue 6035): the process dies, or its threads wait for each other for ever.
    """
    return x.device.type == "cpu" and any(stride > 1 for stride in strides) and all(n == 1 for n in weight.shape[2:])
