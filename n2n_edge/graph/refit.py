"""Refitting of the readers of a value to another number of channels: which can take it, and their new weights."""

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.op import op_of
from n2n_edge.graph.operands import source_index, weight_index
from n2n_edge.graph.shapes import is_constant

__all__ = ["refit_blocker", "refit_reader"]


def refit_blocker(value: ir.Value, width: int) -> str:
    """Return what keeps the readers of `value` (`width` channels) from taking another width, or an empty text."""
    if value.is_graph_output():
        return f"it is the graph output '{value.name}'"
    return _blocker([(use.node, use.idx) for use in value.uses()], width)


def refit_reader(model: ir.Model, node: ir.Node, index: int, old: int, new: int) -> str:
    """Make `node`, which took `old` channels at input `index`, take `new`; return what prevents it, empty where done.

    Weights keep the rows of the channels that correspond and get zeros elsewhere (N2N, ICLR 2018, section 3.1).
    """
    blocker = _blocker([(node, index)], old)
    if not blocker:
        _refit(model, node, new)
    return blocker


def _blocker(readers: Sequence[tuple[ir.Node, int]], width: int) -> str:
    """Return what keeps `readers`, and what reads the width that they pass on, from taking another than `width`."""
    waiting = list(reversed(readers))
    while waiting:
        node, index = waiting.pop()
        blocker = _reader_blocker(node, index, width)
        if blocker:
            return blocker
        if weight_index(node) is None:  # it passes the width on
            output = node.outputs[0]
            if output.is_graph_output():
                return f"it is the graph output '{output.name}'"
            waiting += reversed([(use.node, use.idx) for use in output.uses()])
    return ""


def _reader_blocker(node: ir.Node, index: int, width: int) -> str:
    """Return what keeps `node` itself from taking another width at input `index`."""
    label = f"{node.op_type} '{node.name}'"
    weight = weight_index(node)
    if weight is not None:
        return "" if _takes_any_width(node, index, weight) else f"{label} ties its input to its output"
    constant_rest = all(item is None or position == index or is_constant(item) for position, item in _inputs(node))
    passes = op_of(node).passes_width
    if passes is None or index or not constant_rest or len(node.outputs) > 1 or not passes(node, width):
        return f"{label} can't take another width"
    return ""


def _takes_any_width(node: ir.Node, index: int, weight_at: int) -> bool:
    weight = node.inputs[weight_at]
    if weight is None or weight.const_value is None or index != source_index(weight_at) or len(weight.uses()) > 1:
        return False
    row = op_of(node).weight
    return row is not None and row.takes_any_width(node, weight_at)


def _refit(model: ir.Model, reader: ir.Node, width: int) -> None:
    """Make `reader` take `width` channels, and so on behind ops that pass the width on."""
    waiting = [(reader, 1)]  # beside each node: how many elements of its input each channel has
    while waiting:
        node, inner = waiting.pop()
        weight_at = weight_index(node)
        if weight_at is not None:
            _refit_weight(node, weight_at, width, inner)
            continue
        source, output = node.inputs[0], node.outputs[0]
        assert source is not None
        assert source.shape is not None
        assert output.shape is not None
        if op_of(node).form == "reshaped":
            inner *= prod(_sizes(source.shape[2:]))
        if node.op_type == "Reshape":
            _flatten_to_any_width(model, node)
        output.shape = ir.Shape([output.shape[0], width * inner, *output.shape[2:]])
        waiting += [(use.node, inner) for use in output.uses()]


def _refit_weight(node: ir.Node, weight_at: int, width: int, inner: int) -> None:
    value, row = node.inputs[weight_at], op_of(node).weight
    assert value is not None
    assert value.const_value is not None
    assert row is not None
    weight = value.const_value.numpy()
    axis = max(row.axes(node, weight_at)[1], -weight.ndim)
    rows = np.moveaxis(weight, axis, 0)
    fitted = np.zeros((width * inner, *rows.shape[1:]), weight.dtype)
    shared = min(len(fitted), len(rows))
    fitted[:shared] = rows[:shared]
    result = np.ascontiguousarray(np.moveaxis(fitted, 0, axis))
    value.const_value = ir.Tensor(result, dtype=value.const_value.dtype, name=value.name)
    value.shape = value.const_value.shape


def _flatten_to_any_width(model: ir.Model, node: ir.Node) -> None:
    name = f"{node.outputs[0].name}.flat"
    target = model.graph.initializers.get(name)
    if target is None:
        target = ir.Value(name=name)
        target.const_value = ir.Tensor(np.array([0, -1], np.int64), name=name)
        target.shape, target.dtype = target.const_value.shape, ir.DataType.INT64
        model.graph.register_initializer(target)
    node.replace_input_with(1, target)


def _inputs(node: ir.Node) -> Iterator[tuple[int, ir.Value | None]]:
    return enumerate(node.inputs)


def _sizes(shape: Sequence[int | ir.SymbolicDim]) -> list[int]:
    return [size for size in shape if isinstance(size, int)]
