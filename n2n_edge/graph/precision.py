"""Precision that each node is calculated in: told by quantized operators, pairs around float ones, and types of values.

A float operator that reads nothing but DequantizeLinear, and whose output goes into QuantizeLinear alone, is calculated
in 8-bit integers where ONNX Runtime has such a kernel (`Op.integer`); the pairs then cost nothing. A matrix product may
give floats. Relu and Clip vanish where QuantizeLinear cuts off as much. What is left between pairs is a *float island*:
its DequantizeLinear and QuantizeLinear are real conversions, as at the borders of the network.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.op import Op, counted_op
from n2n_edge.metrics.precisions import Precision

__all__ = ["kind_of", "precisions_of", "quantized_range"]

_EIGHT_BITS = (ir.DataType.INT8, ir.DataType.UINT8)
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_PRODUCTS = ("gemm", "matmul")
_WEIGHTED = ("conv", *_PRODUCTS)
_QUANTIZERS = ("QuantizeLinear", "DynamicQuantizeLinear")

_TOLERANCE = 0.01
"""Steps by which the bound of an activation may miss the range of what quantizes it, as in ONNX Runtime."""

Range = tuple[float, float]


def precisions_of(nodes: Sequence[ir.Node], kinds: Mapping[str, int]) -> dict[ir.Node, Precision]:
    """Return the precision of every node of a flat graph; `kinds` are element types that the graph doesn't note.

    Of conversions, ``int8`` are those that a runtime drops since the nodes beside them calculate in integers.
    """
    integers = _integer_nodes(nodes, kinds) if any(_row(node).quantized for node in nodes) else set()
    return {
        node: "int8" if node in integers else "fp16" if _calculates_in_half(node, kinds) else "fp32" for node in nodes
    }


def kind_of(value: ir.Value, kinds: Mapping[str, int]) -> ir.DataType | None:
    """Return the element type of a value: a constant's own, else that in `kinds`, else what the graph notes.

    What QuantizeLinear gives has the type of its zero point.
    """
    if value.const_value is not None:
        return value.const_value.dtype
    if str(value.name) in kinds:
        return ir.DataType(kinds[str(value.name)])
    node = value.producer()
    if value.dtype is None and node is not None and node.op_type == "QuantizeLinear" and len(node.inputs) > 2:
        zero = node.inputs[2]
        return None if zero is None else kind_of(zero, kinds)
    return value.dtype


def quantized_range(node: ir.Node) -> Range | None:
    """Return the least and the largest float that a QuantizeLinear with a constant scale and 8 bits lets through."""
    scale, zero = _constant(node, 1), _constant(node, 2)
    zero = np.zeros(1, np.uint8) if zero is None else zero
    if scale is None or scale.size != 1 or zero.size != 1 or zero.dtype not in (np.int8, np.uint8):
        return None
    least, most = (-128, 127) if zero.dtype == np.int8 else (0, 255)
    step, offset = float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])
    return (least - offset) * step, (most - offset) * step


def _integer_nodes(nodes: Sequence[ir.Node], kinds: Mapping[str, int]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    held: set[ir.Value] = set()  # values that are 8-bit integers, quantized further up
    for node in nodes:
        row = _row(node)
        if row.kernel == "conversion":
            held.update(node.outputs[:1] if node.op_type in _QUANTIZERS else ())
        elif row.integer and (row.quantized or node.inputs[0] in held):
            found.add(node)
            held.update(value for value in node.outputs if kind_of(value, kinds) in _EIGHT_BITS)
        elif row.integer and _is_fed_integers(node, row, kinds):
            absorbed = _absorbed(node, row)
            if absorbed is not None:
                found.update((node, *absorbed))
    for node in nodes:
        if node.op_type == "DequantizeLinear":
            value = node.outputs[0]
            readers = [use.node for use in value.uses()]
            if readers and not value.is_graph_output() and found.issuperset(readers):
                found.add(node)
        elif node.op_type == "QuantizeLinear" and node.inputs[0] is not None and node.inputs[0].producer() in found:
            found.add(node)
    return found


def _is_fed_integers(node: ir.Node, row: Op, kinds: Mapping[str, int]) -> bool:
    """Tell whether all that a node calculates with comes from DequantizeLinear of 8-bit integers."""
    inputs: Iterable[ir.Value | None] = node.inputs[:1]
    if row.kernel in _WEIGHTED:
        inputs = node.inputs[:2]
    elif row.join:
        inputs = node.inputs
    elif node.op_type == "Where":
        inputs = node.inputs[1:]
    return all(value is not None and _was_quantized(value, kinds) for value in inputs)


def _was_quantized(value: ir.Value, kinds: Mapping[str, int]) -> bool:
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return False
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    return kind_of(node.inputs[0] if zero is None else zero, kinds) in _EIGHT_BITS


def _absorbed(node: ir.Node, row: Op) -> tuple[ir.Node, ...] | None:
    """Return the activations that vanish between a node and what quantizes its outputs; None where nothing does."""
    absorbed = []
    for output in node.outputs:
        activation = _only_reader(output)
        value = output
        if activation is not None and activation.op_type in ("Relu", "Clip"):
            after = [use.node for use in activation.outputs[0].uses()]
            if after and all(_cuts_as_much(each, activation) for each in after):
                absorbed.append(activation)
                value = activation.outputs[0]
        readers = [use.node for use in value.uses()]
        quantized = bool(readers) and all(each.op_type == "QuantizeLinear" for each in readers)
        if value.is_graph_output() or not (quantized or (not readers and len(node.outputs) > 1)):
            return () if row.kernel in _PRODUCTS else None
    return tuple(absorbed)


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _cuts_as_much(quantizer: ir.Node, activation: ir.Node) -> bool:
    """Tell whether nothing that a QuantizeLinear lets through would have been changed by the activation before it."""
    through = quantized_range(quantizer) if quantizer.op_type == "QuantizeLinear" else None
    bounds = (0.0, np.inf) if activation.op_type == "Relu" else _clip_bounds(activation)
    if through is None or bounds is None:
        return False
    slack = _TOLERANCE * (through[1] - through[0]) / 255
    return bounds[0] <= through[0] + slack and through[1] - slack <= bounds[1]


def _clip_bounds(node: ir.Node) -> Range | None:
    bounds = []
    for index, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        given = node.inputs[index] if len(node.inputs) > index else None
        constant = _constant(node, index)
        if given is not None and (constant is None or constant.size != 1):
            return None
        value = default if constant is None else float(constant.reshape(-1)[0])
        bounds.append(node.attributes.get_float(name, value))
    return bounds[0], bounds[1]


def _constant(node: ir.Node, index: int) -> NDArray[np.generic] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def _calculates_in_half(node: ir.Node, kinds: Mapping[str, int]) -> bool:
    row = _row(node)
    if row.kernel == "conversion" or row.form == "cast":
        return False
    return any(kind_of(value, kinds) in _HALF for value in node.outputs if value.name)


def _row(node: ir.Node) -> Op:
    return counted_op(node.op_type, node.domain)
