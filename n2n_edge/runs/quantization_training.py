"""Distillation of a calibrated network from the float network that it was made of."""

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.quantize.ptq import Quantized, Validation, lost_in_words
from n2n_edge.quantize.qdq import folded
from n2n_edge.runs.prepare import distill_settings
from n2n_edge.runs.quantization_report import Distillation
from n2n_edge.runs.quantize_settings import QuantizeSettings
from n2n_edge.training.best import is_better
from n2n_edge.training.distillation import training_engine
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.quantization_aware import quantize_aware, quantize_aware_settings
from n2n_edge.training.reports import EpochReport
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.step_memory import images_at_once, step_memory
from n2n_edge.training.teacher_outputs import affordable_epochs

__all__ = ["distilled"]

_TIMED_BATCHES, _TIMED_VALIDATION = 2, 32
_FORWARD = 1 / 3
"""What an image takes that is only evaluated, as a part of what one takes in training."""
_MARGIN = 0.75
"""Part of the minutes that epochs are planned for; the choice of a rate has the rest."""


def distilled(
    found: Quantized,
    model: ir.Model,
    data: Data,
    validation: Validation,
    settings: QuantizeSettings,
    say: Callable[[str], None],
) -> tuple[Quantized, Distillation]:
    """Train what was calibrated towards `model`, its float network, and return what is to ship and what training did.

    That is the best epoch's network, or what was calibrated where training made it no better (see `is_better`). The
    step ``distilled`` is told of what was trained in either case.

    Raises:
        InputError: torch can't execute the network, or it has nothing that is quantized.
    """
    teaching = _settings(found.training, model, data, settings)
    images = min(len(data.train), teaching.images_per_epoch or len(data.train))
    say(f"quantization-aware distillation: {teaching.epochs} epochs of {images:,} images")

    def told(report: EpochReport) -> None:
        best = ", the best so far" if report.best else ""
        say(
            f"epoch {report.epoch} of {report.epochs}: validation {report.validation:.2%}{best}; {report.seconds:.0f} s"
        )

    result = quantize_aware(
        found.training,
        model,
        data,
        teaching,
        seconds=None if settings.minutes is None else 60 * settings.minutes,
        on_epoch=told,
    )
    shipped = folded(result.model)
    after, before = validation.shown_by(shipped), validation.shown_by(found.model)
    loss, drop = after.loss, validation.points_below_twin(after.metric)
    ships = result.best_epoch > 0 and not is_better(before, after, max(before.metric, after.metric))
    say(f"distilled: loss {loss:.3g}, {lost_in_words(drop)}{'' if ships else '; what was calibrated ships'}")
    found = replace(found, steps={**found.steps, "distilled": loss}, drops={**found.drops, "distilled": drop})
    if ships:
        found = replace(found, model=shipped, training=result.model, drop=drop)
    made = len(result.history)
    return found, Distillation(ships, made, images, result.best_epoch, result.learning_rate, loss, drop)


def _settings(student: ir.Model, model: ir.Model, data: Data, settings: QuantizeSettings) -> DistillSettings:
    """Return how it is trained; without a number of epochs, for as many as a student of `compress` is, or as fit."""
    how = settings.of_data
    base = distill_settings(how).for_images(len(data.train))
    base = quantize_aware_settings(replace(base, epochs=how.amount.epochs(len(data.train))))
    engine = training_engine(base, student, data)
    at_once = images_at_once(step_memory(student, model, data, engine), base.batch_size, engine.device)
    base = replace(base, epochs=settings.epochs or base.epochs, images_at_once=at_once)
    if settings.minutes is None:
        return base
    trial = ShortDistiller(
        model, data, _TIMED_BATCHES * base.batch_size, base, validation_images=_TIMED_VALIDATION, feature_images=1
    )
    counted = _TIMED_BATCHES * base.batch_size
    student_s = trial.evaluate(student, seed=how.seed).training_seconds / counted
    epochs, images = affordable_epochs(
        base,
        len(data.train),
        _MARGIN * 60 * settings.minutes,
        student_s,
        trial.teaching_seconds / counted,
        trial.teaching_bytes / counted,
        _FORWARD * student_s * len(data.validation),
    )
    return replace(base if images is None else base.for_images(images), epochs=epochs, images_per_epoch=images)
