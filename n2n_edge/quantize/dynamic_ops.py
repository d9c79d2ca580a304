"""Float twins of operators on integers whose activations are quantized when they run (dynamic quantization)."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.quantize.integer_ops import constant_of, new_constant

__all__ = ["without_dynamic"]

_TWINS = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}


def without_dynamic(model: ir.Model) -> None:
    """Put, in place, the float operator for what ONNX Runtime's dynamic quantization made of it.

    That is DynamicQuantizeLinear, ConvInteger or MatMulInteger, Cast, and Mul by the product of both scales. What
    isn't of this form stays.
    """
    for node in list(model.graph):
        if node.op_type in _TWINS:
            _replace(model.graph, node)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    source = node.inputs[0]
    quantizer = None if source is None else source.producer()
    weight, offset = constant_of(node, 1), constant_of(node, 3)
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if quantizer is None or quantizer.op_type != "DynamicQuantizeLinear" or weight is None:
        return
    if zero is not quantizer.outputs[2] or (offset is None and len(node.inputs) > 3 and node.inputs[3] is not None):
        return
    cast = _only_reader(node.outputs[0], "Cast")
    scaled = None if cast is None else _only_reader(cast.outputs[0], "Mul")
    scale = None if cast is None or scaled is None else _weight_scale(scaled, cast.outputs[0], quantizer.outputs[1])
    per_tensor = scale is not None and scale.size == 1
    if scaled is None or scale is None or not (per_tensor or node.op_type == "MatMulInteger"):
        return
    steps = weight.astype(np.float32) - (0 if offset is None else _along(offset, weight, node))
    factor = scale.astype(np.float32)
    floats = np.asarray(steps * (factor.reshape(()) if per_tensor else factor), np.float32)
    stem = str(node.inputs[1].name).removesuffix("_quantized")  # type: ignore[union-attr]
    twin = ir.Node(
        "", _TWINS[node.op_type], [quantizer.inputs[0], new_constant(graph, stem, floats)],
        list(node.attributes.values()), name=node.name,
    )  # fmt: skip
    graph.insert_before(node, twin)
    old, new = scaled.outputs[0], twin.outputs[0]
    new.type, new.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name = name
    for each in (scaled, cast, node):
        graph.remove(each, safe=True)  # type: ignore[arg-type]


def _weight_scale(scaled: ir.Node, sums: ir.Value, activation: ir.Value) -> NDArray[np.generic] | None:
    """Return the scale of the weight where `scaled` multiplies by it and by that of the activation."""
    (factor,) = [value for value in scaled.inputs if value is not sums] or [None]
    product = None if factor is None else factor.producer()
    if product is None or product.op_type != "Mul" or activation not in product.inputs:
        return None
    return constant_of(product, 1 - list(product.inputs).index(activation))


def _along(offset: NDArray[np.generic], weight: NDArray[np.generic], node: ir.Node) -> NDArray[np.float32]:
    """Return zero points so that they broadcast over a weight: one for all, or for each output channel."""
    floats = offset.astype(np.float32)
    if offset.size > 1 and node.op_type == "ConvInteger":
        return floats.reshape(-1, *[1] * (weight.ndim - 1))
    return floats


def _only_reader(value: ir.Value, op_type: str) -> ir.Node | None:
    uses = list(value.uses())
    alone = len(uses) == 1 and not value.is_graph_output() and uses[0].node.op_type == op_type
    return uses[0].node if alone else None
