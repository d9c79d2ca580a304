"""Label rules of elementwise ops, pooling, reductions and softmax."""

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.fixed import assign_fixed
from n2n_edge.graph.labels import NO_LABEL, LabelArray, Labels
from n2n_edge.graph.operands import axes_of, is_computed, is_fixed, opset_of, values_read
from n2n_edge.graph.shapes import is_constant

__all__ = ["elementwise", "passing", "pooling", "reduction", "softmax", "sum_reduction", "unknown"]


def passing(node: ir.Node, labels: Labels) -> None:
    """Unary ops and ops whose further inputs are settings, not data (Clip, Dropout)."""
    labels.set(node.outputs[0], labels.of(node.inputs[0]))


def elementwise(node: ir.Node, labels: Labels) -> None:
    """Unite the labels that meet; constant operands are weights with labelled axes."""
    output = node.outputs[0]
    rank = len(labels.shape(output))
    computed = [value for value in node.inputs if value is not None and not is_fixed(value)]
    merged: LabelArray = np.zeros((1,) * rank, np.int64)
    for value in computed:
        array = _lift(labels.of(value), rank)
        labels.unite(merged, array)
        merged = np.where(merged != NO_LABEL, merged, array)
    for value in computed:
        _freeze_where_unlabelled(node, labels, value, merged)
    for constant in node.inputs:
        if constant is not None and is_fixed(constant):
            _label_constant(node, labels, constant, merged)
    labels.set(output, merged)


def pooling(node: ir.Node, labels: Labels) -> None:
    """Pooling works on each channel by itself; the positions that MaxPool gives count all channels."""
    source = node.inputs[0]
    assert source is not None
    others = labels.varying(source, beside=[0, 1])
    positions = [output for output in node.outputs[1:] if output.uses() or output.is_graph_output()]
    if others or positions:
        labels.freeze(labels.of(source), f"{node.op_type} '{node.name}' runs over these channels")
        return
    labels.set(node.outputs[0], labels.of(source))


def reduction(node: ir.Node, labels: Labels) -> None:
    """Reductions whose figure over channels would change where one goes, so they are frozen."""
    _reduce(node, labels, adds=False)


def sum_reduction(node: ir.Node, labels: Labels) -> None:
    """Reductions to which a channel of zeros adds nothing: a sum over channels ends them."""
    _reduce(node, labels, adds=True)


def _reduce(node: ir.Node, labels: Labels, *, adds: bool) -> None:
    source = node.inputs[0]
    assert source is not None
    array = labels.of(source)
    if is_computed(node, 1):
        labels.freeze(array, f"{node.op_type} '{node.name}' has axes that aren't constant")
        return
    given = axes_of(node)
    if not given and node.attributes.get_int("noop_with_empty_axes"):
        given = ()
    axes = {axis % array.ndim for axis in given} if given is not None else set(range(array.ndim))
    array = _tied_within(labels, source, axes)
    if any(array.shape[axis] > 1 for axis in axes):
        if not adds or len(labels.varying(source)) > 1:
            labels.freeze(array, f"{node.op_type} '{node.name}' runs over these channels")
        return
    if not node.attributes.get_int("keepdims", 1):
        array = array.reshape([size for axis, size in enumerate(array.shape) if axis not in axes])
    labels.set(node.outputs[0], array)


def softmax(node: ir.Node, labels: Labels) -> None:
    """Over channels it would change when one goes, so they are frozen.

    Before opset 13 it runs over `axis` and all later axes together.
    """
    source = node.inputs[0]
    assert source is not None
    array = labels.of(source)
    old = opset_of(node) < 13
    axis = node.attributes.get_int("axis", 1 if old else -1)
    assert axis is not None
    axis %= array.ndim
    axes = set(range(axis, array.ndim if old else axis + 1))
    array = _tied_within(labels, source, axes)
    if any(array.shape[place] > 1 for place in axes):
        labels.freeze(array, f"{node.op_type} '{node.name}' runs over these channels")
    labels.set(node.outputs[0], array)


def _tied_within(labels: Labels, source: ir.Value, axes: set[int]) -> LabelArray:
    """Return the labels of `source`; those that vary along `axes` and one other axis, as of stacked branches, are tied.

    Channels then lie along the other axis alone, and an op that runs over `axes` leaves them alone.
    """
    varying = labels.varying(source)
    others = [axis for axis in varying if axis not in axes]
    if len(others) != 1 or len(varying) == 1:
        return labels.of(source)
    row = labels.row(source, others[0])
    return row.reshape([-1 if axis == others[0] else 1 for axis in range(labels.of(source).ndim)])


def unknown(node: ir.Node, labels: Labels) -> None:
    """An op outside the known set: whatever reaches it stays as it is."""
    for value in values_read(node):
        if not is_constant(value) and str(value.name) in labels.shapes:
            labels.freeze(labels.of(value), f"op {node.op_type} '{node.name}' isn't understood")


def _lift(array: LabelArray, rank: int) -> LabelArray:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _freeze_where_unlabelled(node: ir.Node, labels: Labels, value: ir.Value, merged: LabelArray) -> None:
    """A labelled channel that meets an element without a label (not by broadcasting) can't be dropped."""
    shape = labels.shape(value)
    real = (1,) * (merged.ndim - len(shape)) + tuple(shape)
    array = _lift(labels.of(value), merged.ndim)
    stretched = [axis for axis, size in enumerate(merged.shape) if size > 1 and real[axis] == 1]
    if array.any() or any(size > 1 and axis not in stretched for axis, size in enumerate(merged.shape)):
        meets = np.broadcast_to(array, np.broadcast_shapes(array.shape, merged.shape)) == NO_LABEL
        labels.freeze(
            np.broadcast_to(merged, meets.shape)[meets],
            f"{node.op_type} '{node.name}' joins them with values that have no channels",
        )


def _label_constant(node: ir.Node, labels: Labels, value: ir.Value, merged: LabelArray) -> None:
    shape = labels.shape(value)
    offset = merged.ndim - len(shape)
    for axis, size in enumerate(shape):
        along = np.moveaxis(merged, axis + offset, 0).reshape(merged.shape[axis + offset], -1)
        if len(along) > 1 and size > 1:
            labels.tie_rows(along, f"{node.op_type} '{node.name}' joins them with values that have no channels")
            assign_fixed(value, axis, along.max(axis=1), labels)
        elif size > 1:
            assign_fixed(value, axis, np.zeros(size, np.int64), labels)
