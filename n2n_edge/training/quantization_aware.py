"""Quantization-aware distillation: a student with pairs of QuantizeLinear and DequantizeLinear, taught by the float one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.errors import InputError
from n2n_edge.graph.op import op_of
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
    with calibrated scales, which are learned along with the weights (LSQ); zero points stay, biases are floats, norms are
    folded. What comes back is in the same form. `settings` are taken as they are: `quantize_aware_settings` gives those
    that fit from a float distillation's. The other arguments are those of `distill`.

    Raises:
        InputError: the student has no pairs with a scale to learn, or a BatchNorm, or keeps weights as integers.
    """
    weights = find_weights(student.graph)
    if not weights.scales:
        raise InputError("the student isn't quantized in training form: it has no QuantizeLinear with a constant scale")
    norm = next((node for node in student.graph if op_of(node).statistics), None)
    if norm is not None:
        raise InputError(f"the student has a norm, '{norm.name}', that follows the data: fold it before quantizing")
    return distill(
        student, teacher, data, settings, kept=kept, checkpoint=checkpoint, seconds=seconds, on_epoch=on_epoch,
        on_step=on_step,
    )  # fmt: skip
