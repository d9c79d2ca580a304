"""Fixed values: constants, and what Transpose, Reshape, Expand and the like make of them; all can be cut along axes.

A weight that several layers read in different forms is stored once that way, and a small constant that is repeated
stays small; their labels are those of what is read.
"""

from collections.abc import Mapping

import onnx_ir as ir

from n2n_edge.graph.labels import LabelArray, Labels
from n2n_edge.graph.op import op_of
from n2n_edge.graph.operands import fixed_source, is_fixed, repeats_for_batch
from n2n_edge.graph.shapes import Shape

__all__ = ["assign_fixed", "label_fixed", "pin_fixed"]


def label_fixed(value: ir.Value, axis: int, labels: Labels) -> LabelArray:
    """Return the labels of a fixed value along `axis`, new ones at its first use."""
    row = labels.fresh((str(value.name), axis), labels.shape(value)[axis])
    _follow(value, axis, row, labels)
    return row


def assign_fixed(value: ir.Value, axis: int, row: LabelArray, labels: Labels) -> None:
    """Say that the elements of a fixed value along `axis` belong to the labels in `row`."""
    labels.assign((str(value.name), axis), row)
    _follow(value, axis, row, labels)


def pin_fixed(value: ir.Value, reason: str, labels: Labels) -> None:
    """Forbid slicing a fixed value and what it is made of."""
    held: ir.Value | None = value
    while held is not None and is_fixed(held):
        labels.pin(str(held.name), reason)
        held = fixed_source(held)


def _follow(value: ir.Value, axis: int, row: LabelArray, labels: Labels) -> None:
    """Label what a fixed value is made of like the value that is read."""
    source = fixed_source(value)
    if source is None:
        return
    place = _axis_of_source(value, axis, source, labels)
    if row.ndim > 1:  # what a block reads can't be told in another form
        labels.freeze(row, f"'{value.name}' is another form of a weight")
    elif place is not None:
        assign_fixed(source, place, row, labels)
    elif not _repeats(value, axis, source, labels):
        labels.freeze(row, f"'{value.name}' is another form of a weight")


def _axis_of_source(value: ir.Value, axis: int, source: ir.Value, labels: Labels) -> int | None:
    """Return the axis of `source` that becomes `axis` of `value`; None where it is repeated or reshaped."""
    node = value.producer()
    assert node is not None
    before, after = labels.shape(source), labels.shape(value)
    match op_of(node).form:
        case "permuted":
            order = node.attributes.get_ints("perm") or tuple(range(len(before)))[::-1]
            return order[axis]
        case "repeated":
            place = axis - (len(after) - len(before))
            return place if place >= 0 and before[place] == after[axis] else None
        case _:
            return _lengths(before, after).get(axis)


def _lengths(before: Shape, after: Shape) -> Mapping[int, int]:
    """Map the axes of a reshaped value to those of its source, where only axes of length one come or go."""
    olds = [axis for axis, size in enumerate(before) if size > 1]
    news = [axis for axis, size in enumerate(after) if size > 1]
    same = [before[axis] for axis in olds] == [after[axis] for axis in news]
    return dict(zip(news, olds, strict=True)) if same else {}


def _repeats(value: ir.Value, axis: int, source: ir.Value, labels: Labels) -> bool:
    """Tell whether `value` repeats `source` along `axis` as often as a constant says, which a cut can change."""
    node = value.producer()
    place = axis - (len(labels.shape(value)) - len(labels.shape(source)))
    constant = node is not None and op_of(node).form == "repeated" and not repeats_for_batch(node)
    return constant and (place < 0 or labels.shape(source)[place] == 1)
