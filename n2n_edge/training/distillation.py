"""The distillation of a student to the end: epochs, validation, checkpoints."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.tasks.channels import channel_scales
from n2n_edge.tasks.losses import distillation_loss
from n2n_edge.tasks.outputs import output_kind
from n2n_edge.training.batches import evaluation_batches, subset, training_order
from n2n_edge.training.batchnorm import recalibrate
from n2n_edge.training.checkpoint import Checkpoint, fingerprint, load_checkpoint, save_checkpoint
from n2n_edge.training.compute import deterministic, use_bf16
from n2n_edge.training.evaluation import compare, outputs_of
from n2n_edge.training.executor import image_module, write_back
from n2n_edge.training.hints import FeatureHints
from n2n_edge.training.optimiser import Optimiser, trains_in_bf16
from n2n_edge.training.reconstruct import Kept
from n2n_edge.training.reports import EpochReport, StepReport
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.teacher_outputs import Teaching

__all__ = ["DistillResult", "distill"]

_SCALE_IMAGES = 512
"""Training images on which the teacher's channels are measured."""


@dataclass(frozen=True)
class DistillResult:
    """The student as it was after its best epoch (0: as it came); `best_validation` is in 0..1."""

    model: ir.Model
    history: tuple[EpochReport, ...]
    best_epoch: int
    best_validation: float


def chooses_bf16(settings: DistillSettings, student: ir.Model, data: Data) -> bool:
    """Decide on bfloat16; under ``auto`` only when the student's graph runs in it."""
    if not use_bf16(settings.precision):
        return False
    return settings.precision == "bf16" or trains_in_bf16(student, next(evaluation_batches(data, data.train, 8)).inputs)


def _finite(loss: float | None) -> float:
    return loss if loss is not None and isfinite(loss) else inf


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


class _Distillation:
    """One run of `distill`: the two modules, the best weights so far, and the clock."""

    def __init__(
        self, student: ir.Model, teacher: ir.Model, data: Data, settings: DistillSettings, kept: Kept | None
    ) -> None:
        self.student_model, self.data, self.settings = student, data, settings
        self.student, self.teacher = image_module(student, "student"), image_module(teacher, "teacher")
        self.kind = output_kind(student, data.outputs)
        self.bf16 = chooses_bf16(settings, student, data)
        self.steps = training_order(len(data.train), settings, 1).steps
        hints: FeatureHints | None = None
        if kept is not None and settings.hint_weight:
            images = next(evaluation_batches(data, data.train, 1)).inputs
            hints = FeatureHints(self.student, self.teacher, kept, images)
            hints = hints if hints.names else None
        names = hints.names if hints is not None else ()
        self.fingerprint = fingerprint(student, self.student, data, settings, self.bf16, names)
        self.teaching = Teaching(self.teacher, data, settings, hints, bf16=self.bf16)
        measured = subset(data.train, _SCALE_IMAGES, settings.seed)
        self.optimiser = Optimiser(
            self.student,
            settings,
            steps=self.steps * settings.epochs,
            kind=self.kind,
            bf16=self.bf16,
            hints=hints,
            hint_steps=self.steps * self.teaching.rounds,
            scales=channel_scales(outputs_of(self.teacher, data, measured)) if self.kind == "other" else None,
        )
        self.history: tuple[EpochReport, ...] = ()
        labels = data.validation.labels
        self.labels = None if labels is None or self.kind == "other" else torch.from_numpy(labels)
        self.reference: list[tuple[Tensor, ...]] = []
        self.best = _copies(self.student.learned())
        self.best_epoch, self.best_validation, self.best_loss = 0, float("-inf"), float("inf")

    def validate(self) -> tuple[float, float]:
        """Give the student's metric and its loss on the validation split, in float32."""
        split = self.data.validation
        if self.kind == "other":
            reference = outputs_of(self.teacher, self.data, split)
            found = compare(outputs_of(self.student, self.data, split), reference, None, self.kind)
            return found.metric, _finite(found.error)
        # scores of classes are few numbers an image: worth keeping
        self.reference = self.reference or list(outputs_of(self.teacher, self.data, split))
        outputs = list(outputs_of(self.student, self.data, split))
        found = compare(outputs, self.reference, self.labels, self.kind)
        return found.metric, _finite(self.loss(outputs))

    def loss(self, outputs: list[tuple[Tensor, ...]]) -> float:
        """Give the distillation loss of outputs on the validation split, weighing each image alike."""
        total, seen = 0.0, 0
        for own, reference in zip(outputs, self.reference, strict=True):
            count = len(own[0])
            loss = distillation_loss(
                own,
                reference,
                None if self.labels is None else self.labels[seen : seen + count],
                kind=self.kind,
                temperature=self.settings.temperature,
                kd_weight=self.settings.kd_weight,
            )
            total += float(loss) * count
            seen += count
        return total / seen

    def keep_if_best(self, epoch: int) -> tuple[float, float, bool]:
        """Validate, and keep the weights if they are the best; of equal metrics the lower loss decides."""
        validation, loss = self.validate()
        best = (validation, -loss) >= (self.best_validation, -self.best_loss)
        if best:
            self.best, self.best_epoch = _copies(self.student.learned()), epoch
            self.best_validation, self.best_loss = validation, loss
        return validation, loss, best

    def run_epoch(self, epoch: int, on_step: Callable[[StepReport], None] | None) -> None:
        start = time.monotonic()
        self.student.train()
        loss, images = 0.0, 0
        for step, (batch, outputs, features) in enumerate(self.teaching.epoch(epoch)):
            index = (epoch - 1) * self.steps + step
            loss += self.optimiser.step(index, batch.inputs, batch.labels, outputs, features)
            images += len(batch.inputs)
            if on_step is not None:
                elapsed = time.monotonic() - start
                left = self.steps * self.settings.epochs - index - 1
                report = StepReport(
                    epoch, self.settings.epochs, step + 1, self.steps, images / elapsed, elapsed / (step + 1) * left
                )
                on_step(report)
        rate = images / max(time.monotonic() - start, 1e-9)
        recalibrate(self.student, self.data, self.settings, epoch)
        validation, validation_loss, best = self.keep_if_best(epoch)
        seconds = time.monotonic() - start
        learning_rate = float(self.optimiser.sgd.param_groups[0]["lr"])
        report_now = EpochReport(
            epoch, self.settings.epochs, loss / self.steps, validation, best, rate, seconds, learning_rate,
            validation_loss if isfinite(validation_loss) else None,
        )  # fmt: skip
        self.history = (*self.history, report_now)

    def resume(self, checkpoint: Checkpoint) -> None:
        self.student.load_learned(checkpoint.learned)
        self.optimiser.sgd.load_state_dict(checkpoint.optimiser)
        self.history = checkpoint.history
        self.best, self.best_epoch = checkpoint.best, checkpoint.best_epoch
        self.best_validation, self.best_loss = checkpoint.best_validation, checkpoint.best_loss

    def checkpoint(self, epoch: int) -> Checkpoint:
        return Checkpoint(
            fingerprint=self.fingerprint,
            epoch=epoch,
            learned=self.student.learned(),
            optimiser=self.optimiser.sgd.state_dict(),
            best=self.best,
            best_epoch=self.best_epoch,
            best_validation=self.best_validation,
            best_loss=self.best_loss,
            history=self.history,
        )

    def result(self) -> DistillResult:
        self.student.load_learned(self.best)
        model = write_back(self.student_model, self.student)
        return DistillResult(model, self.history, self.best_epoch, self.best_validation)


