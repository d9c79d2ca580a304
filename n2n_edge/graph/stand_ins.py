"""Standard operators with the shapes of ONNX Runtime's own ones: what its quantizers write has no inference in ONNX."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import helper

from n2n_edge.graph.op import MICROSOFT, op_of

__all__ = ["StandIn", "stand_in"]

_FLOAT = onnx.TensorProto.FLOAT
_UINT8 = onnx.TensorProto.UINT8


@dataclass(frozen=True)
class StandIn:
    """A node that has the same output shape; `kind` is the element type where that isn't its first input's."""

    node: onnx.NodeProto
    kind: int | None = None


def stand_in(node: ir.Node) -> StandIn | None:
    """Return what stands for `node`, of another domain, in shape inference; None where nothing does."""
    row = op_of(node)
    if node.domain == MICROSOFT and node.attributes.get_int("channels_last", 0) == 1:
        return None
    names = [str(value.name) if value is not None else "" for value in node.inputs]
    outputs = [str(value.name) for value in node.outputs]
    if row.domain == MICROSOFT and row.name == "QLinearConcat":
        tensors = names[2::3]
        return StandIn(helper.make_node("Concat", tensors, outputs, axis=node.attributes.get_int("axis", 0)))
    if row.domain == MICROSOFT and row.kernel == "conversion":
        return _conversion(node, names, outputs)
    like = row.like
    if like is None:
        return None
    proto = helper.make_node(like.name, _chosen(names, like.inputs), outputs[:1])
    proto.attribute.extend(
        ir.serde.serialize_attribute(attribute)
        for name, attribute in node.attributes.items()
        if name in like.attributes
    )
    floats = like.gives_float or (row.name == "QGemm" and len([name for name in names if name]) < 8)
    return StandIn(proto, _FLOAT if floats else None)


def _chosen(names: Sequence[str], indices: Sequence[int]) -> list[str]:
    return [names[index] for index in indices if index < len(names)]


def _conversion(node: ir.Node, names: Sequence[str], outputs: Sequence[str]) -> StandIn:
    """Stand for the conversions to and from 4 and 16 bits, which ONNX Runtime had before ONNX."""
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    kind: int = _FLOAT
    if node.op_type == "QuantizeLinear":
        kind = int(zero_point.dtype) if zero_point is not None and zero_point.dtype is not None else _UINT8
    return StandIn(helper.make_node("Identity", [names[0]], list(outputs)), kind)
