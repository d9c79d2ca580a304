"""Read the operands that ONNX keeps in attributes in old opsets and in constant inputs in newer ones."""

from collections.abc import Sequence

import onnx_ir as ir

from n2n_edge.graph.shapes import Shape

__all__ = ["axes_of", "constant_ints", "pad_amounts", "slice_plan", "split_sizes"]


def constant_ints(node: ir.Node, index: int) -> tuple[int, ...] | None:
    """Return the integers of constant input `index`; None where it is absent or computed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None:
        return None
    return tuple(int(item) for item in value.const_value.numpy().ravel())


def axes_of(node: ir.Node) -> tuple[int, ...] | None:
    """Return the `axes` of a Squeeze, Unsqueeze or Reduce node; None where they aren't given."""
    axes = node.attributes.get_ints("axes")
    return tuple(axes) if axes is not None else constant_ints(node, 1)


def split_sizes(node: ir.Node, total: int) -> tuple[int, ...]:
    """Return the size of each output of a Split along its axis of length `total`."""
    sizes = node.attributes.get_ints("split")
    given = tuple(sizes) if sizes is not None else constant_ints(node, 1)
    if given is not None:
        return given
    count = len(node.outputs)
    chunk = -(-total // count)
    return tuple(min(chunk, total - chunk * index) for index in range(count))


def pad_amounts(node: ir.Node, rank: int) -> tuple[tuple[int, int], ...] | None:
    """Return (before, after) for each of `rank` axes; None where the amounts are computed."""
    attribute = node.attributes.get_ints("pads")
    amounts: Sequence[int] | None = attribute if attribute is not None else constant_ints(node, 1)
    if amounts is None:
        return None
    axes = constant_ints(node, 3)
    if axes is None:
        axes = tuple(range(rank))
    table = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        table[axis % rank] = (amounts[position], amounts[position + len(axes)])
    return tuple(table)


def slice_plan(node: ir.Node, shape: Shape) -> dict[int, range] | None:
    """Return the positions that a Slice takes along each axis it names; None where its bounds are computed."""
    starts: Sequence[int] | None
    ends: Sequence[int] | None
    if "starts" in node.attributes:
        starts, ends = node.attributes.get_ints("starts"), node.attributes.get_ints("ends")
        axes, steps = node.attributes.get_ints("axes"), None
    else:
        starts, ends = constant_ints(node, 1), constant_ints(node, 2)
        axes, steps = constant_ints(node, 3), constant_ints(node, 4)
        computed = [value for value in node.inputs[1:] if value is not None and value.const_value is None]
        if computed:
            return None
    if starts is None or ends is None:
        return None
    named = axes if axes is not None else tuple(range(len(starts)))
    strides = steps if steps is not None else (1,) * len(starts)
    plan = {}
    for start, end, axis, step in zip(starts, ends, named, strides, strict=True):
        place = axis % len(shape)
        plan[place] = range(shape[place])[slice(start, _end(end, shape[place], step), step)]
    return plan


def _end(end: int, size: int, step: int) -> int | None:
    """ONNX clamps an end far below zero to "one before the start" for negative steps; python wraps it."""
    return None if step < 0 and end < -size else end
