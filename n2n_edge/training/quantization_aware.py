"""Quantization-aware distillation: a student with pairs of QuantizeLinear and DequantizeLinear, taught in floats."""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from pathlib import Path

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.op import op_of
from n2n_edge.graph.pairs import behind_pairs
from n2n_edge.training.distillation import DistillResult, distill
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.reconstruct import Kept
from n2n_edge.training.reports import EpochReport, StepReport
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.trained_weights import find_weights
from n2n_edge.writing import write_text

__all__ = ["QuantizeAwareResult", "quantize_aware", "quantize_aware_settings", "steady_rate"]

_RATE = 0.02
"""Peak of the learning rate where its search begins, as a share of that of a float distillation: 0.001 for 0.05, which
LSQ takes for 8 bits (Esser et al., 2020, section 3)."""

_EPOCHS = 0.3
"""Epochs as a share of those of a float distillation."""

_STEP, _MOST = 4.0, 4
"""Rates that are tried lie so far apart, and so many on each side of the first."""

_TRIED_SHARE = 0.25
"""Of the time that there is, what rates are tried in at most."""

_TRIED_STEPS, _TRIED_VALIDATION = 8, 512
"""Steps of training, and validation images, by which a rate is tried."""
_TRIED_PART, _LEAST_VALIDATION = 1 / 12, 32
"""Of the images of a whole training those of one trial, where time is limited, and what it is then validated on."""


@dataclass(frozen=True)
class QuantizeAwareResult(DistillResult):
    """As of a distillation, and `learning_rate`, the peak that was taken."""

    learning_rate: float


def quantize_aware_settings(settings: DistillSettings) -> DistillSettings:
    """Return settings for quantization-aware distillation where `settings` are those of the float student's.

    It starts from a student that is calibrated, so it is short, and its rates are so low that no step undoes that.
    """
    return replace(
        settings,
        epochs=max(1, round(settings.epochs * _EPOCHS)),
        learning_rate=settings.learning_rate * _RATE,
    )


def quantize_aware(
    student: ir.Model,
    teacher: ir.Model,
    data: Data,
    settings: DistillSettings,
    *,
    kept: Kept | None = None,
    checkpoint: Path | None = None,
    seconds: float | None = None,
    learning_rate: float | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> QuantizeAwareResult:
    """Train a quantized student towards its float teacher, and give it as it was after its best epoch (0: as it came).

    `student` is in training form: float weights and activations behind pairs of QuantizeLinear and DequantizeLinear
    with calibrated scales, which are learned along with the weights (LSQ); zero points stay, biases are floats, and
    norms were folded where they can be. What comes back is in the same form. `quantize_aware_settings` gives
    settings that fit from a float distillation's; without a `learning_rate` the peak is that of `steady_rate`. The
    other arguments are those of `distill`.

    Raises:
        InputError: the student has no scale to learn, or keeps weights as integers.
    """
    if not find_weights(student.graph).scales:
        raise InputError(
            "the student isn't quantized in training form: it has no QuantizeLinear whose scale is a constant"
        )
    _refuse_integers(student)
    start = time.monotonic()
    rate = learning_rate or _kept_rate(student, teacher, data, settings, checkpoint, seconds)
    left = None if seconds is None else max(0.0, seconds - (time.monotonic() - start))
    result = distill(
        student,
        teacher,
        data,
        replace(settings, learning_rate=rate),
        kept=kept,
        checkpoint=checkpoint,
        seconds=left,
        on_epoch=on_epoch,
        on_step=on_step,
    )
    return QuantizeAwareResult(**vars(result), learning_rate=rate)


def _kept_rate(
    student: ir.Model,
    teacher: ir.Model,
    data: Data,
    settings: DistillSettings,
    checkpoint: Path | None,
    seconds: float | None,
) -> float:
    """Return the rate as it stands beside the checkpoint, so that a run that goes on has the same one."""
    at_most = None if seconds is None else seconds * _TRIED_SHARE
    if checkpoint is None:
        return steady_rate(student, teacher, data, settings, seconds=at_most)
    path = checkpoint.with_name(f"{checkpoint.name}.rate")
    content = ir.to_proto(student).SerializeToString(deterministic=True) + repr(settings).encode()
    key = hashlib.sha256(content).hexdigest()
    with suppress(OSError, ValueError):
        held, rate = path.read_text(encoding="utf-8").split()
        if held == key:
            return float(rate)
    found = steady_rate(student, teacher, data, settings, seconds=at_most)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f"{key} {found!r}\n")
    return found


def steady_rate(
    student: ir.Model, teacher: ir.Model, data: Data, settings: DistillSettings, *, seconds: float | None = None
) -> float:
    """Return a peak of the learning rate that does the quantized student good, by its own loss.

    With norms folded, weights have any size, and a rate that one network needs undoes the calibration of another. A few
    steps of a whole schedule are tried at the rate of `settings`, then at higher or lower ones by factors of four, as
    long as the loss on some validation images falls, and no longer than `seconds`, with which trials are at most a
    small part of the training long. The same arguments without these give the same rate.
    """
    ends_at = inf if seconds is None else time.monotonic() + seconds
    images, validation = _TRIED_STEPS * settings.batch_size, _TRIED_VALIDATION
    if seconds is not None:
        each = len(data.train) if settings.images_per_epoch is None else settings.images_per_epoch
        images = min(images, max(1, int(_TRIED_PART * settings.epochs * each)))
        validation = min(validation, max(_LEAST_VALIDATION, images))
    trial = ShortDistiller(teacher, data, images, settings, validation_images=validation, feature_images=1)

    start = trial.loss_at(student, None)

    @cache
    def loss(power: int) -> float:
        return trial.loss_at(student, settings.learning_rate * _STEP**power)

    def moved(direction: int) -> int:
        power = 0
        while abs(power) < _MOST and time.monotonic() < ends_at:
            # too high as long as it does harm, too low where nothing is rounded to another step
            useless = loss(power) > start if direction < 0 else loss(power) == start
            if not useless and loss(power + direction) >= loss(power):
                break
            power += direction
        return power

    power = moved(1) if loss(0) <= start else 0
    return float(settings.learning_rate * _STEP ** (power or moved(-1)))


def _refuse_integers(student: ir.Model) -> None:
    for node in student.graph:
        for index in op_of(node).trained:
            value = node.inputs[index] if index < len(node.inputs) else None
            held = None if value is None else behind_pairs(value).const_value
            if held is not None and not held.dtype.is_floating_point():
                raise InputError(
                    f"the student keeps its weights as integers, such as '{printable(str(held.name))}': give its "
                    "training form, with the float weights behind QuantizeLinear and DequantizeLinear"
                )
