"""How good a model is: accuracy by labels, fidelity to the teacher, for a graph or for the shipped file."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.data.dataset import Data, Split
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.metrics.notices import Notice
from n2n_edge.tasks.channels import ChannelErrors, channel_scales
from n2n_edge.tasks.losses import error_of_values
from n2n_edge.tasks.metrics import Evaluation, MetricName, metric_name
from n2n_edge.tasks.outputs import OutputKind, as_tuple, output_kind
from n2n_edge.training.batches import evaluation_batches, subset
from n2n_edge.training.compute import Engine
from n2n_edge.training.executor import GraphModule
from n2n_edge.watchdog import step

__all__ = [
    "Evaluation",
    "MetricName",
    "batch_for",
    "compare",
    "evaluate",
    "evaluate_onnx",
    "metric_name",
    "outputs_of",
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
    return max(_LEAST_BATCH, min(most, _PIXELS // (height * width)))


def outputs_of(module: GraphModule, data: Data, split: Split, engine: Engine) -> Iterator[tuple[Tensor, ...]]:
    """Give the module's outputs on a split, batch by batch, in evaluation mode, on the engine's device."""
    module.eval()
    for batch in evaluation_batches(data, split, batch_for(data)):
        with step("evaluation of a batch"), torch.inference_mode():
            outputs = as_tuple(module(engine.moved(batch.inputs)))
        yield tuple(output.float() for output in outputs)


def compare(
    outputs: Iterable[tuple[Tensor, ...]],
    teacher: Iterable[tuple[Tensor, ...]] | None,
    labels: Tensor | None,
    kind: OutputKind,
) -> Evaluation:
    """Compare outputs, batch by batch, with the labels of all images and with the teacher's outputs.

    `labels` are class numbers `(N,)`, or for outputs that aren't classes values `(N, K)`.
    """
    if kind == "other":
        return _compare_values(outputs, teacher, labels)
    correct = agreeing = seen = 0
    teacher_batches = None if teacher is None else iter(teacher)
    for student_outputs in outputs:
        count = len(student_outputs[0])
        chosen = student_outputs[0].argmax(1)
        if labels is not None:
            correct += int((chosen == labels[seen : seen + count]).sum())
        if teacher_batches is not None:
            agreeing += int((chosen == next(teacher_batches)[0].argmax(1)).sum())
        seen += count
    return Evaluation(
        None if labels is None else correct / seen, None if teacher_batches is None else agreeing / seen, seen
    )


def _compare_values(
    outputs: Iterable[tuple[Tensor, ...]], teacher: Iterable[tuple[Tensor, ...]] | None, targets: Tensor | None
) -> Evaluation:
    errors: list[ChannelErrors] = []
    distance, seen = 0.0, 0
    teacher_batches = None if teacher is None else iter(teacher)
    for own in outputs:
        count = len(own[0])
        if teacher_batches is not None:
            theirs = next(teacher_batches)
            errors = errors or [ChannelErrors() for _ in theirs]
            for error, mine, other in zip(errors, own, theirs, strict=True):
                error.add(other, mine)
        if targets is not None:
            distance += float((own[0].flatten(1).double() - targets[seen : seen + count].double()).abs().sum())
        seen += count
    label_error = None if targets is None else distance / targets.numel()
    if not errors:
        return Evaluation(None, None, seen, label_error=label_error)
    shares = [error.shares() for error in errors]
    fidelity = sum(float((1 - share).clamp_min(0.0).mean()) for share in shares) / len(shares)
    loss = sum(float(error_of_values(share)) for share in shares) / len(shares)
    return Evaluation(None, fidelity, seen, loss, label_error)


def _labels(split: Split, kind: OutputKind) -> Tensor | None:
    """Return what outputs of this kind are compared with: class numbers, or values."""
    labels = split.targets if kind == "other" else split.labels
    return None if labels is None else torch.from_numpy(labels)


def evaluate(
    model: ir.Model, split: Split, data: Data, *, teacher: ir.Model | None = None, engine: Engine | None = None
) -> Evaluation:
    """Evaluate a graph in torch, in float32; fidelity needs the `teacher`; the default engine is the processor's."""
    engine = engine or Engine(torch.device("cpu"))
    reference = None if teacher is None else outputs_of(engine.module(teacher), data, split, engine)
    outputs = outputs_of(engine.module(model), data, split, engine)
    kind = output_kind(model, data.outputs)
    labels = _labels(split, kind)
    return compare(outputs, reference, None if labels is None else engine.moved(labels), kind)


def _runtime_outputs(path: Path, data: Data, split: Split, threads: int) -> Iterator[tuple[Tensor, ...]]:
    session = ImageSession.learned(path, threads=threads)
    for batch in evaluation_batches(data, split, session.batch or batch_for(data)):
        with step("evaluation of a batch in ONNX Runtime"):
            results = session.run(batch.inputs.contiguous().numpy())
        yield tuple(map(torch.from_numpy, results))


def evaluate_onnx(
    path: str | Path, split: Split, data: Data, *, teacher: str | Path | None = None, threads: int = 0
) -> Evaluation:
    """Evaluate a file in ONNX Runtime, exactly as it ships; `threads` 0 lets the runtime choose.

    `teacher` is a file too. A file with a fixed batch size is fed batches of that size.
    """
    path = Path(path)
    reference = None if teacher is None else _by_image(_runtime_outputs(Path(teacher), data, split, threads))
    outputs = _by_image(_runtime_outputs(path, data, split, threads))
    kind = output_kind(ir.load(path), data.outputs)
    return compare(outputs, reference, _labels(split, kind), kind)


def _by_image(batches: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Cut batches into single images, since two files may have different fixed batch sizes."""
    for outputs in batches:
        for place in range(len(outputs[0])):
            yield tuple(output[place : place + 1] for output in outputs)


def scale_warnings(model: ir.Model, data: Data, engine: Engine | None = None) -> tuple[Notice, ...]:
    """Return a warning for every output whose channels are of very unlike size."""
    if output_kind(model, data.outputs) != "other":
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
