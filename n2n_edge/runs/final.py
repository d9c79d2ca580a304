"""Final distillation of one architecture: its number of epochs, and its training to the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.teacher import build, surviving
from n2n_edge.metrics.notices import Notice
from n2n_edge.report.document import PrecisionJson
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.prepare import Prepared
from n2n_edge.runs.schedule import SEARCH_SHARE, Schedule, retimed, with_tests_within
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.search.store import Fact, Journal
from n2n_edge.training.batches import subset
from n2n_edge.training.distillation import DistillResult, distill
from n2n_edge.training.reconstruct import reconstructed
from n2n_edge.training.reports import EpochReport
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.teacher_outputs import affordable_epochs

__all__ = [
    "FinalPlan",
    "FinalTraining",
    "Precision",
    "Trained",
    "final_plan",
    "kept_plan",
    "plan_in_words",
    "train_to_the_end",
]

_MARGIN = 0.85
"""Part of the time left that training is planned for: a machine may become slower meanwhile."""

_VALIDATION_SHARE = 0.15
"""Part of `--minutes` that an epoch's validation and its BatchNorm statistics may take, each."""

_LEAST_VALIDATION = 16


_INT8_SHARE = 0.5
"""Part of what `--minutes` leaves for training that a student with regions in int8 is quantized in."""


@dataclass(frozen=True)
class FinalPlan:
    """How much a final distillation does.

    Epochs, and the images of each (None: all), of the validation (None: all) and of the BatchNorm statistics after it.
    """

    epochs: int
    images: int | None = None
    validation: int | None = None
    calibration: int = DistillSettings.calibration_images


ShippedForm = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Precision:
    """What became of a student in int8 or fp16.

    `ships` is the form that does; `document` is that part of the report, `notices` what is to be told.
    """

    ships: ShippedForm
    document: PrecisionJson
    notices: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Trained:
    """An architecture after its final distillation of `seconds`.

    With regions in int8 there is `precision`; if that form ships, `result` holds its training form: floats behind
    pairs.
    """

    architecture: Architecture
    result: DistillResult
    seconds: float
    precision: Precision | None = None

    @property
    def int8(self) -> bool:
        """Whether a quantized file ships."""
        return self.ships == "int8"

    @property
    def ships(self) -> ShippedForm:
        """The precision of the file that ships; ``int8`` with what stays float in it."""
        return "fp32" if self.precision is None else self.precision.ships


def final_plan(
    settings: CompressSettings,
    prepared: Prepared,
    architecture: Architecture,
    journal: Journal,
    schedule: Schedule,
    seconds: float | None,
) -> FinalPlan:
    """Return the final distillation that settings ask for; where they limit minutes, what fits into `seconds`.

    It is estimated from what the journal timed. Without `seconds` the winner's is taken, which the journal keeps, or
    what fits into the share of `--minutes` that isn't the search's.
    """
    images = len(prepared.data.train)
    if settings.epochs is not None:
        return FinalPlan(settings.epochs)
    if settings.minutes is None:
        return FinalPlan(settings.amount.epochs(images))
    if seconds is None:
        winner = kept_plan(journal)
        if winner is not None:
            return winner
        seconds = (1 - SEARCH_SHARE) * settings.minutes * 60
    evaluated = journal.cached(Fact.SCORE, architecture.key) or {}
    teaching = journal.cached(Fact.FINAL, "teaching") or {}
    seconds = max(0.0, _MARGIN * seconds - schedule.tail_s) * (1 - _INT8_SHARE if architecture.int8 else 1)
    processes = prepared.distilling.processes
    student_s = float(evaluated.get("training_seconds", 1.0)) / schedule.short_images / processes
    teacher_s = float(teaching.get("seconds", 0.0)) / processes
    each = max(student_s + teacher_s, 1e-9)
    # what goes with every epoch has its part of an epoch, or of a third of the time where an epoch is longer than that
    part = _VALIDATION_SHARE * min(images * each, seconds / 3)
    affordable = int(part / schedule.evaluate_s) if schedule.evaluate_s else images
    validation = min(len(prepared.data.validation), max(_LEAST_VALIDATION, affordable))
    calibration = min(DistillSettings.calibration_images, images, max(_LEAST_VALIDATION, affordable))
    epochs, fewer = affordable_epochs(
        replace(prepared.distilling, epochs=settings.amount.epochs(images)),
        images,
        seconds,
        student_s,
        teacher_s,
        float(teaching.get("bytes", 0.0)),
        (validation + calibration) * schedule.evaluate_s,
    )
    cut = validation < len(prepared.data.validation)
    return FinalPlan(epochs, fewer, validation if cut else None, max(calibration, 1))


def kept_plan(journal: Journal) -> FinalPlan | None:
    """Return the winner's plan where a run with `--minutes` has come to it."""
    kept = journal.cached(Fact.FINAL, "epochs")
    return None if kept is None else FinalPlan(**kept)


