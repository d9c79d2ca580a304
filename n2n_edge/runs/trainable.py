"""Make a teacher trainable: a model exported with its BatchNorms folded gets them back for the time of the run."""

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.graph.batchnorm import fold_batchnorm, restore_batchnorm
from n2n_edge.graph.costs import costs
from n2n_edge.graph.input_shape import in_layout, input_layout
from n2n_edge.graph.shapes import inferred_types
from n2n_edge.graph.teacher import Teacher

__all__ = ["shipped_form", "trainable_teacher"]

_CALIBRATION_IMAGES = 256
_LEAST_IMAGES = 8
_CALIBRATION_BATCH = 64
_BATCH_VALUES = 3e7
_BATCH_MACS = 2e10
_MOST_MACS = 1.2e11
"""Bounds of one batch and of all of them: at 640 pixels a few images hold as many positions as many small ones do."""


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
    macs = max(costs(model).macs, 1)
    fixed = source.shape[0] if source.shape is not None else None
    values = sum(prod(shape) for shape in inferred_types(model).shapes.values())
    fits = min(_BATCH_VALUES / values, _BATCH_MACS / macs)
    size = fixed if isinstance(fixed, int) and fixed > 0 else int(min(max(fits, 1), _CALIBRATION_BATCH))
    count = max(_LEAST_IMAGES, int(min(_CALIBRATION_IMAGES, _MOST_MACS / macs)))
    count = min(len(data.train), count)
    step = max(1, len(data.train) // count)
    chosen = np.asarray(data.train.images[::step][:count])
    if len(chosen) < size:  # fewer images than one batch: repeat them
        chosen = np.concatenate([chosen] * -(-size // len(chosen)))[:size]
    for start in range(0, len(chosen) - size + 1, size):
        inputs = data.inputs(chosen[start : start + size])
        yield {str(source.name): in_layout(inputs, input_layout(model))}
