"""How labels pass through elementwise ops, pooling, reductions and softmax."""

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.labels import LabelArray, Labels
from n2n_edge.graph.operands import axes_of
from n2n_edge.graph.shapes import is_constant

__all__ = ["elementwise", "passing", "pooling", "reduction", "softmax", "unknown"]


def passing(node: ir.Node, labels: Labels) -> None:
    """Unary ops and ops whose further inputs are settings, not data (Clip, Dropout)."""
    labels.set(node.outputs[0], labels.of(node.inputs[0]))


def elementwise(node: ir.Node, labels: Labels) -> None:
    """Unite the labels that meet; constant operands are weights with labelled axes."""
    output = node.outputs[0]
    rank = len(labels.shape(output))
    computed = [value for value in node.inputs if value is not None and not is_constant(value)]
    merged: LabelArray = np.zeros((1,) * rank, np.int64)
    for value in computed:
        array = _lift(labels.of(value), rank)
        labels.unite(merged, array)
        merged = np.where(merged != 0, merged, array)
    merged = np.asarray(merged)
    for value in computed:
        _freeze_where_unlabelled(node, labels, value, merged)
    for value in node.inputs:
        if value is not None and is_constant(value):
            _label_constant(labels, value, merged)
    labels.set(output, merged)
    labels.make_rectangular(merged)


def pooling(node: ir.Node, labels: Labels) -> None:
    """Pooling works on each channel by itself."""
    source = node.inputs[0]
    assert source is not None
    others = labels.varying(source, beside=[0, 1])
    if others:
        labels.freeze(labels.of(source), f"{node.op_type} '{node.name}' pools over them")
        return
    for output in node.outputs:
        if output.name and str(output.name) in labels.shapes:
            labels.set(output, labels.of(source))


def reduction(node: ir.Node, labels: Labels) -> None:
    """Reduce*: a sum over channels ends them; any other figure over channels would change, so they are frozen."""
    source = node.inputs[0]
    assert source is not None
    array = labels.of(source)
    given = axes_of(node)
    axes = {axis % array.ndim for axis in given} if given is not None else set(range(array.ndim))
    varying = [axis for axis in axes if array.shape[axis] > 1]
    if varying and node.op_type not in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"):
        labels.freeze(array, f"{node.op_type} '{node.name}' runs over these channels")
    if varying:
        array = array.take([0], axis=varying[0]) * 0 if len(labels.varying(source)) == 1 else array
        labels.make_rectangular(array)
    kept = node.attributes.get_int("keepdims", 1)
    reduced = array
    for axis in axes:
        reduced = reduced.take([0], axis=axis)
    if not kept:
        reduced = reduced.reshape([size for axis, size in enumerate(reduced.shape) if axis not in axes])
    labels.set(node.outputs[0], reduced)


def softmax(node: ir.Node, labels: Labels) -> None:
    """Softmax over channels would change when one goes, so they are frozen."""
    source = node.inputs[0]
    assert source is not None
    array = labels.of(source)
    opset_default = -1
    axis = node.attributes.get_int("axis", opset_default)
    assert axis is not None
    if array.shape[axis] > 1:
        labels.freeze(array, f"{node.op_type} '{node.name}' runs over these channels")
    labels.set(node.outputs[0], array)


def unknown(node: ir.Node, labels: Labels) -> None:
    """An op outside the known set: whatever reaches it stays as it is."""
    for value in node.inputs:
        if value is not None and not is_constant(value):
            labels.freeze(labels.of(value), f"op {node.op_type} '{node.name}' isn't understood")


def _lift(array: LabelArray, rank: int) -> LabelArray:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _freeze_where_unlabelled(node: ir.Node, labels: Labels, value: ir.Value, merged: LabelArray) -> None:
    """A labelled channel that meets an element without a label (not by broadcasting) can't be dropped."""
    rank = merged.ndim
    shape = (1,) * (rank - len(labels.shape(value))) + tuple(labels.shape(value))
    array = _lift(labels.of(value), rank)
    for axis, size in enumerate(merged.shape):
        if size > 1 and array.shape[axis] == 1 and shape[axis] > 1:
            labels.freeze(merged, f"{node.op_type} '{node.name}' joins them with values that have no channels")
            return
    meets = np.broadcast_to(array, np.broadcast_shapes(array.shape, merged.shape)) == 0
    real = [axis for axis in range(rank) if shape[axis] > 1]
    if meets.any() and array.any() and real:
        labels.freeze(
            np.broadcast_to(merged, meets.shape)[meets],
            f"{node.op_type} '{node.name}' joins them with values that have no channels",
        )


def _label_constant(labels: Labels, value: ir.Value, merged: LabelArray) -> None:
    shape = labels.shape(value)
    lifted = (1,) * (merged.ndim - len(shape)) + tuple(shape)
    for axis, size in enumerate(merged.shape):
        if size > 1 and lifted[axis] > 1:
            along = np.moveaxis(merged, axis, 0).reshape(size, -1)
            if along.shape[1] > 1:
                labels.unite(along[:, :1], along)
            labels.assign((str(value.name), axis - (merged.ndim - len(shape))), along[:, 0])