def train_to_the_end(
    prepared: Prepared,
    architecture: Architecture,
    plan: FinalPlan,
    folder: RunFolder,
    callback: RunCallback,
    on_epoch: Callable[[EpochReport], None],
    *,
    feature_images: int,
    ends_at: float | None = None,
) -> Trained:
    """Refit, on `feature_images`, and distil an architecture; a killed training goes on from its last epoch.

    That is kept in `folder`. Where epochs take longer than planned, fewer are made, to end by the monotonic time
    `ends_at`.
    """
    kept = surviving(prepared.teacher, architecture)
    built = build(prepared.teacher, architecture)
    student = reconstructed(
        built, prepared.teacher.model, prepared.data, prepared.distilling, kept, images=feature_images
    )
    start = time.monotonic()
    data, settings = prepared.data, prepared.distilling
    if plan.images is not None:
        settings = settings.for_images(plan.images)
    if plan.validation is not None:
        data = replace(data, validation=subset(data.validation, plan.validation, prepared.distilling.seed))
    result = distill(
        student,
        prepared.teacher.model,
        data,
        replace(
            settings,
            epochs=plan.epochs,
            images_per_epoch=plan.images,
            calibration_images=plan.calibration,
        ),
        kept=kept,
        checkpoint=folder.checkpoint,
        seconds=None if ends_at is None else ends_at - start,
        on_epoch=on_epoch,
        on_step=callback.on_step,
    )
    callback.on_message(_ending(result, plan))
    spent = sum(report.seconds for report in result.history)
    return Trained(architecture, result, max(spent, time.monotonic() - start))


@dataclass(frozen=True)
class FinalTraining:
    """What is to be trained to the end: an architecture by its plan, in a folder where killed trainings go on.

    It ends by `ends_at` on the monotonic clock, None: whenever it does. Epochs that settings ask for are made in any
    case. What has regions in int8 is then quantized (see `in_precision`).
    """

    prepared: Prepared
    architecture: Architecture
    plan: FinalPlan
    schedule: Schedule
    settings: CompressSettings
    folder: RunFolder
    ends_at: float | None = None

    def train(self, callback: RunCallback) -> None:
        """Make all epochs, which `result` then finds in the folder; nothing is timed or decided."""
        from n2n_edge.runs.quantized import quantize_trained

        trained, quantized_ends_at = self._floats(callback)
        if self.architecture.int8 and self.settings.precision != "fp16":
            quantize_trained(self.prepared, trained, self.plan, self.folder, callback, quantized_ends_at)

    def result(self, callback: RunCallback, journal: Journal | None = None) -> tuple[Trained, Prepared, Schedule]:
        """Train, and return with the student what is to be tested: no more than fits until the end.

        `journal` keeps what came of a quantized student.
        """
        from n2n_edge.runs.quantized import in_precision

        trained, quantized_ends_at = self._floats(callback)
        prepared, schedule = self.prepared, self.schedule
        trained = in_precision(
            prepared, trained, self.plan, self.settings, self.folder, callback, journal, quantized_ends_at
        )
        if self.ends_at is not None:
            left_s = self.ends_at - time.monotonic()
            prepared, schedule = with_tests_within(prepared, retimed(schedule, prepared), left_s)
        return trained, prepared, schedule

    def _floats(self, callback: RunCallback) -> tuple[Trained, float | None]:
        """Return the architecture trained as floats, and when its training with quantized values is to end."""
        from n2n_edge.runs.quantized import TIMING_S

        floats_end_at = quantized_ends_at = None
        int8 = bool(self.architecture.int8)
        if self.ends_at is not None and not self.settings.epochs:
            quantized_ends_at = self.ends_at - self.schedule.tail_s - (2 * TIMING_S if int8 else 0.0)
            share = _INT8_SHARE if int8 else 0.0
            floats_end_at = quantized_ends_at - share * max(quantized_ends_at - time.monotonic(), 0.0)
        trained = train_to_the_end(
            self.prepared, self.architecture, self.plan, self.folder, callback, callback.on_epoch,
            feature_images=self.schedule.feature_images,
            ends_at=floats_end_at,
        )  # fmt: skip
        return trained, quantized_ends_at


def _ending(result: DistillResult, plan: FinalPlan) -> str:
    """Return in words why training is over and what it leaves."""
    made = len(result.history)
    text = f"training ended after all {made} epochs"
    if made < plan.epochs:
        text = f"training ended after {made} of {plan.epochs} epochs, which took longer than --minutes leaves time for"
    if result.best_epoch == 0:
        return f"{text}: none was better than the refitted student, which is kept"
    best = f"kept is epoch {result.best_epoch}, validation {result.best_validation:.2%}"
    return f"{text}: {best}"


def plan_in_words(plan: FinalPlan, settings: CompressSettings, images: int) -> str:
    """Return the epochs of a training, and why they are fewer than the effort has where `--minutes` allows no more."""
    usual = settings.amount.epochs(images)
    shortened = settings.epochs is None and settings.minutes is not None and (plan.epochs < usual or plan.images)
    why = f" (as many as --minutes leaves time for; the effort has {usual})" if shortened else ""
    of = f"{plan.images} of {images}" if plan.images is not None else f"{images}"
    checked = f", validated on {plan.validation}" if plan.validation is not None else ""
    return f"{plan.epochs} epochs{why} of {of} images{checked}"
