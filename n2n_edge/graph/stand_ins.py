"""Standard operators with the shapes of ONNX Runtime's own ones: what its quantizers write has no inference in ONNX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx
import onnx_ir as ir
from onnx import helper

__all__ = ["StandIn", "stand_in"]

_FLOAT = onnx.TensorProto.FLOAT
_UINT8 = onnx.TensorProto.UINT8


@dataclass(frozen=True)
class StandIn:
    """A node that has the same output shape; `kind` is the element type where that isn't its first input's."""

    node: onnx.NodeProto
    kind: int | None = None


_BY_INPUTS: Mapping[str, tuple[str, tuple[int, ...], tuple[str, ...]]] = MappingProxyType(
    {
        "QLinearAdd": ("Add", (0, 3), ()),
        "QLinearMul": ("Mul", (0, 3), ()),
        "QLinearSigmoid": ("Identity", (0,), ()),
        "QLinearLeakyRelu": ("Identity", (0,), ()),
        "QLinearSoftmax": ("Identity", (0,), ()),
        "QLinearAveragePool": (
            "AveragePool", (0,), ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"),
        ),
        "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), ()),
        "QGemm": ("Gemm", (0, 3), ("transA", "transB")),
        "MatMulIntegerToFloat": ("MatMul", (0, 1), ()),
        "DynamicQuantizeMatMul": ("MatMul", (0, 1), ()),
        "FusedGemm": ("Gemm", (0, 1, 2), ("transA", "transB")),
        "FusedConv": ("Conv", (0, 1, 2), ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")),
        "QuickGelu": ("Identity", (0,), ()),
        "FastGelu": ("Identity", (0,), ()),
        "Gelu": ("Identity", (0,), ()),
        "BiasGelu": ("Add", (0, 1), ()),
    }
)  # fmt: skip
"""Operator: the standard one, the inputs that it takes, the attributes that it keeps."""

_FLOAT_RESULTS = frozenset({"MatMulIntegerToFloat", "DynamicQuantizeMatMul"})


def stand_in(node: ir.Node) -> StandIn | None:
    """Return what stands for `node`, an operator of ``com.microsoft``, in shape inference; None where nothing does."""
    if node.domain != "com.microsoft" or node.attributes.get_int("channels_last", 0) == 1:
        return None
    names = [str(value.name) if value is not None else "" for value in node.inputs]
    outputs = [str(value.name) for value in node.outputs]
    if node.op_type == "QLinearConcat":
        tensors = names[2::3]
        return StandIn(helper.make_node("Concat", tensors, outputs, axis=node.attributes.get_int("axis", 0)))
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _conversion(node, names, outputs)
    if node.op_type not in _BY_INPUTS:
        return None
    op_type, indices, kept = _BY_INPUTS[node.op_type]
    proto = helper.make_node(op_type, _chosen(names, indices), outputs[:1])
    proto.attribute.extend(
        ir.serde.serialize_attribute(attribute) for name, attribute in node.attributes.items() if name in kept
    )
    floats = node.op_type in _FLOAT_RESULTS or (node.op_type == "QGemm" and len([name for name in names if name]) < 8)
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
