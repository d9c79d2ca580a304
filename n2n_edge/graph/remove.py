"""Take layers out of a graph: what read a layer's output reads its input instead, re-fitted where the width differs."""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from n2n_edge.graph.layers import WIDTH_PASSING_OPS, Layer, weight_index
from n2n_edge.graph.load import drop_unused_initializers

__all__ = ["RemovalConflictError", "remove_layers"]


class RemovalConflictError(ValueError):
    """Layers that can each be removed, but not together; `layer` is the one whose return mends it."""

    def __init__(self, message: str, layer: str) -> None:
        super().__init__(message)
        self.layer = layer


def remove_layers(model: ir.Model, layers: Sequence[Layer], removed: Iterable[str]) -> ir.Model:
    """Return a copy of `model` (normalised) without the layers called `removed`.

    A removed layer becomes the identity. Where all layers of a residual branch are gone, both operands of its Add are
    the same value: the Add passes the skip through instead of doubling it. Where the width changes, the weights of
    every reader keep the rows of the channels that correspond and get zeros elsewhere (N2N, section 3.1).

    Raises:
        RemovalConflictError: the removals leave an op with inputs of different widths.
    """
    gone = set(removed)
    model = model.clone()
    nodes = {str(node.name): node for node in model.graph}
    refits: list[tuple[ir.Value, int, str]] = []
    for layer in layers:
        if layer.name not in gone:
            continue
        chain = [nodes[name] for name in layer.nodes]
        source = chain[0].inputs[1 - (weight_index(chain[0]) or 0)] if layer.op_type == "MatMul" else chain[0].inputs[0]
        assert source is not None
        output = chain[-1].outputs[0]
        ir.convenience.replace_all_uses_with(output, source)
        model.graph.remove(list(reversed(chain)), safe=False)
        if layer.in_channels != layer.out_channels:
            refits.append((source, layer.out_channels, layer.name))
    _collapse_empty_branches(model, gone)
    for source, _, name in refits:
        _refit_readers(model, source, _width(source), name)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_initializers(model)
    return model


def _collapse_empty_branches(model: ir.Model, removed: set[str]) -> None:
    if not removed:
        return
    for node in list(model.graph):
        if node.op_type == "Add" and node.inputs[0] is node.inputs[1] and node.inputs[0] is not None:
            output = node.outputs[0]
            if output.is_graph_output():
                continue
            ir.convenience.replace_all_uses_with(output, node.inputs[0])
            model.graph.remove(node, safe=True)


def _refit_readers(model: ir.Model, value: ir.Value, width: int, removed: str, inner: int = 1) -> None:
    """Make every reader of `value` take `width` channels of `inner` elements each."""
    for use in list(value.uses()):
        node = use.node
        if weight_index(node) is not None:
            _refit_weight(model, node, width, inner)
            continue
        output = node.outputs[0]
        shape = output.shape
        if node.op_type not in WIDTH_PASSING_OPS or shape is None or output.is_graph_output():
            raise RemovalConflictError(
                f"removing layer {removed!r} together with its neighbours leaves {node.op_type} '{node.name}' "
                "with an input of another width",
                removed,
            )
        spread = inner
        if node.op_type in ("Flatten", "Reshape"):
            source_shape = value.shape
            assert source_shape is not None
            spread = inner * int(np.prod([int(size) for size in list(source_shape)[2:]]))  # type: ignore[arg-type]
            if node.op_type == "Reshape":
                _set_flat_target(model, node)
        sizes = list(shape)
        sizes[1] = width * spread
        output.shape = ir.Shape(sizes)
        _refit_readers(model, output, width, removed, spread)


def _set_flat_target(model: ir.Model, node: ir.Node) -> None:
    target = ir.Value(name=f"{node.outputs[0].name}.flat", const_value=ir.tensor(np.array([0, -1], np.int64)))
    target.shape, target.dtype = ir.Shape([2]), ir.DataType.INT64
    if target.name not in model.graph.initializers:
        model.graph.register_initializer(target)
        node.replace_input_with(1, target)


def _refit_weight(model: ir.Model, node: ir.Node, width: int, inner: int) -> None:
    index = weight_index(node)
    assert index is not None
    value = node.inputs[index]
    assert value is not None
    assert value.const_value is not None
    weight = value.const_value.numpy()
    axis = _input_axis(node)
    moved = np.moveaxis(weight, axis, 0)
    old = moved.shape[0] // inner
    if old == width:
        return
    table = moved.reshape(old, inner, *moved.shape[1:])
    fitted = np.zeros((width, *table.shape[1:]), weight.dtype)
    fitted[: min(old, width)] = table[: min(old, width)]
    result = np.moveaxis(fitted.reshape(width * inner, *moved.shape[1:]), 0, axis)
    value.const_value = ir.tensor(np.ascontiguousarray(result), name=value.name)
    value.shape = ir.Shape(result.shape)


def _input_axis(node: ir.Node) -> int:
    if node.op_type == "Conv":
        return 1
    if node.op_type == "Gemm":
        return 1 if node.attributes.get_int("transB", 0) else 0
    return 0


def _width(value: ir.Value) -> int:
    assert value.shape is not None
    return int(value.shape[1])  # type: ignore[arg-type]
