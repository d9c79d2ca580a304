"""Make a teacher trainable: a model exported with its BatchNorms folded gets them back for the time of the run."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.graph.batchnorm import fold_batchnorm, restore_batchnorm
from n2n_edge.graph.teacher import Teacher

__all__ = ["shipped_form", "trainable_teacher"]

_CALIBRATION_BATCHES = 4
_CALIBRATION_BATCH = 64


def trainable_teacher(teacher: Teacher, data: Data) -> tuple[Teacher, tuple[str, ...]]:
    """Return the teacher with a BatchNorm after every convolution, its function unchanged, and the norms put back."""
    model, restored = restore_batchnorm(teacher.model, _calibration_batches(teacher.model, data))
    return (Teacher(model), restored) if restored else (teacher, ())


def shipped_form(model: ir.Model, restored: tuple[str, ...]) -> ir.Model:
    """Return the student as it ships: norms that were put back are folded again, as the teacher had them."""
    if not restored:
        return model
    present = {str(node.name) for node in model.graph}
    return fold_batchnorm(model, [name for name in restored if name in present])


def _calibration_batches(model: ir.Model, data: Data) -> Iterator[dict[str, np.ndarray]]:
    source = model.graph.inputs[0]
    fixed = source.shape[0] if source.shape is not None else None
    size = fixed if isinstance(fixed, int) and fixed > 0 else _CALIBRATION_BATCH
    mean, std = (np.array(item, np.float32).reshape(1, -1, 1, 1) for item in (data.mean, data.std))
    count = min(len(data.train), _CALIBRATION_BATCHES * _CALIBRATION_BATCH)
    step = max(1, len(data.train) // count)
    chosen = data.train.images[::step][:count]
    if len(chosen) < size:  # fewer images than one batch: repeat them
        chosen = np.concatenate([chosen] * -(-size // len(chosen)))[:size]
    for start in range(0, len(chosen) - size + 1, size):
        pixels = chosen[start : start + size].transpose(0, 3, 1, 2).astype(np.float32) / 255
        yield {str(source.name): ((pixels - mean) / std).astype(np.float32)}
