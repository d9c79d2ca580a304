"""The distillation of a student to the end: epochs, validation, checkpoints."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir
from onnx import ModelProto
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.data.loading import quiet
from n2n_edge.graph.costs import counted
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.task import Tensors
from n2n_edge.training.batches import evaluation_batches, subset, training_order
from n2n_edge.training.batchnorm import recalibrate
from n2n_edge.training.best import Validation, is_better
from n2n_edge.training.checkpoint import (
    Checkpoint,
    fingerprint,
    last_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from n2n_edge.training.compute import Engine, default_format, deterministic
from n2n_edge.training.evaluation import compare, finite_loss, outputs_of
from n2n_edge.training.executor import image_module, write_back
from n2n_edge.training.hints import FeatureHints
from n2n_edge.training.input_scale import MEASURED_IMAGES, grids_of, input_scales
from n2n_edge.training.optimiser import Optimiser, trains_in
from n2n_edge.training.reconstruct import Kept
from n2n_edge.training.reports import EpochReport, StepReport
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.teacher_outputs import Teaching

__all__ = ["DistillResult", "distill", "grouped_share", "training_engine"]

_MOST_BYTES = 500_000_000
"""The teacher's outputs on the validation split that are kept."""

_TRIED_IMAGES = 2
_GROUPED_AT_MOST = 0.3
"""Processors train in bfloat16 up to this share of grouped convolutions: with AMX a step of ResNet-20 takes half the
time in it, one of MobileNetV2 at 32 px twice the time (`benchmarks/engine/formats.py`)."""

_SCALE_IMAGES = 512
"""Training images on which the teacher's channels are measured."""


@dataclass(frozen=True)
class DistillResult:
    """The student as it was after its best epoch (0: as it came); `best_validation` is in 0..1."""

    model: ir.Model
    history: tuple[EpochReport, ...]
    best_epoch: int
    best_validation: float


def training_engine(settings: DistillSettings, student: ir.Model, data: Data) -> Engine:
    """Return what trains; under ``auto`` in a short number format only where the student's graph gains by it."""
    engine = Engine.of(settings)
    chosen = engine.calculating(default_format(settings.precision, engine.device))
    if settings.precision != "auto" or chosen is engine:
        return chosen
    if engine.device.type == "cpu" and grouped_share(student) > _GROUPED_AT_MOST:
        return engine
    images = next(evaluation_batches(data, data.train, _TRIED_IMAGES)).inputs
    return chosen if trains_in(student, images, chosen) else engine


def grouped_share(model: ir.Model) -> float:
    """Return the share of what convolutions give, in elements, that comes from grouped and depthwise ones."""
    found = counted(model)
    outputs = found.amounts.node_output_bytes[:, 0]
    convolutions = [(node.groups, given) for node, given in zip(found.nodes, outputs, strict=True) if node.op.convolves]
    grouped = sum(given for groups, given in convolutions if groups > 1)
    return float(grouped / max(sum(given for _, given in convolutions), 1.0))


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


@dataclass(frozen=True)
class _Order:
    """What is to be distilled, in a form that other processes take."""

    student: ir.Model
    teacher: ir.Model
    data: Data
    settings: DistillSettings
    kept: Kept | None
    checkpoint: Path | None
    seconds: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        for name in ("student", "teacher"):
            state[name] = ir.to_proto(state[name]).SerializeToString()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name in ("student", "teacher"):
            state[name] = ir.from_proto(ModelProto.FromString(state[name]))
        vars(self).update(state)


