"""Bring a teacher into the one form that the rest of the program knows.

Afterwards: functions are inlined, constants are initializers, shape arithmetic that doesn't depend on the batch is
folded, Identity and Dropout are gone, nodes have names, and every value carries its shape, ``N`` being the batch.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from n2n_edge.errors import InputError
from n2n_edge.graph.free_batch import free_batch
from n2n_edge.graph.load import drop_unused_initializers
from n2n_edge.graph.operands import is_computed
from n2n_edge.graph.shapes import batch_dim
from n2n_edge.graph.witness import Array, witness, witness_inputs

__all__ = ["normalise"]

_QUANTIZED_OPS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)
_RANDOM_OPS = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"})


def normalise(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> ir.Model:
    """Return a normalised copy of `model`; `input_shape` as for `witness_inputs`.

    Raises:
        InputError: the model is quantized, or ONNX Runtime can't run it.
    """
    model = _without_boilerplate(model)
    quantized = sorted({node.op_type for node in model.graph} & _QUANTIZED_OPS)
    if quantized:
        raise InputError(
            f"the model is quantized ({', '.join(quantized)}); give the float model that it was made from: "
            "compress that one and quantize the student"
        )
    model = free_batch(model, input_shape)
    one, two = _witness_two_batches(model, input_shape)
    _fold_static(model, one, two)
    _free_batch_in_reshapes(model, one, two)
    common.RemoveUnusedNodesPass()(model)
    _drop_dropout(model)
    common.IdentityEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_initializers(model)
    _note_shapes(model, one, two)
    _name_nodes(model)
    return model


def _without_boilerplate(model: ir.Model) -> ir.Model:
    model = model.clone()
    if model.functions:
        common.InlinePass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    common.RemoveInitializersFromInputsPass()(model)
    common.RemoveUnusedNodesPass()(model)
    return model


def _witness_two_batches(
    model: ir.Model, input_shape: tuple[int, ...] | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    one_in, two_in = (witness_inputs(model, batch, input_shape) for batch in (1, 2))
    one = {**witness(model, one_in), **one_in}
    if all(one_in[name].shape == two_in[name].shape for name in one_in):
        return one, one
    try:
        return one, {**witness(model, two_in), **two_in}
    except InputError:  # the batch axis is free in name only: some constant inside fixes it to one
        for value in model.graph.inputs:
            value.shape = ir.Shape(one_in[str(value.name)].shape)
        return one, one


def _fold_static(model: ir.Model, one: dict[str, Array], two: dict[str, Array]) -> None:
    """Turn values that follow from constants and shapes alone, whatever the batch, into initializers."""
    graph = model.graph
    static: set[str] = set(graph.initializers)
    for node in list(graph):
        if node.op_type in _RANDOM_OPS or any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            continue
        from_shapes = node.op_type in ("Shape", "Size")
        if not from_shapes and not all(value is None or str(value.name) in static for value in node.inputs):
            continue
        names = [str(value.name) for value in node.outputs]
        static.update(names)
        if len(names) != 1 or not np.array_equal(one[names[0]], two[names[0]]):
            continue
        old = node.outputs[0]
        if old.is_graph_output():
            continue
        constant = ir.Value(name=f"{names[0]}.folded", const_value=ir.Tensor(one[names[0]]))
        graph.register_initializer(constant)
        static.add(str(constant.name))
        ir.convenience.replace_all_uses_with(old, constant)
        graph.remove(node, safe=True)


def _free_batch_in_reshapes(model: ir.Model, one: dict[str, Array], two: dict[str, Array]) -> None:
    """Give a Reshape whose target is computed from the batch a constant target that leaves the batch open."""
    for node in model.graph:
        if node.op_type != "Reshape" or not is_computed(node, 1):
            continue
        source, target = node.inputs[0], node.inputs[1]
        assert source is not None
        assert target is not None
        free = _free_target(one[str(target.name)], two[str(target.name)], one[str(source.name)].shape)
        if free is not None:
            constant = ir.Value(name=f"{node.outputs[0].name}.shape", const_value=ir.Tensor(free))
            model.graph.register_initializer(constant)
            node.replace_input_with(1, constant)


def _free_target(first: Array, second: Array, source: tuple[int, ...]) -> Array | None:
    """Return a Reshape target for every batch from those for a batch of one and of two; None where none serves both."""
    varying = np.flatnonzero(first != second)
    if len(varying) != 1:
        return None
    place = int(varying[0])
    if -1 not in first:
        return np.where(np.arange(len(first)) == place, -1, first).astype(np.int64)
    if place == 0 and first[0] == source[0]:  # 0 copies the axis of the input
        return np.where(np.arange(len(first)) == 0, 0, first).astype(np.int64)
    return None


def _drop_dropout(model: ir.Model) -> None:
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Dropout" else None
        if source is None or node.outputs[0].is_graph_output():
            continue
        if len(node.outputs) > 1 and any(output.uses() for output in node.outputs[1:]):
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        model.graph.remove(node, safe=True)


def _note_shapes(model: ir.Model, one: dict[str, Array], two: dict[str, Array]) -> None:
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in values:
        name = str(value.name)
        if name not in one or one[name].dtype == object:  # sequences and strings
            continue
        first, second = one[name].shape, two[name].shape
        value.shape = ir.Shape([a if a == b else batch_dim(a) for a, b in zip(first, second, strict=True)])
        value.dtype = ir.DataType.from_numpy(one[name].dtype)
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = _as_array(value.const_value)
        value.shape, value.dtype = ir.Shape(value.const_value.shape.numpy()), value.const_value.dtype


def _as_array(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Hold a tensor as a numpy array: candidates slice it again and again."""
    if not isinstance(tensor, ir.TensorProtoTensor) or tensor.dtype == ir.DataType.STRING or tensor.dtype.itemsize < 1:
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _name_nodes(model: ir.Model) -> None:
    seen: set[str] = set()
    for index, node in enumerate(model.graph):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
