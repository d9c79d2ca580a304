"""How good a model is: accuracy by labels, fidelity to the teacher, for a graph or for the shipped file."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf, isfinite

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.dataset import Data, Split
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.metrics.notices import Notice
from n2n_edge.tasks.channels import channel_scales
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Task, Tensors
from n2n_edge.tasks.values import Values
from n2n_edge.training.batches import evaluation_batches, subset
from n2n_edge.training.compute import Engine
from n2n_edge.training.executor import GraphModule, Halfway
from n2n_edge.watchdog import step

__all__ = [
    "Evaluation",
    "batch_for",
    "compare",
    "evaluate",
    "finite_loss",
    "outputs_of",
    "outputs_on",
    "scale_warnings",
]

_BATCH = 256
_PIXELS = _BATCH * 96 * 96
_LEAST_BATCH = 8
_UNLIKE = 1000.0
_MEASURED_IMAGES = 256


def batch_for(data: Data, most: int = _BATCH) -> int:
    """Return how many images are evaluated at a time: `most`, or fewer of large ones, so that memory stays bounded."""
    _, height, width = data.input_shape
    return min(most, max(_LEAST_BATCH, _PIXELS // (height * width)))


def outputs_of(module: GraphModule, data: Data, split: Split, engine: Engine) -> Iterator[tuple[Tensor, ...]]:
    """Give the module's outputs on a split, batch by batch, in evaluation mode, on the engine's device."""
    module.eval()
    for batch in evaluation_batches(data, split, batch_for(data)):
        yield outputs_on(module, batch.inputs, engine)


def outputs_on(
    module: GraphModule, inputs: Tensor, engine: Engine, halfway: Halfway | None = None
) -> tuple[Tensor, ...]:
    """Return the outputs of a module in evaluation mode on one batch, in float32, on the engine's device."""
    with step("evaluation of a batch"), torch.inference_mode():
        outputs = as_tuple(module(engine.moved(inputs), halfway=halfway))
    return tuple(output.float() for output in outputs)


def compare(
    outputs: Iterable[Tensors],
    teacher: Iterable[Tensors] | None,
    labels: Labels | None,
    task: Task,
    teaching: LossSettings | None = None,
    meter: Meter | None = None,
) -> Evaluation:
    """Compare outputs, batch by batch, with the labels of all images (see `Task.labels`) and the teacher's outputs.

    With `teaching` the evaluation has the loss on these images, too, which needs the teacher's. `meter` is an empty one
    of the task's, for who wants to ask more of it.
    """
    meter, total, seen = meter or task.meter(), 0.0, 0
    teacher_batches = None if teacher is None else iter(teacher)
    for own in outputs:
        count = len(own[0])
        theirs = None if teacher_batches is None else next(teacher_batches)
        told = None if labels is None else labels[seen : seen + count]
        told = list(told) if isinstance(told, Annotations) else told  # masks are decoded once
        meter.add(own, theirs, told)
        if teaching is not None and theirs is not None and not task.meter_tells_loss:
            taught = task.taught(told, own[0].device) if teaching.kd_weight < 1 else None
            total += float(task.loss(own, theirs, taught, teaching)) * count
        seen += count
    found = meter.evaluation()
    return found if teaching is None or task.meter_tells_loss else replace(found, error=total / seen)


def finite_loss(loss: float | None) -> float:
    """Return a loss that can be compared: infinite where there is none, or where it isn't a number."""
    return loss if loss is not None and isfinite(loss) else inf


def evaluate(
    model: ir.Model, split: Split, data: Data, *, teacher: ir.Model | None = None, engine: Engine | None = None
) -> Evaluation:
    """Evaluate a graph in torch, in float32; fidelity needs the `teacher`; the default engine is the processor's."""
    engine = engine or Engine(torch.device("cpu"))
    reference = None if teacher is None else outputs_of(engine.module(teacher), data, split, engine)
    outputs = outputs_of(engine.module(model), data, split, engine)
    task = task_of(model, data)
    return compare(outputs, reference, task.labels(split), task)


def scale_warnings(model: ir.Model, data: Data, engine: Engine | None = None) -> tuple[Notice, ...]:
    """Return a warning for every output whose channels are of very unlike size."""
    if not isinstance(task_of(model, data), Values):
        return ()
    engine = engine or Engine(torch.device("cpu"))
    images = subset(data.validation, _MEASURED_IMAGES, 0)
    scales = channel_scales(outputs_of(engine.module(model), data, images, engine))
    return tuple(
        Notice(
            "unlike-scales",
            f"output '{output.name}': its channels differ in scale by {scale.spread:,.0f} times; each counts alike, "
            "whatever its unit",
        )
        for output, scale in zip(learned_outputs(model), scales, strict=True)
        if scale.spread >= _UNLIKE
    )
