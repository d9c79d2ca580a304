"""How good a model is: accuracy by labels, fidelity to the teacher, for a graph or for the shipped file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.distill.batches import evaluation_batches
from n2n_edge.distill.compute import autocast
from n2n_edge.distill.data import Data, Split
from n2n_edge.distill.executor import GraphModule
from n2n_edge.distill.outputs import OutputKind, as_tuple, output_kind
from n2n_edge.errors import InputError
from n2n_edge.watchdog import step

__all__ = ["Evaluation", "MetricName", "compare", "evaluate", "evaluate_onnx", "metric_name", "outputs_of"]

MetricName = Literal["accuracy", "fidelity"]
_BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """What `n` images showed; shares in 0..1, None where there is nothing to compare with.

    `accuracy`: top-1 agreement with the labels. `fidelity`: top-1 agreement with the teacher for classifiers; for any
    other model 1 minus `error`, at least 0. `error`: the squared error in units of the teacher's variance, averaged
    over outputs; None for classifiers.
    """

    accuracy: float | None
    fidelity: float | None
    n: int
    error: float | None = None

    @property
    def metric(self) -> float:
        """The accuracy where there are labels, else the fidelity."""
        value = self.accuracy if self.accuracy is not None else self.fidelity
        if value is None:
            raise InputError("a model can't be judged without labels and without a teacher: give one of them")
        return value


def metric_name(model: ir.Model, data: Data) -> MetricName:
    """Name what a model is judged by on this data: accuracy for classifiers with labels, else fidelity."""
    return "accuracy" if data.labelled and output_kind(model) != "other" else "fidelity"


def outputs_of(module: GraphModule, data: Data, split: Split, *, bf16: bool = False) -> Iterator[tuple[Tensor, ...]]:
    """Give the module's outputs on a split, batch by batch, in evaluation mode."""
    module.eval()
    for batch in evaluation_batches(data, split, _BATCH):
        with step("evaluation of a batch"), torch.inference_mode(), autocast(bf16):
            outputs = as_tuple(module(batch.inputs))
        yield tuple(output.float() for output in outputs)


class _ErrorShare:
    """Squared error and variance of one output, summed over batches in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.squared_error = self.total = self.squares = 0.0

    def add(self, student: Tensor, teacher: Tensor) -> None:
        student, teacher = student.double(), teacher.double()
        self.count += teacher.numel()
        self.squared_error += float((student - teacher).square().sum())
        self.total += float(teacher.sum())
        self.squares += float(teacher.square().sum())

    def share(self) -> float:
        variance = self.squares - self.total**2 / self.count
        if variance <= 1e-12 * max(self.squares, 1e-12):
            return 0.0 if self.squared_error <= 1e-12 * max(self.squares, 1e-12) else 1.0
        return self.squared_error / variance


def compare(
    outputs: Iterable[tuple[Tensor, ...]],
    teacher: Iterable[tuple[Tensor, ...]] | None,
    labels: Tensor | None,
    kind: OutputKind,
) -> Evaluation:
    """Compare outputs, batch by batch, with the labels of all images and with the teacher's outputs."""
    correct = agreeing = seen = 0
    errors: list[_ErrorShare] = []
    teacher_batches = None if teacher is None else iter(teacher)
    for student_outputs in outputs:
        count = len(student_outputs[0])
        teacher_outputs = None if teacher_batches is None else next(teacher_batches)
        if kind == "other":
            if teacher_outputs is not None:
                errors = errors or [_ErrorShare() for _ in teacher_outputs]
                for error, own, other in zip(errors, student_outputs, teacher_outputs, strict=True):
                    error.add(own, other)
        else:
            chosen = student_outputs[0].argmax(1)
            if labels is not None:
                correct += int((chosen == labels[seen : seen + count]).sum())
            if teacher_outputs is not None:
                agreeing += int((chosen == teacher_outputs[0].argmax(1)).sum())
        seen += count
    if kind == "other":
        share = sum(error.share() for error in errors) / len(errors) if errors else None
        return Evaluation(None, None if share is None else max(0.0, 1.0 - share), seen, share)
    return Evaluation(
        None if labels is None else correct / seen, None if teacher_batches is None else agreeing / seen, seen
    )


def _split_labels(split: Split) -> Tensor | None:
    return None if split.labels is None else torch.from_numpy(split.labels)


def evaluate(model: ir.Model, split: Split, data: Data, *, teacher: ir.Model | None = None) -> Evaluation:
    """Evaluate a graph in torch, in float32; fidelity needs the `teacher`."""
    reference = None if teacher is None else outputs_of(GraphModule(teacher), data, split)
    outputs = outputs_of(GraphModule(model), data, split)
    return compare(outputs, reference, _split_labels(split), output_kind(model))


def _runtime_outputs(path: Path, data: Data, split: Split, threads: int) -> Iterator[tuple[Tensor, ...]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    fixed = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) and entry.shape[0] > 0 else None
    for batch in evaluation_batches(data, split, fixed or _BATCH):
        images = batch.inputs.contiguous()
        count = len(images)
        if fixed is not None and count < fixed:
            images = torch.cat([images, images[-1:].expand(fixed - count, *images.shape[1:])])
        with step("evaluation of a batch in ONNX Runtime"):
            results = session.run(None, {entry.name: images.numpy()})
        yield tuple(torch.from_numpy(result)[:count] for result in results)


def evaluate_onnx(
    path: str | Path, split: Split, data: Data, *, teacher: str | Path | None = None, threads: int = 0
) -> Evaluation:
    """Evaluate a file in ONNX Runtime, exactly as it ships; `threads` 0 lets the runtime choose.

    `teacher` is a file too. A file with a fixed batch size is fed batches of that size.
    """
    path = Path(path)
    reference = None if teacher is None else _by_image(_runtime_outputs(Path(teacher), data, split, threads))
    outputs = _by_image(_runtime_outputs(path, data, split, threads))
    return compare(outputs, reference, _split_labels(split), output_kind(ir.load(path)))


def _by_image(batches: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Cut batches into single images, since two files may have different fixed batch sizes."""
    for outputs in batches:
        for place in range(len(outputs[0])):
            yield tuple(output[place : place + 1] for output in outputs)
