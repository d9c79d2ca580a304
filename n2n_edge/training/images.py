"""Values of several images in a graph that takes one at a time, and an operator's run over them.

Where an operator works within an image, and every image alone has a leading axis of length one, all are calculated at
once, so that BatchNorms see the whole batch; any other is run for each image.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from n2n_edge.graph.op import Op
from n2n_edge.training.ops.registry import Kernel

__all__ = ["Images", "Value", "run_images"]


class Images:
    """One value of every image, as the graph gives it for one: together along axis 0 where that is of length one."""

    def __init__(self, parts: Tensor | Sequence[Tensor]) -> None:
        self._together: Tensor | None = None
        self._apart: tuple[Tensor, ...] = ()
        if isinstance(parts, Tensor):
            self._together = parts
        elif all(part.dim() > 0 and part.shape[0] == 1 and part.shape == parts[0].shape for part in parts):
            self._together = torch.cat(tuple(parts))
        else:
            self._apart = tuple(parts)

    @property
    def together(self) -> Tensor | None:
        """The images along axis 0; None where each alone has another axis there."""
        return self._together

    def __len__(self) -> int:
        return len(self._apart) if self._together is None else self._together.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._apart) if self._together is None else iter(torch.split(self._together, 1))

    def joined(self) -> Tensor:
        """Return all in one tensor, along whatever axis is the first."""
        if self._together is not None:
            return self._together
        return torch.cat(self._apart) if self._apart[0].dim() else torch.stack(self._apart)

    def stacked(self) -> Tensor:
        """Return all in one tensor whose first axis is the image."""
        return torch.stack(self._apart) if self._together is None else self._together


Value = Tensor | Images
"""What a graph's value holds: something of every image, or the same for all."""


def run_images(run: Kernel, op: Op, arguments: Sequence[Value | None]) -> tuple[Value, ...]:
    """Return the outputs of an operator for all images."""
    images = [value for value in arguments if isinstance(value, Images)]
    if not images:
        result = run(*arguments)
        return result if isinstance(result, tuple) else (result,)
    if op.per_image and _fit_together(op, arguments):
        result = run(*(value.together if isinstance(value, Images) else value for value in arguments))
        return tuple(map(Images, result if isinstance(result, tuple) else (result,)))
    count = len(images[0])
    each = [iter(value) if isinstance(value, Images) else iter([value] * count) for value in arguments]
    results = [run(*one) for one in zip(*each, strict=True)]
    outputs = zip(*(result if isinstance(result, tuple) else (result,) for result in results), strict=True)
    return tuple(Images(parts) for parts in outputs)


def _fit_together(op: Op, arguments: Sequence[Value | None]) -> bool:
    """Tell whether the first axis of what an operator reads is the image, whatever it broadcasts."""
    if not op.broadcasts and any(isinstance(value, Images) for value in arguments[1:]):
        return False  # weights that the network makes of an image
    together = [value.together for value in arguments if isinstance(value, Images)]
    ranks = {-1 if tensor is None else tensor.dim() for tensor in together}
    if len(ranks) != 1 or -1 in ranks:
        return False
    rank = ranks.pop()
    same = [value for value in arguments if isinstance(value, Tensor)] if op.broadcasts else []
    return all(tensor.dim() < rank or (tensor.dim() == rank and tensor.shape[0] == 1) for tensor in same)
