"""Operands of nodes, which ONNX keeps in attributes in old opsets and in constant inputs in newer ones."""

from collections.abc import Sequence

import onnx_ir as ir

from n2n_edge.graph.op import op_of
from n2n_edge.graph.shapes import Shape, is_constant
from n2n_edge.graph.subgraphs import bodies_of, nodes_within

__all__ = [
    "axes_of", "constant_ints", "fixed_source", "is_computed", "is_fixed", "is_weight", "layer_input", "nodes_within",
    "opset_of", "pad_amounts", "pads_positions_only", "repeats_for_batch", "slice_plan", "source_index", "split_sizes",
    "values_read", "weight_index",
]  # fmt: skip


_MOST_VIEWS = 16
"""How many ops may lie between a constant and another form of it; what lies farther is calculated like any value."""


def fixed_source(value: ir.Value) -> ir.Value | None:
    """Return the fixed value that `value` is but another form of, the ops between them being constant; else None."""
    return None if is_constant(value) or not is_fixed(value) else _viewed(value)


def _viewed(value: ir.Value) -> ir.Value | None:
    """Return what `value` is another form of, whether that is fixed or not; None where it isn't a mere form."""
    node = value.producer()
    if node is None or op_of(node).form in ("", "tiled"):
        return None
    source, *settings = node.inputs
    constant = all(item is None or is_constant(item) for item in settings)
    return source if constant or repeats_for_batch(node) else None


def repeats_for_batch(node: ir.Node) -> bool:
    """Tell whether an Expand repeats what it reads for every image: its target is the batch, then constants."""
    target = node.inputs[1] if node.op_type == "Expand" else None
    joined = target.producer() if target is not None else None
    if joined is None or joined.op_type != "Concat" or len(joined.inputs) != 2:
        return False
    batch, rest = joined.inputs
    return batch is not None and not is_constant(batch) and rest is not None and is_constant(rest)


def is_fixed(value: ir.Value) -> bool:
    """Tell whether `value` is a constant, or another form of one that is worked out when the network runs."""
    held: ir.Value | None = value
    for _ in range(_MOST_VIEWS):
        if held is None or is_constant(held):
            break
        held = _viewed(held)
    return held is not None and is_constant(held)


def is_weight(value: ir.Value) -> bool:
    """Tell whether `value` is a constant, or another form of one that holds each of its elements once."""
    while (source := fixed_source(value)) is not None:
        node = value.producer()
        if node is None or op_of(node).form == "repeated":
            return False
        value = source
    return is_constant(value)


def weight_index(node: ir.Node) -> int | None:
    """Return which input of `node` is its constant weight matrix or kernel; None where it isn't a weighted op."""
    row = op_of(node).weight
    for index in () if row is None else row.inputs:
        weight, other = (node.inputs[at] if at < len(node.inputs) else None for at in (index, source_index(index)))
        if weight is not None and other is not None and is_weight(weight) and not is_fixed(other):
            return index
    return None


def source_index(weight_at: int) -> int:
    """Return which input of a weighted op is the activation where input `weight_at` is the weight."""
    return 0 if weight_at else 1


def layer_input(node: ir.Node) -> tuple[ir.Value, int]:
    """Return the activation that a weighted op (with noted shapes) reads and the position of its channel axis."""
    index = weight_index(node)
    row = op_of(node).weight
    source = None if index is None else node.inputs[source_index(index)]
    assert row is not None
    assert source is not None
    assert source.shape is not None
    if not row.channels_last:
        return source, 1
    return source, max(len(source.shape) - (1 if index == 1 else 2), 0)


def values_read(node: ir.Node) -> tuple[ir.Value, ...]:
    """Return what `node` reads: its inputs, and for control flow what its bodies take from outside."""
    read = {value: None for value in node.inputs if value is not None}
    for body in bodies_of(node):
        inner = [value for item in body for value in values_read(item)]
        read |= {value: None for value in [*inner, *body.outputs] if value.graph is not body}
    return tuple(read)


def opset_of(node: ir.Node) -> int:
    """Return the version of the standard operators that the graph of `node` imports."""
    assert node.graph is not None
    return node.graph.opset_imports.get("") or node.graph.opset_imports.get("ai.onnx") or 1


def constant_ints(node: ir.Node, index: int) -> tuple[int, ...] | None:
    """Return the integers of constant input `index`; None where it is absent or computed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None:
        return None
    return tuple(int(item) for item in value.const_value.numpy().ravel())


def is_computed(node: ir.Node, index: int) -> bool:
    """Tell whether input `index` is there but isn't constant."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return value is not None and not is_constant(value)


def axes_of(node: ir.Node) -> tuple[int, ...] | None:
    """Return the `axes` of a Squeeze, Unsqueeze or Reduce node; None where they aren't given."""
    axes = node.attributes.get_ints("axes")
    return tuple(axes) if axes is not None else constant_ints(node, 1)


def split_sizes(node: ir.Node, total: int) -> tuple[int, ...]:
    """Return the size of each output of a Split along its axis of length `total`."""
    given = node.attributes.get_ints("split") or constant_ints(node, 1)
    if given:
        return tuple(given)
    count = len(node.outputs)
    chunk = -(-total // count)
    return tuple(min(chunk, total - chunk * index) for index in range(count))


def pad_amounts(node: ir.Node, rank: int) -> tuple[tuple[int, int], ...] | None:
    """Return (before, after) for each of `rank` axes; None where the amounts are computed."""
    attribute = node.attributes.get_ints("pads")
    amounts: Sequence[int] | None = attribute if attribute is not None else constant_ints(node, 1)
    if amounts is None:
        return None
    axes = constant_ints(node, 3) or tuple(range(rank))
    table = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        table[axis % rank] = (amounts[position], amounts[position + len(axes)])
    return tuple(table)


def pads_positions_only(node: ir.Node, rank: int) -> bool:
    """Tell whether a Pad extends rows and columns alone, by constant amounts: batch and channels stay as they are."""
    constant = not any(is_computed(node, index) for index in range(1, len(node.inputs)))
    amounts = pad_amounts(node, rank) if constant else None
    return amounts is not None and not any(map(any, amounts[:2]))


def slice_plan(node: ir.Node, shape: Shape) -> dict[int, range] | None:
    """Return the positions that a Slice takes along each axis it names; None where its bounds are computed."""
    if any(is_computed(node, index) for index in range(1, len(node.inputs))):
        return None
    starts, ends, axes = (
        node.attributes.get_ints(name) or constant_ints(node, index)
        for index, name in enumerate(("starts", "ends", "axes"), start=1)
    )
    if starts is None or ends is None:
        return None
    steps = constant_ints(node, 4) or (1,) * len(starts)
    plan = {}
    for start, end, axis, step in zip(starts, ends, axes or range(len(starts)), steps, strict=True):
        place = axis % len(shape)
        plan[place] = range(shape[place])[slice(start, _end(end, shape[place], step), step)]
    return plan


def _end(end: int, size: int, step: int) -> int | None:
    """ONNX clamps an end far below zero to "one before the start" for negative steps; python wraps it."""
    return None if step < 0 and end < -size else end
