"""Fixed values: constants, and small constants that an Expand repeats; both can be cut along their axes."""

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.labels import LabelArray, Labels
from n2n_edge.graph.shapes import is_constant

__all__ = ["assign_fixed", "expanded_source", "is_fixed", "label_fixed", "pin_fixed"]


def expanded_source(value: ir.Value) -> ir.Value | None:
    """Return the constant that an Expand repeats to give `value`; None where it isn't so."""
    node = value.producer()
    if node is None or node.op_type != "Expand" or node.domain not in ("", "ai.onnx"):
        return None
    source, target = node.inputs
    fixed = source is not None and is_constant(source) and target is not None and is_constant(target)
    return source if fixed else None


def is_fixed(value: ir.Value) -> bool:
    """Tell whether `value` is a constant or an expanded one."""
    return is_constant(value) or expanded_source(value) is not None


def label_fixed(value: ir.Value, axis: int, labels: Labels) -> LabelArray:
    """Return the labels of a fixed value along `axis`, new ones at its first use."""
    row = labels.fresh((str(value.name), axis), labels.shape(value)[axis])
    _follow(value, axis, row, labels)
    return row


def assign_fixed(value: ir.Value, axis: int, row: LabelArray, labels: Labels) -> None:
    """Say that the elements of a fixed value along `axis` belong to the labels in `row`."""
    if labels.shape(value)[axis] > 1:
        labels.assign((str(value.name), axis), row)
        _follow(value, axis, row, labels)


def pin_fixed(value: ir.Value, reason: str, labels: Labels) -> None:
    """Forbid slicing a constant, or one that is expanded to `value`."""
    for held in (value, expanded_source(value)):
        if held is not None and is_fixed(value):
            labels.pin(str(held.name), reason)


def _follow(value: ir.Value, axis: int, row: LabelArray, labels: Labels) -> None:
    """Label what an Expand repeats, and what it gives, like the value that is read."""
    source = expanded_source(value)
    if source is None:
        return
    rank = len(labels.shape(value))
    offset = rank - len(labels.shape(source))
    if axis >= offset and labels.shape(source)[axis - offset] > 1:
        labels.assign((str(source.name), axis - offset), row)
    array = row.reshape([-1 if i == axis else 1 for i in range(rank)])
    known = labels.of(value)
    if known.any():
        labels.tie(known, array, f"'{value.name}' is read in different ways")
    labels.set(value, np.where(array != 0, array, known))
