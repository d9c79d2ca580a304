"""Label rules of ops that hold weights: convolutions, matrix products, norms."""

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.fixed import assign_fixed, label_fixed, pin_fixed
from n2n_edge.graph.labels import LabelArray, Labels
from n2n_edge.graph.operands import is_fixed, is_weight

__all__ = ["batch_norm", "conv", "conv_transpose", "gemm", "is_matrix_of_rows", "layer_norm", "matmul"]


def conv(node: ir.Node, labels: Labels) -> None:
    """Conv: weight ``(O, I/g, ...)``; fresh labels on O, the input's on I; depthwise passes labels through."""
    source, weight, bias = _operands(node, labels)
    if weight is None:
        return
    _end_elsewhere(node, labels, source, 1)
    out_count, per_group = labels.shape(weight)[:2]
    groups = node.attributes.get_int("group", 1)
    assert groups is not None
    incoming = labels.row(source, 1)
    if groups == 1:
        assign_fixed(weight, 1, incoming, labels)
        outgoing = label_fixed(weight, 0, labels)
    elif per_group == 1:
        outgoing = np.repeat(incoming, out_count // groups)
        assign_fixed(weight, 0, outgoing, labels)
    else:
        outgoing = label_fixed(weight, 0, labels)
        assign_fixed(weight, 1, incoming.reshape(groups, per_group), labels)
        for row in (incoming, outgoing):
            _balance(node, labels, row, groups)
    _finish(node, labels, outgoing, bias)


def conv_transpose(node: ir.Node, labels: Labels) -> None:
    """ConvTranspose: weight ``(I, O/g, ...)``."""
    source, weight, bias = _operands(node, labels)
    if weight is None:
        return
    _end_elsewhere(node, labels, source, 1)
    in_count, out_per_group = labels.shape(weight)[:2]
    groups = node.attributes.get_int("group", 1)
    assert groups is not None
    incoming = labels.row(source, 1)
    if groups > 1 and in_count == groups and out_per_group == 1:
        outgoing = incoming
        assign_fixed(weight, 0, incoming, labels)
    elif groups > 1:
        _balance(node, labels, incoming, groups)
        assign_fixed(weight, 0, incoming, labels)
        row = label_fixed(weight, 1, labels)
        outgoing = np.tile(row, groups)
    else:
        assign_fixed(weight, 0, incoming, labels)
        outgoing = label_fixed(weight, 1, labels)
    _finish(node, labels, outgoing, bias)


def gemm(node: ir.Node, labels: Labels) -> None:
    """Gemm: ``alpha A B + beta C`` with a constant B."""
    source, weight, bias = _operands(node, labels)
    if weight is None:
        return
    transposed_input = node.attributes.get_int("transA", 0)
    transposed = node.attributes.get_int("transB", 0)
    contraction = 0 if transposed_input else 1
    _end_elsewhere(node, labels, source, contraction)
    assign_fixed(weight, 1 if transposed else 0, labels.row(source, contraction), labels)
    out_axis = 0 if transposed else 1
    outgoing = label_fixed(weight, out_axis, labels)
    if bias is not None and is_fixed(bias):
        _label_vector(labels, bias, outgoing)
    elif bias is not None:
        labels.freeze(outgoing, f"Gemm '{node.name}' adds a computed value")
        labels.freeze(labels.of(bias), f"Gemm '{node.name}' adds it")
    labels.set(node.outputs[0], outgoing.reshape(1, -1))


def matmul(node: ir.Node, labels: Labels) -> None:
    """MatMul: a constant on either side is a weight; of two activations, batch and contracted axes meet."""
    first, second = node.inputs[0], node.inputs[1]
    assert first is not None
    assert second is not None
    if is_weight(second) and not is_fixed(first) and len(labels.shape(second)) <= 2:
        _matmul_by_weight(node, labels, first, second, -1)
    elif is_weight(first) and not is_fixed(second) and len(labels.shape(first)) <= 2:
        _matmul_by_weight(node, labels, second, first, -2)
    elif 2 <= len(labels.shape(first)) == len(labels.shape(second)):
        for constant in filter(is_fixed, (first, second)):
            pin_fixed(constant, f"MatMul '{node.name}' reads a stack of matrices", labels)
        _matmul_of_activations(node, labels, first, second)
    else:
        _freeze_form(node, labels)


def is_matrix_of_rows(node: ir.Node, index: int) -> bool:
    """Tell whether a MatMul multiplies rows ``(N, K)`` by the weight at input `index`, a matrix or vector."""
    source, weight = node.inputs[0], node.inputs[1]
    flat = source is not None and source.shape is not None and len(source.shape) == 2
    return index == 1 and flat and weight is not None and weight.shape is not None and len(weight.shape) <= 2


def _matmul_by_weight(node: ir.Node, labels: Labels, source: ir.Value, weight: ir.Value, axis: int) -> None:
    """Product with a constant matrix or vector: `axis` of the source is contracted, and with a vector ends there."""
    axis = max(axis, -len(labels.shape(source)))  # a vector on the right is a column
    elsewhere = labels.varying(source, beside=[axis]) and labels.of(source).shape[axis] == 1
    if elsewhere and not labels.all_frozen(labels.of(source)):
        _matmul_within_channels(node, labels, source, weight, axis)
        return
    _end_elsewhere(node, labels, source, axis)
    rank, matrix = len(labels.shape(node.outputs[0])), len(labels.shape(weight)) == 2
    on_right = weight is node.inputs[1]
    assign_fixed(weight, 0 if on_right or not matrix else 1, labels.row(source, axis), labels)
    if matrix:
        outgoing = label_fixed(weight, 1 if on_right else 0, labels)
        place = rank - 1 if on_right or len(labels.shape(source)) == 1 else rank - 2
        labels.set(node.outputs[0], outgoing.reshape([-1 if i == place else 1 for i in range(rank)]))


def _matmul_within_channels(node: ir.Node, labels: Labels, source: ir.Value, weight: ir.Value, axis: int) -> None:
    """Product along an axis that isn't that of the channels, each of which it maps by itself (as a mixer's tokens)."""
    for place, size in enumerate(labels.shape(weight)):
        assign_fixed(weight, place, np.zeros(size, np.int64), labels)
    array = labels.of(source)
    labels.set(node.outputs[0], array if len(labels.shape(weight)) == 2 else array.squeeze(axis))


def _freeze_form(node: ir.Node, labels: Labels) -> None:
    reason = f"{node.op_type} '{node.name}' of this form isn't understood"
    for value in node.inputs:
        if value is not None:
            labels.freeze(labels.of(value), reason)
            pin_fixed(value, reason, labels)


def batch_norm(node: ir.Node, labels: Labels) -> None:
    """BatchNormalization, InstanceNormalization: per-channel vectors follow axis 1."""
    source = node.inputs[0]
    assert source is not None
    if len(labels.shape(source)) < 2:
        _freeze_form(node, labels)
        return
    row = labels.row(source, 1)
    for vector in node.inputs[1:]:
        if vector is not None and is_fixed(vector):
            assign_fixed(vector, 0, row, labels)
        elif vector is not None:
            labels.freeze(row, f"{node.op_type} '{node.name}' computes its parameters")
    labels.set(node.outputs[0], labels.of(source))


def layer_norm(node: ir.Node, labels: Labels) -> None:
    """Norms: one that averages over channels would change where one goes, so they are frozen; others pass them on."""
    source = node.inputs[0]
    assert source is not None
    array = labels.of(source)
    if any(array.shape[axis] > 1 for axis in _averaged(node, array.ndim)):
        labels.freeze(array, f"{node.op_type} '{node.name}' averages over these channels")
    labels.set(node.outputs[0], array)


def _averaged(node: ir.Node, rank: int) -> set[int]:
    """Return the axes that a norm averages over."""
    match node.op_type:
        case "LayerNormalization":
            return set(range((node.attributes.get_int("axis", -1) or 0) % rank, rank))
        case "LpNormalization":
            return {(node.attributes.get_int("axis", -1) or 0) % rank}
        case "MeanVarianceNormalization":
            return {axis % rank for axis in node.attributes.get_ints("axes") or (0, 2, 3)}
        case _:
            return set(range(rank))


def _operands(node: ir.Node, labels: Labels) -> tuple[ir.Value, ir.Value | None, ir.Value | None]:
    source, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    assert source is not None
    assert weight is not None
    if is_weight(weight) and not is_fixed(source):
        return source, weight, bias
    for value in node.inputs:
        if value is not None:
            labels.freeze(labels.of(value), f"{node.op_type} '{node.name}' computes its weight")
            pin_fixed(value, f"{node.op_type} '{node.name}' computes its weight", labels)
    return source, None, None


def _finish(node: ir.Node, labels: Labels, outgoing: LabelArray, bias: ir.Value | None) -> None:
    if bias is not None and is_fixed(bias):
        assign_fixed(bias, 0, outgoing, labels)
    elif bias is not None:
        labels.freeze(outgoing, f"{node.op_type} '{node.name}' computes its bias")
    rank = len(labels.shape(node.outputs[0]))
    labels.set(node.outputs[0], outgoing.reshape((1, -1) + (1,) * (rank - 2)))


def _end_elsewhere(node: ir.Node, labels: Labels, source: ir.Value, axis: int) -> None:
    """Freeze labels of `source` that vary along other axes than `axis`: the op mixes or loses them."""
    others = labels.varying(source, beside=[axis])
    if others:
        labels.freeze(labels.of(source), f"{node.op_type} '{node.name}' reads them along axis {others[0]}")


def _balance(node: ir.Node, labels: Labels, row: LabelArray, groups: int) -> None:
    labels.balance(row, groups, f"{node.op_type} '{node.name}' groups them with elements that have no channel")


def _label_vector(labels: Labels, vector: ir.Value, row: LabelArray) -> None:
    shape = labels.shape(vector)
    if shape and shape[-1] == len(row) and len(row) > 1:
        labels.assign((str(vector.name), len(shape) - 1), row)


def _matmul_of_activations(node: ir.Node, labels: Labels, first: ir.Value, second: ir.Value) -> None:
    """Contracted axes meet and end; what is left of both label arrays must lie along one axis.

    Where labels vary along an axis of the stack of matrices too, as with the heads of an attention, each matrix lives
    or dies as a whole.
    """
    stacked = {axis for value in (first, second) for axis in labels.varying(value, beside=[-1, -2])}
    if len(stacked) == 1:
        _matmul_of_stacks(node, labels, first, second, stacked.pop())
        return
    left, right = labels.of(first), labels.of(second)
    if stacked or max(len(labels.varying(first)), len(labels.varying(second))) > 1:
        _freeze_both(node, labels, left, right)
        return
    if left.shape[-1] > 1 or right.shape[-2] > 1:
        reason = f"MatMul '{node.name}' contracts them with values that have no channels"
        labels.tie(labels.row(first, -1), labels.row(second, -2), reason)
        left = left if left.shape[-1] == 1 else np.zeros((1,) * left.ndim, np.int64)
        right = right if right.shape[-2] == 1 else np.zeros((1,) * right.ndim, np.int64)
    axes = {axis for array in (left, right) for axis, size in enumerate(array.shape) if size > 1}
    if len(axes) > 1:
        _freeze_both(node, labels, left, right)
        return
    labels.set(node.outputs[0], np.where(left != 0, left, right))


def _matmul_of_stacks(node: ir.Node, labels: Labels, first: ir.Value, second: ir.Value, axis: int) -> None:
    """Tie all labels of each matrix along `axis` of the stack, on both sides unless one side is broadcast."""
    rows = [labels.row(value, axis) for value in (first, second) if labels.shape(value)[axis] > 1]
    for row in rows[1:]:
        labels.tie(rows[0], row, f"MatMul '{node.name}' joins them with values that have no channels")
    rank = len(labels.shape(node.outputs[0]))
    labels.set(node.outputs[0], rows[0].reshape([-1 if i == axis else 1 for i in range(rank)]))


def _freeze_both(node: ir.Node, labels: Labels, left: LabelArray, right: LabelArray) -> None:
    for array in (left, right):
        labels.freeze(array, f"MatMul '{node.name}' joins two labelled axes")