class _Distillation:
    """One run of `distill`, or one process's part of it: the two modules, the best weights so far, and the clock."""

    def __init__(self, order: _Order, engine: Engine) -> None:
        student, settings, kept = order.student, order.settings, order.kept
        data = replace(order.data, task=task_of(student, order.data))
        self.order, self.engine, self.data, self.settings = order, engine, data, settings
        self.student, self.teacher = engine.module(student, "student"), engine.module(order.teacher, "teacher")
        self.steps, self.epochs = training_order(len(data.train), settings, 1).steps, settings.epochs
        self.ends_at = None if order.seconds is None else time.monotonic() + order.seconds
        hints: FeatureHints | None = None
        if kept is not None and settings.hint_weight:
            images = engine.moved(next(evaluation_batches(data, data.train, 1)).inputs)
            hints = FeatureHints(self.student, self.teacher, kept, images)
            hints = hints if hints.names else None
        names = hints.names if hints is not None else ()
        self.fingerprint = fingerprint(student, self.student, data, settings, engine.number_format, names)
        self.teaching = Teaching(self.teacher, data, settings, hints, engine)
        measured = subset(data.train, _SCALE_IMAGES, settings.seed)
        self.task = task_of(student, data).measured(lambda: outputs_of(self.teacher, data, measured, engine))
        first = engine.moved(next(evaluation_batches(data, data.train, MEASURED_IMAGES)).inputs)
        self.optimiser = Optimiser(
            self.student,
            settings,
            steps=self.steps * settings.epochs,
            task=self.task,
            engine=engine,
            hints=hints,
            hint_steps=self.steps * self.teaching.rounds,
            scales=input_scales(self.student, first),
            grids=grids_of(self.student, first),
        )
        self.history: tuple[EpochReport, ...] = ()
        self.labels = self.task.labels(data.validation)
        self.reference: list[Tensors] | None = None
        self.best = _copies(self.student.learned())
        self.best_epoch, self.highest = 0, float("-inf")
        self.best_validation: Validation | None = None

    def validate(self) -> Validation:
        """Give the student's metric and its loss on the validation split, in float32."""
        outputs, meter = outputs_of(self.student, self.data, self.data.validation, self.engine), self.task.meter()
        found = compare(outputs, self.teachers_outputs(), self.labels, self.task, self.settings, meter)
        return Validation(found.metric, finite_loss(found.error), meter)

    def teachers_outputs(self) -> Iterable[Tensors]:
        """Give the teacher's outputs on the validation split, which are kept where they take little memory."""
        if self.reference is None:
            found = outputs_of(self.teacher, self.data, self.data.validation, self.engine)
            kept = list(islice(found, 1))
            each = sum(output.numel() * output.element_size() for output in kept[0]) / len(kept[0][0])
            if each * len(self.data.validation) > _MOST_BYTES:
                return chain(kept, found)
            self.reference = [*kept, *found]
        return self.reference

    def keep_if_best(self, epoch: int) -> tuple[Validation, bool]:
        """Validate, and keep the weights if they are the best (see `is_better`)."""
        validation = self.validate()
        best = self.best_validation is None or is_better(validation, self.best_validation, self.highest)
        if best:
            self.best, self.best_epoch = _copies(self.student.learned()), epoch
            self.best_validation = validation
        self.highest = max(self.highest, validation.metric)
        return validation, best

    def run_epoch(self, epoch: int, on_step: Callable[[StepReport], None] | None) -> None:
        start = time.monotonic()
        self.student.train()
        loss, images, processes = 0.0, 0, self.engine.processes
        for step, (own, lessons) in enumerate(self.teaching.epoch(epoch)):
            loss += self.optimiser.step((epoch - 1) * self.steps + step, lessons, own)
            images += own * processes
            if on_step is not None:
                elapsed = time.monotonic() - start
                left = self.steps * (self.epochs - epoch + 1) - step - 1
                report = StepReport(
                    epoch, self.epochs, step + 1, self.steps, images / elapsed, elapsed / (step + 1) * left,
                    self.teaching.waited_s / elapsed,
                )  # fmt: skip
                on_step(report)
        seconds = max(time.monotonic() - start, 1e-9)
        rate, loader_share = images / seconds, self.teaching.waited_s / seconds
        if self.engine.rank:  # the first process evaluates, and gives the others its statistics with the next batch
            return
        recalibrate(self.student, self.data, self.settings, epoch, self.engine)
        validation, best = self.keep_if_best(epoch)
        seconds = time.monotonic() - start
        report_now = EpochReport(
            epoch, self.affordable(epoch, seconds), loss / self.steps, validation.metric, best, rate, seconds,
            self.optimiser.learning_rate, validation.loss if isfinite(validation.loss) else None, loader_share,
        )  # fmt: skip
        self.history = (*self.history, report_now)

    def run(self, on_epoch: Callable[[EpochReport], None] | None, on_step: Callable[[StepReport], None] | None) -> None:
        """Train to the end, from the checkpoint where there is one."""
        path = self.order.checkpoint
        saved = None if path is None else load_checkpoint(path, self.fingerprint)
        epoch = 0
        if saved is not None:
            self.resume(saved)
            epoch = saved.epoch
        elif not self.engine.rank:
            self.keep_if_best(0)
        while epoch < self.epochs:
            epoch += 1
            self.run_epoch(epoch, on_step)
            self.hasten(epoch)
            if not self.engine.rank:
                if path is not None:
                    save_checkpoint(path, self.checkpoint(epoch))
                if on_epoch is not None:
                    on_epoch(self.history[-1])

    def affordable(self, epoch: int, epoch_s: float) -> int:
        """Return how many epochs there are to be in all, where `epoch` has taken `epoch_s`."""
        if self.ends_at is None:
            return self.epochs
        return min(self.epochs, epoch + max(0, int((self.ends_at - time.monotonic()) / epoch_s)))

    def hasten(self, epoch: int) -> None:
        """Leave out epochs that the first process has found no time for, and run through the schedule in the rest."""
        epochs = self.engine.fabric.broadcast(self.history[-1].epochs if not self.engine.rank else self.epochs)
        if epoch < epochs < self.epochs:
            self.optimiser.hasten(epoch * self.steps, (epochs - epoch) * self.steps)
        self.epochs = epochs

    def resume(self, checkpoint: Checkpoint) -> None:
        self.best, self.best_epoch, self.highest = checkpoint.best, checkpoint.best_epoch, checkpoint.highest
        if not self.engine.rank:
            self.student.load_learned(checkpoint.best)
            self.best_validation = self.validate()
        self.student.load_learned(checkpoint.learned)
        self.optimiser.load_state(checkpoint.optimiser)
        self.history = checkpoint.history
        self.epochs = self.history[-1].epochs

    def checkpoint(self, epoch: int) -> Checkpoint:
        return Checkpoint(
            fingerprint=self.fingerprint,
            epoch=epoch,
            learned=self.student.learned(),
            optimiser=self.optimiser.state(),
            best=self.best,
            best_epoch=self.best_epoch,
            best_validation=self.best_metric,
            highest=self.highest,
            history=self.history,
        )

    @property
    def best_metric(self) -> float:
        """The metric of the best epoch."""
        return float("-inf") if self.best_validation is None else self.best_validation.metric

    def result(self) -> DistillResult:
        self.student.load_learned(self.best)
        model = write_back(self.order.student, self.student)
        return DistillResult(model, self.history, self.best_epoch, self.best_metric)


