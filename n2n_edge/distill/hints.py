"""Feature hints: between a student and the teacher it was cut from, features compare channel by channel."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.distill.executor import GraphModule
from n2n_edge.distill.losses import normalised_error
from n2n_edge.distill.reconstruct import Kept

__all__ = ["FeatureHints"]

_DIMENSIONS = 4


class FeatureHints:
    """Tells how far a student's features are from those of the teacher's channels that it kept.

    Compared is the last feature map of every size, which in most networks is the end of a stage. After Romero et al.
    (FitNets, ICLR 2015), without their regressor: a student that inherits its channels has features like the teacher's.
    `count` is nought where student and teacher have no feature map in common.
    """

    def __init__(self, student: GraphModule, teacher: GraphModule, kept: Kept, images: Tensor) -> None:
        shapes = [_shapes(module, images) for module in (student, teacher)]
        last: dict[tuple[int, ...], str] = {}
        for name, shape in shapes[0].items():
            same = shapes[1].get(name, ())
            whole = name in kept or shape[1:2] == same[1:2]
            if len(shape) == _DIMENSIONS and shape[2] * shape[3] > 1 and shape[2:] == same[2:] and whole:
                last[shape[2:]] = name
        self._channels = {name: torch.from_numpy(kept[name]) if name in kept else None for name in last.values()}

    @property
    def count(self) -> int:
        """Number of feature maps that are compared."""
        return len(self._channels)

    def run(self, module: GraphModule, inputs: Tensor) -> tuple[Tensor | tuple[Tensor, ...], Mapping[str, Tensor]]:
        """Run a module and return its outputs and the feature maps that are compared."""
        taps = _Taps(frozenset(self._channels))
        return module.visit(taps, inputs), taps.found

    def distance(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
        """Return the summed normalised errors of the student's feature maps against the teacher's."""
        errors = []
        for name, channels in self._channels.items():
            aim = teacher[name].float()
            errors.append(normalised_error(student[name], aim if channels is None else aim[:, channels]))
        return torch.stack(errors).sum()


class _Taps:
    """Keeps what values with these names were."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self.found: dict[str, Tensor] = {}

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Ignore the inputs."""

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        name = str(node.outputs[0].name)
        if name in self._names:
            self.found[name] = outputs[0].clone()


class _Shapes:
    """Keeps the shape of every node's first output, in the order of the graph."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, ...]] = {}

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Ignore the inputs."""

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        self.found[str(node.outputs[0].name)] = tuple(outputs[0].shape)


def _shapes(module: GraphModule, images: Tensor) -> dict[str, tuple[int, ...]]:
    shapes = _Shapes()
    training = module.training
    with torch.no_grad():
        module.eval().visit(shapes, images)
    module.train(training)
    return shapes.found
