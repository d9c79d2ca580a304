"""Feature hints: between a student and the teacher it was cut from, features compare channel by channel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from n2n_edge.graph.op import op_of
from n2n_edge.tasks.losses import Mean, normalised_error
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.reconstruct import Kept
from n2n_edge.watchdog import step

__all__ = ["FeatureHints"]

_DIMENSIONS = 4


class FeatureHints:
    """Tells how far a student's features are from those of the teacher's channels that it kept.

    Compared is the last feature map of every size, which in most networks is the end of a stage. After Romero et al.
    (FitNets, ICLR 2015), without their regressor: a student that inherits its channels has features like the teacher's.
    `names` is empty where student and teacher have no feature map in common.
    """

    def __init__(self, student: GraphModule, teacher: GraphModule, kept: Kept, images: Tensor) -> None:
        own, whole = (_maps(module, images) for module in (student, teacher))
        last: dict[tuple[int, ...], str] = {}
        for name, found in own.items():
            size = found.shape[2:]
            same = whole.get(name)
            if len(found.shape) != _DIMENSIONS or size[0] * size[1] == 1 or same is None or same.shape[2:] != size:
                continue
            # behind a layer that was removed a name stands for other channels
            if found.source == same.source and _within(kept.get(name), found.shape[1], same.shape[1]):
                last[size] = name
        self._channels = {
            name: torch.from_numpy(kept[name]).to(images.device) if name in kept else None for name in last.values()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the feature maps that are compared."""
        return tuple(self._channels)

    def run(self, module: GraphModule, inputs: Tensor) -> tuple[Tensor | tuple[Tensor, ...], Mapping[str, Tensor]]:
        """Run a module and return its outputs and the feature maps that are compared."""
        taps = _Taps(frozenset(self._channels))
        return module.visit(taps, inputs), taps.found

    def distance(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        mean: Mean | None = None,
    ) -> Tensor:
        """Return the summed normalised errors of the student's feature maps against the teacher's.

        ``mean(tensor)`` is that over all parts of the batch, where several processes share it.
        """
        errors = []
        for name, channels in self._channels.items():
            aim = teacher[name].float()
            errors.append(normalised_error(student[name], aim if channels is None else aim[:, channels], mean))
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


@dataclass(frozen=True)
class _Map:
    """What a value is: its shape, and the layer or sum that it comes from."""

    shape: tuple[int, ...]
    source: str


class _Maps:
    """Notes every node's first output, in the order of the graph."""

    def __init__(self) -> None:
        self.found: dict[str, _Map] = {}

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Ignore the inputs."""

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        name = str(node.outputs[0].name)
        source = name
        if op_of(node).keeps_channels and node.inputs[0] is not None:
            before = self.found.get(str(node.inputs[0].name))
            source = name if before is None else before.source
        self.found[name] = _Map(tuple(outputs[0].shape), source)


def _maps(module: GraphModule, images: Tensor) -> dict[str, _Map]:
    maps = _Maps()
    training = module.training
    with step("feature maps"), torch.no_grad():
        module.eval().visit(maps, images)
    module.train(training)
    return maps.found


def _within(kept: NDArray[np.intp] | None, own: int, whole: int) -> bool:
    """Tell whether the kept channels are as many as there are, out of those of the teacher."""
    if kept is None:
        return own == whole
    return len(kept) == own and (not own or int(kept.max()) < whole)
