"""Quantization-aware distillation: a student with pairs of QuantizeLinear and DequantizeLinear, taught in floats."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.op import op_of
from n2n_edge.graph.pairs import behind_pairs
from n2n_edge.training.distillation import DistillResult, distill
from n2n_edge.training.reconstruct import Kept
from n2n_edge.training.reports import EpochReport, StepReport
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.trained_weights import find_weights

__all__ = ["quantize_aware", "quantize_aware_settings"]

_RATE = 0.02
"""Peak of the learning rate as a share of that of a distillation from scratch: 0.001 where that is 0.05, which LSQ takes
for 8 bits (Esser et al., 2020, section 3)."""

_EPOCHS = 0.3
"""Epochs as a share of those of a distillation."""


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
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> DistillResult:
    """Train a quantized student towards its float teacher, and give it as it was after its best epoch (0: as it came).

    `student` is in training form: float weights and activations behind pairs of QuantizeLinear and DequantizeLinear
    with calibrated scales, which are learned along with the weights (LSQ); zero points stay, biases are floats, and
    norms were folded where they can be. What comes back is in the same form. `settings` are taken as they are:
    `quantize_aware_settings` gives those that fit from a float distillation's. The other arguments are those of
    `distill`.

    Raises:
        InputError: the student has no scale to learn, or keeps weights as integers.
    """
    if not find_weights(student.graph).scales:
        raise InputError(
            "the student isn't quantized in training form: it has no QuantizeLinear whose scale is a constant"
        )
    _refuse_integers(student)
    return distill(
        student, teacher, data, settings, kept=kept, checkpoint=checkpoint, seconds=seconds, on_epoch=on_epoch,
        on_step=on_step,
    )  # fmt: skip


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
