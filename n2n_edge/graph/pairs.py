"""Pairs of QuantizeLinear and DequantizeLinear: which belong together, and what they hold."""

import onnx_ir as ir

from n2n_edge.graph.op import counted_op, op_of

__all__ = [
    "behind_pairs",
    "is_pair",
    "moves_integers",
    "only_moves",
    "quantized_type",
    "quantizer_of",
    "scales_of",
    "summing",
]

_MOVING = ("layout", "slicing", "free")
_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
_ORDERING = frozenset({"MaxPool", "ReduceMax", "ReduceMin"})


def quantized_type(node: ir.Node) -> ir.DataType:
    """Return the type of the integers that a QuantizeLinear gives or a DequantizeLinear takes."""
    zero = node.inputs[2] if len(node.inputs) > len(("x", "scale")) else None
    for value in (zero, node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]):
        held = None if value is None else value.const_value
        kind = held.dtype if held is not None else None if value is None else value.dtype
        if kind is not None:
            return kind
    named = node.attributes.get_int("output_dtype", 0) if node.op_type == "QuantizeLinear" else 0
    return ir.DataType(named) if named else ir.DataType.UINT8


def is_pair(node: ir.Node) -> bool:
    """Tell whether all that reads a QuantizeLinear is a DequantizeLinear of the same scale, zero point and axis."""
    output = node.outputs[0]
    uses = output.uses()
    if not uses or output.is_graph_output():
        return False
    return all(
        index == 0
        and reader.op_type == "DequantizeLinear"
        and _axis(reader) == _axis(node)
        and _same(reader, node, 1)
        and _same(reader, node, 2)
        for reader, index in uses
    )


def _axis(node: ir.Node) -> tuple[int, int]:
    return node.attributes.get_int("axis", 1) or 0, node.attributes.get_int("block_size", 0) or 0


def _same(one: ir.Node, other: ir.Node, index: int) -> bool:
    first, second = (node.inputs[index] if index < len(node.inputs) else None for node in (one, other))
    if first is second:
        return True
    if first is None or second is None or index == 1:  # two scales may be learned apart
        return False
    held = [value.const_value for value in (first, second)]
    if held[0] is None or held[1] is None:
        return False
    return held[0].dtype == held[1].dtype and held[0].tobytes() == held[1].tobytes()


def moves_integers(node: ir.Node) -> bool:
    """Tell whether what a QuantizeLinear gives is moved or ordered alone before it is dequantized."""
    waiting = [node.outputs[0]]
    while waiting:
        value = waiting.pop()
        if value.is_graph_output() or not value.uses():
            return False
        for reader, index in value.uses():
            if reader.op_type == "DequantizeLinear":
                continue
            if index != 0 and reader.op_type != "Concat":
                return False
            if not only_moves(reader):
                return False
            waiting.append(reader.outputs[0])
    return True


def only_moves(node: ir.Node) -> bool:
    """Tell whether a node takes quantized values and gives some of the same, in another order or shape."""
    row = counted_op(node.op_type, node.domain)
    return node.op_type in _ORDERING or (row.kernel in _MOVING and not row.quantized and node.op_type != "Pad")


def quantizer_of(node: ir.Node) -> ir.Node | None:
    """Return the QuantizeLinear whose integers reach a DequantizeLinear, moved or ordered at most."""
    value = node.inputs[0]
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "QuantizeLinear":
            return producer
        if not only_moves(producer):
            return None
        value = producer.inputs[0]
    return None


def behind_pairs(value: ir.Value) -> ir.Value:
    """Return what a value was before QuantizeLinear and DequantizeLinear: a weight itself, or its integers."""
    while (producer := value.producer()) is not None and op_of(producer).straight_through:
        source = producer.inputs[0]
        if source is None:
            break
        value = source
    return value


def scales_of(node: ir.Node) -> tuple[ir.Value, ...]:
    """Return the scales of a node's first two inputs, in their order, where both stand for integers of 8 bits."""
    scales = []
    for value in node.inputs[:2]:
        producer = None if value is None else value.producer()
        if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[1] is None:
            return ()
        if producer.attributes.get_int("block_size", 0) or quantized_type(producer) not in _BYTES:
            return ()
        scales.append(producer.inputs[1])
    return tuple(scales)


def summing(node: ir.Node) -> ir.Node | None:
    """Return the node whose output a QuantizeLinear alone takes, through activations that it does by the way."""
    value = node.inputs[0] if node.op_type == "QuantizeLinear" else None
    while value is not None and len(value.uses()) == 1 and (producer := value.producer()) is not None:
        if producer.op_type not in ("Relu", "Clip"):
            return producer
        value = producer.inputs[0]
    return None
