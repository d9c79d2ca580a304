"""Slopes of the distillation loss by what a teacher's layers give: how much an error there matters.

The loss of a student that is the teacher is least, and so has no slope. It is taken where the outputs are a little off,
by independent normal errors n: what comes back to a layer is J'H n with J the Jacobian of the outputs by what the layer
gives and H the curvature of the loss. With errors in units of each output's own spread over images, in which losses are
about as curved in every direction, E[(J'H n)^2] stands for the diagonal of the Gauss-Newton matrix J'HJ (Martens, New
Insights and Perspectives on the Natural Gradient Method, JMLR 2020), by one sample of n for each image.
"""

from collections.abc import Sequence
from functools import partial

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.tasks.task import Task
from n2n_edge.training.augmentation import normalise
from n2n_edge.training.batches import as_bytes
from n2n_edge.training.compute import Engine, generator
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.input_scale import LAYERS
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import step

__all__ = ["output_slopes"]

_OFF = 0.1
"""Errors of the outputs, in units of their spread over images."""

_MOST_IMAGES = 32
_STREAM = 2**37
"""Tells this use of the seed from others."""


def output_slopes(
    module: GraphModule, task: Task, data: Data, chosen: Tensor, settings: DistillSettings, engine: Engine
) -> dict[str, Tensor]:
    """Return the squared slopes of the loss by each output of the layers, ``(outputs,)`` by the names of their weights.

    An output has one slope for all its positions, as if its error were the same there: what is left after refitting is
    alike enough for that to matter where maps are pooled. Squares are averaged over the first few of the training
    images `chosen`, each of which goes through the network alone. A layer that no slope comes back to isn't there.
    """
    look, random = _Look(module), generator(settings.seed, _STREAM)
    images = chosen[:_MOST_IMAGES]

    def given(place: int) -> tuple[Tensor, ...]:
        inputs = engine.moved(normalise(as_bytes(data.train, images[place : place + 1]), data.preprocessing))
        return as_tuple(module.visit(look, inputs))

    with step("slopes of the loss"), torch.no_grad():
        several = [tuple(output.float().cpu() for output in given(place)) for place in range(len(images))]
    if any(len({tuple(each.shape) for each in output}) > 1 for output in zip(*several, strict=True)):
        return {}
    task = task.measured(lambda: several)
    spread = [torch.cat(output).std(dim=0, keepdim=True).nan_to_num() for output in zip(*several, strict=True)]
    for place in range(len(images)):
        with step("slopes of the loss"), torch.enable_grad():
            outputs = given(place)
            off = [
                output + engine.moved(_OFF * sizes * torch.randn(output.shape, generator=random))
                for output, sizes in zip(outputs, spread, strict=True)
            ]
            loss = task.loss(off, [output.detach() for output in outputs], None, settings)
            if loss.requires_grad and bool(torch.isfinite(loss)):
                loss.backward()  # type: ignore[no-untyped-call]
    module.zero_grad(set_to_none=True)
    sums = {name: total for name, total in look.sums.items() if bool(torch.isfinite(total).all())}
    return {name: total / _OFF**2 / len(images) for name, total in sums.items()}


class _Look:
    """Sums, while gradients come back through the teacher, their squares by output of each layer."""

    def __init__(self, module: GraphModule) -> None:
        self._weights = module.learned()
        self.sums: dict[str, Tensor] = {}

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Ignore the inputs."""

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        """Follow what comes back to a layer's output."""
        if node.op_type not in LAYERS or not outputs[0].requires_grad:
            return  # a scale that several maps are multiplied by is learned, too, and none of its axes is that of units
        name = str(node.inputs[1].name) if len(node.inputs) > 1 and node.inputs[1] is not None else ""
        if name in self._weights:
            axis = 1 if node.op_type in ("Conv", "ConvTranspose") else -1
            outputs[0].register_hook(partial(self._add, name, axis))  # type: ignore[no-untyped-call]

    def _add(self, name: str, axis: int, slope: Tensor) -> None:
        by_place = slope.detach().float().movedim(axis, -1).reshape(-1, slope.shape[axis])
        total = by_place.sum(dim=0).square()
        self.sums[name] = self.sums[name] + total if name in self.sums else total
