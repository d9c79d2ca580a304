"""Concat with a constant that is one number everywhere, made into Pad: it holds for every batch and stores one number.

Exporters pad channels this way, with zeros made for one image (MediaPipe's networks) or for every image of a batch.
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.operands import opset_of
from n2n_edge.graph.shape_run import Array
from n2n_edge.graph.shapes import Trace

__all__ = ["pad_instead_of_concat"]


_Padded = tuple[str, int, int]
"""Of a new value: what it pads, along which axis, and by how much."""


def pad_instead_of_concat(model: ir.Model, one: Trace, two: Trace) -> tuple[Trace, Trace]:
    """Replace, in place, the parts of every Concat that hold one number throughout by a Pad of the part beside them.

    Returns the traces of the new graph.
    """
    added: dict[str, _Padded] = {}
    taken = {str(value.name) for node in model.graph for value in node.outputs}
    for node in list(model.graph):
        axis = node.attributes.get_int("axis", None) if node.op_type == "Concat" else None
        name = str(node.outputs[0].name)
        if axis is None or name not in one.shapes or not np.issubdtype(one.dtypes[name], np.floating):
            continue
        fills = [None if value is None else _fill(value, one, two) for value in node.inputs]
        if any(fill is not None for fill in fills) and any(fill is None for fill in fills):
            _pad(model, node, axis % len(one.shapes[name]), fills, one, added, taken)
    return _with_values(one, added), _with_values(two, added)


def _with_values(trace: Trace, added: Mapping[str, _Padded]) -> Trace:
    """Return `trace` with values that are longer than others along one axis."""
    shapes, dtypes = dict(trace.shapes), dict(trace.dtypes)
    for name, (source, axis, extra) in added.items():
        longer = list(shapes[source])
        longer[axis] += extra
        shapes.setdefault(name, tuple(longer))
        dtypes.setdefault(name, dtypes[source])
    return Trace(shapes, dtypes, trace.values)


def _fill(value: ir.Value, one: Trace, two: Trace) -> Array | None:
    """Return the number that `value` holds everywhere, for every batch; None where it isn't such a constant."""
    name = str(value.name)
    if value.const_value is not None:
        arrays = [value.const_value.numpy()]
    elif name in one.values and name in two.values:
        arrays = [one.values[name], two.values[name]]
    else:
        return None
    first = arrays[0].ravel()[:1]
    same = all(array.size and array.tobytes() == first.tobytes() * array.size for array in arrays)
    return first.reshape(()) if same and np.isfinite(first).all() else None


def _pad(
    model: ir.Model,
    node: ir.Node,
    axis: int,
    fills: list[Array | None],
    one: Trace,
    added: dict[str, _Padded],
    taken: set[str],
) -> None:
    """Give each part that isn't constant the constant parts beside it, those before the first one included."""
    place = axis, len(one.shapes[str(node.outputs[0].name)])
    parts: list[ir.Value] = []
    leading: list[tuple[Array, int]] = []
    for value, fill in zip(list(node.inputs), fills, strict=True):
        assert value is not None
        size = _size(value, axis, one)
        if fill is None:
            for number, before in reversed(leading):
                value = _padded(model, node, value, place, (before, 0), number, added, taken)
            leading = []
            parts.append(value)
        elif parts:
            parts[-1] = _padded(model, node, parts[-1], place, (0, size), fill, added, taken)
        else:
            leading.append((fill, size))
    output = node.outputs[0]
    if len(parts) > 1:  # a Concat still
        for index, value in enumerate(parts):
            node.replace_input_with(index, value)
        node.resize_inputs(len(parts))
        return
    (last,) = parts
    producer = last.producer()
    assert producer is not None
    name = output.name
    ir.convenience.replace_all_uses_with(output, last, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    last.name, last.type, last.shape = name, output.type, output.shape


def _size(value: ir.Value, axis: int, one: Trace) -> int:
    shape = tuple(value.const_value.shape.numpy()) if value.const_value is not None else one.shapes[str(value.name)]
    return shape[axis]


def _padded(
    model: ir.Model,
    concat: ir.Node,
    value: ir.Value,
    place: tuple[int, int],
    amounts: tuple[int, int],
    fill: Array,
    added: dict[str, _Padded],
    taken: set[str],
) -> ir.Value:
    """Return `value` with so many numbers `fill` before and after it; `place` is the axis and the rank.

    `taken` are the names that values have already.
    """
    axis, rank = place
    pads = [0] * (2 * rank)
    pads[axis], pads[axis + rank] = amounts
    attributes: list[ir.Attr] = []
    inputs: list[ir.Value | None] = [value]
    if opset_of(concat) < 11:
        attributes = [ir.AttrInt64s("pads", pads), ir.AttrFloat32("value", float(fill))]
    else:
        inputs.append(_constant(model, "pads_" + "_".join(map(str, pads)), np.array(pads, np.int64)))
        if fill.tobytes() != b"\0" * fill.itemsize:
            inputs.append(_constant(model, f"fill_{fill.dtype}_{fill}", fill))
    name = _free_name(taken, f"{value.name}.padded")
    taken.add(name)
    node = ir.Node("", "Pad", inputs, attributes, name=name)
    model.graph.insert_before(concat, node)
    padded = node.outputs[0]
    padded.name = name
    added[padded.name] = str(value.name), axis, sum(amounts)
    return padded


def _constant(model: ir.Model, name: str, array: Array) -> ir.Value:
    """Return the initializer called `name`, the same for all Pads that need this array."""
    known = model.graph.initializers.get(name)
    if known is not None and known.const_value is not None and np.array_equal(known.const_value.numpy(), array):
        return known
    constant = ir.Value(name=name if known is None else f"{name}.of", const_value=ir.Tensor(array))
    model.graph.register_initializer(constant)
    return constant


def _free_name(taken: Collection[str], name: str) -> str:
    count, free = 2, name
    while free in taken:
        free, count = f"{name}.{count}", count + 1
    return free