def distill(
    student: ir.Model,
    teacher: ir.Model,
    data: Data,
    settings: DistillSettings,
    *,
    kept: Kept | None = None,
    checkpoint: Path | None = None,
    seconds: float | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> DistillResult:
    """Train a copy of `student` towards `teacher`, and give it as it was after its best epoch.

    Evaluated on the validation split by the task's metric, or by fidelity where there are no labels; where that
    differs by no more than chance explains the lower loss decides (see `is_better`), and a student that no epoch
    improves comes back as it was. The schedule runs to its end: a cosine that is cut off never comes to the low
    rates. Where epochs take so long that they don't fit into `seconds`, fewer are made, and the rest of the
    schedule is run through in those. `kept` tells which of the teacher's channels the student still has (see
    `surviving`): with it, feature hints join the loss. With a `checkpoint` path every epoch is saved there, and a
    later call with the same arguments goes on from it and ends with the same weights, bit for bit, on the same
    machine and threads, however many processes train.
    Raises InputError when a model takes other than one input, or the checkpoint belongs to something else.

    >>> from n2n_edge.data.dataset import load_data
    >>> teacher = n2n_edge.Teacher.load(example_teacher)
    >>> data = load_data("builtin:digits", input_shape=(1, 16, 16), classes=10)
    >>> student = n2n_edge.build(teacher, teacher.full.resize("g3", 24))
    >>> result = n2n_edge.distill(student, teacher.model, data, n2n_edge.DistillSettings(epochs=1))
    >>> len(result.history), result.model is student
    (1, False)
    """
    order = _Order(student, teacher, data, settings, kept, checkpoint, seconds)
    with deterministic(settings.threads):
        engine = training_engine(settings, student, data)
        if settings.processes > 1:
            return _distilled_by_several(order, engine, on_epoch, on_step)
        run = _Distillation(order, engine)
        run.run(on_epoch, on_step)
        return run.result()


def _distilled_by_several(
    order: _Order,
    engine: Engine,
    on_epoch: Callable[[EpochReport], None] | None,
    on_step: Callable[[StepReport], None] | None,
) -> DistillResult:
    """Distil in new processes, which leave their result in the checkpoint."""
    from n2n_edge.training.processes import run_together

    image_module(order.student, "student")
    with TemporaryDirectory() as folder:
        path = order.checkpoint or Path(folder) / "checkpoint.pt"
        order = replace(order, checkpoint=path)
        for report in run_together(_part, engine, order.settings.processes, order):
            if isinstance(report, StepReport) and on_step is not None:
                on_step(report)
            elif isinstance(report, EpochReport) and on_epoch is not None:
                on_epoch(report)
        content = last_checkpoint(path)
    module = image_module(order.student, "student")
    module.load_learned(content.best)
    return DistillResult(
        write_back(order.student, module), content.history, content.best_epoch, content.best_validation
    )


def _part(engine: Engine, order: _Order, tell: Callable[[object], None]) -> None:
    """Do one process's part."""
    with deterministic(order.settings.threads), quiet():
        run = _Distillation(order, engine)
        run.run(tell, None if engine.rank else tell)
