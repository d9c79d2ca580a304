"""Float twins of ONNX Runtime's operators on integers, between DequantizeLinear and QuantizeLinear."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.op import MICROSOFT

__all__ = ["as_pairs", "constant_of", "new_constant"]

_Inputs = list[ir.Value | None]


@dataclass(frozen=True)
class _Twin:
    """A float operator: `sources` are the first indices of each (value, scale, zero point) of the operator on integers,
    `result` that of the output's scale and zero point; `plain` are inputs taken as they are."""

    name: str
    sources: tuple[int, ...]
    result: int
    plain: tuple[int, ...] = ()
    bias: int | None = None


_TWINS = {
    ("", "QLinearConv"): _Twin("Conv", (0, 3), 6, bias=8),
    ("", "QLinearMatMul"): _Twin("MatMul", (0, 3), 6),
    (MICROSOFT, "QGemm"): _Twin("Gemm", (0, 3), 7, bias=6),
    (MICROSOFT, "QLinearAdd"): _Twin("Add", (0, 3), 6),
    (MICROSOFT, "QLinearMul"): _Twin("Mul", (0, 3), 6),
    (MICROSOFT, "QLinearAveragePool"): _Twin("AveragePool", (0,), 3),
    (MICROSOFT, "QLinearGlobalAveragePool"): _Twin("GlobalAveragePool", (0,), 3),
    (MICROSOFT, "QLinearLeakyRelu"): _Twin("LeakyRelu", (0,), 3),
    (MICROSOFT, "QLinearSigmoid"): _Twin("Sigmoid", (0,), 3),
    (MICROSOFT, "QLinearSoftmax"): _Twin("Softmax", (0,), 3),
    (MICROSOFT, "QLinearWhere"): _Twin("Where", (1, 4), 7, plain=(0,)),
}

_DROPPED = frozenset({"channels_last", "opset"})
"""Attributes that the float operators don't have."""


def as_pairs(model: ir.Model) -> None:
    """Put, in place, the float operator between DequantizeLinear and QuantizeLinear for each operator on integers.

    Operators that aren't in the table stay.

    Raises:
        InputError: an operator of the table on channels that lie last.
    """
    for node in list(model.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        twin = _TWINS.get((domain, node.op_type))
        if (domain, node.op_type) == (MICROSOFT, "QLinearConcat"):
            sources = range(2, len(node.inputs), 3)
            twin = _Twin("Concat", tuple(sources), 0)
        if twin is not None:
            _replace(node, twin)


def _replace(node: ir.Node, twin: _Twin) -> None:
    if node.attributes.get_int("channels_last", 0):
        raise InputError(
            f"{node.op_type} '{printable(node.name or '')}' has its channels last, which {twin.name} can't have; give "
            "the file that this one was optimised from"
        )
    added: list[ir.Node] = []

    def add(op: str, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr] = ()) -> ir.Value:
        added.append(ir.Node("", op, inputs, attributes))
        return added[-1].outputs[0]

    inputs: _Inputs = [node.inputs[index] for index in twin.plain]
    inputs += [_dequantized(node, index, twin, add) for index in twin.sources]
    if twin.bias is not None and (bias := _at(node, twin.bias)) is not None:
        inputs.append(add("DequantizeLinear", [bias, _bias_scale(node, twin)], [ir.AttrInt64("axis", 0)]))
    attributes = [item for name, item in node.attributes.items() if name not in _DROPPED]
    given = add(twin.name, inputs, attributes)
    added[-1].name = node.name
    old, scale = node.outputs[0], _at(node, twin.result)
    if scale is not None:
        given = add("QuantizeLinear", [given, scale, _at(node, twin.result + 1)])
    given.type, given.shape = old.type, old.shape
    assert node.graph is not None
    node.graph.insert_before(node, added)
    ir.convenience.replace_all_uses_with(old, given, replace_graph_outputs=True)
    given.name = old.name
    node.graph.remove(node, safe=True)


def _dequantized(node: ir.Node, index: int, twin: _Twin, add: Callable[..., ir.Value]) -> ir.Value:
    axis = 0
    if twin.name in ("MatMul", "Gemm"):  # a scale for each column
        axis = 0 if node.attributes.get_int("transB", 0) else -1
    return add(
        "DequantizeLinear",
        [node.inputs[index], _at(node, index + 1), _at(node, index + 2)],
        [ir.AttrInt64("axis", axis)],
    )


def _bias_scale(node: ir.Node, twin: _Twin) -> ir.Value:
    """Return the scale of a bias of 32-bit sums: the product of those of the input and the weight."""
    product = np.array(node.attributes.get_float("alpha", 1.0), np.float32)
    for index in twin.sources:
        scale = constant_of(node, index + 1)
        if scale is None:
            raise InputError(
                f"the quantization can't be undone exactly: the scales of {node.op_type} "
                f"'{printable(node.name or '')}' are found at run time"
            )
        product = product * scale.astype(np.float32)
    assert isinstance(node.graph, ir.Graph)
    return new_constant(node.graph, f"{node.outputs[0].name}_bias_scale", np.asarray(product, np.float32))


def constant_of(node: ir.Node, index: int) -> NDArray[np.generic] | None:
    """Return the content of a node's input where that is a constant."""
    value = _at(node, index)
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def new_constant(graph: ir.Graph, stem: str, array: NDArray[np.generic]) -> ir.Value:
    """Return a new initializer of `graph`, called `stem` or, where that is taken, `stem` and a number."""
    taken = {*graph.initializers, *(value.name for node in graph for value in node.outputs)}
    taken |= {value.name for value in graph.inputs}
    name = next(each for each in (stem, *(f"{stem}_{n}" for n in range(2, len(taken) + 3))) if each not in taken)
    shape, kind = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
    value = ir.Value(name=name, shape=shape, type=kind, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _at(node: ir.Node, index: int) -> ir.Value | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return value if value is not None and value.name else None