def distill(
    student: ir.Model,
    teacher: ir.Model,
    data: Data,
    settings: DistillSettings,
    *,
    kept: Kept | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> DistillResult:
    """Train a copy of `student` towards `teacher`, and give it as it was after its best epoch.

    Judged on the validation split by accuracy, or by fidelity where there are no labels; of equals the lower loss
    decides, and a student that no epoch improves comes back as it was. The schedule always runs to its end: a cosine
    that is cut off never comes to the low rates. `kept` tells which of the teacher's channels the student still has
    (see `surviving`): with it, feature hints join the loss. With a `checkpoint` path every epoch is saved there, and a
    later call with the same arguments goes on from it and ends with the same weights, bit for bit, on the same machine
    and threads.
    Raises InputError when a model takes other than one input, or the checkpoint belongs to something else.

    >>> from n2n_edge.data.dataset import load_data
    >>> teacher = n2n_edge.Teacher.load(example_teacher)
    >>> data = load_data("builtin:digits", input_shape=(1, 16, 16), classes=10)
    >>> student = n2n_edge.build(teacher, teacher.full.resize("g3", 24))
    >>> result = n2n_edge.distill(student, teacher.model, data, n2n_edge.DistillSettings(epochs=1))
    >>> len(result.history), result.model is student
    (1, False)
    """
    with deterministic(settings.threads):
        run = _Distillation(student, teacher, data, settings, kept)
        saved = None if checkpoint is None else load_checkpoint(checkpoint, run.fingerprint)
        epoch = 0
        if saved is None:
            run.keep_if_best(0)
        else:
            run.resume(saved)
            epoch = saved.epoch
        while epoch < settings.epochs:
            epoch += 1
            run.run_epoch(epoch, on_step)
            if checkpoint is not None:
                save_checkpoint(checkpoint, run.checkpoint(epoch))
            if on_epoch is not None:
                on_epoch(run.history[-1])
        return run.result()
