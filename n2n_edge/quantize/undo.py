"""Float model that a quantized one was made from: pairs of QuantizeLinear and DequantizeLinear undone.

Weights become what the quantized model calculates with, (q - zero point) * scale, as float32 initializers. Pairs around
activations are dropped: what the model loses by rounding is all that changes. Quantizers leave out a Relu, or a Clip to
0..6, where QuantizeLinear cuts off as much; it is put back. Other bounds of a range follow from calibration images and
go.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from n2n_edge.errors import InputError
from n2n_edge.foreign import foreign_file, printable
from n2n_edge.graph.load import load_model
from n2n_edge.graph.op import counted_op
from n2n_edge.graph.pairs import only_moves
from n2n_edge.graph.precision import quantized_range
from n2n_edge.quantize.dynamic_ops import without_dynamic
from n2n_edge.quantize.integer_ops import as_pairs, constant_of, new_constant

__all__ = ["dequantize"]

_Array = NDArray[np.generic]
_Params = tuple[bytes, bytes, str]
"""Scale, zero point and type of a quantized value."""

_MOVING = ("layout", "slicing", "free")
_NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Softplus"})
_STAYS_SO = frozenset({"AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool", "ReduceMean", "ReduceMax"})
_RELU6 = 6.0


def dequantize(model: Path | str | ir.Model) -> ir.Model:
    """Return the float model that `model`, an ONNX file or a loaded one, was quantized from, but for rounding: a copy.

    >>> float_model = n2n_edge.dequantize(quantized_model)
    >>> n2n_edge.Teacher(float_model).layers[0].op_type
    'Conv'

    Pairs (QDQ), operators on integers (QOperator) and ONNX Runtime's dynamic quantization are undone. Inputs of bytes
    stay bytes, outputs that were integers become the floats that these stand for.

    Raises:
        InputError: it isn't quantized, or a pair can't be undone exactly: another way of finding scales at run time, a
            DequantizeLinear with another scale than its QuantizeLinear, arithmetic on integers.
    """
    where = "the model" if isinstance(model, ir.Model) else str(model)
    loaded = model.clone() if isinstance(model, ir.Model) else load_model(model)
    with foreign_file(where):
        return _dequantized(loaded)


def _dequantized(model: ir.Model) -> ir.Model:
    if model.functions:
        common.InlinePass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveInitializersFromInputsPass()(model)
    common.RemoveUnusedNodesPass()(model)
    if not any(counted_op(node.op_type, node.domain).quantized for node in model.graph):
        raise InputError("the model isn't quantized: it has nothing to undo")
    as_pairs(model)
    without_dynamic(model)
    common.RemoveUnusedNodesPass()(model)
    _fold_weights(model)
    _drop_pairs(model, *_carried(model))
    left = sorted({node.op_type for node in model.graph if counted_op(node.op_type, node.domain).quantized})
    if left:
        raise InputError(f"the quantization can't be undone exactly: nothing here undoes {', '.join(left)}")
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    return model


def _fold_weights(model: ir.Model) -> None:
    """Put floats in place of constants that are dequantized, be they quantized by the graph itself."""
    known: dict[ir.Value, _Array] = {}
    for node in list(model.graph):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.inputs[0] is None:
            continue
        source = node.inputs[0]
        held = known.get(source) if source in known else constant_of(node, 0)
        if held is None:
            continue
        scale, zero = _scale(node)
        scale, zero = (_spread(array, held.shape, node) for array in (scale, zero))
        if node.op_type == "QuantizeLinear":
            low, high = _limits(node)
            steps = np.rint(held.astype(np.float32) / scale.astype(np.float32)) + zero.astype(np.float32)
            known[node.outputs[0]] = np.clip(steps, low, high)
            continue
        floats = (held.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)
        _put(model, node, np.asarray(floats, np.float32 if scale.dtype != np.float16 else np.float16))


def _put(model: ir.Model, node: ir.Node, floats: _Array) -> None:
    """Put an initializer in place of what a DequantizeLinear gives; it takes the quantized one's name where it can."""
    source, output = node.inputs[0], node.outputs[0]
    while source is not None and (producer := source.producer()) is not None:
        source = producer.inputs[0]
    node.replace_input_with(0, None)
    name = str(output.name)
    if source is not None:
        name = str(source.name).removesuffix("_quantized")
        if not source.uses() and not source.is_graph_output():
            del model.graph.initializers[str(source.name)]
    value = new_constant(model.graph, name, floats)
    ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)


def _carried(model: ir.Model) -> tuple[set[ir.Value], set[ir.Node]]:
    """Return the quantized values of the graph, and what dequantizes them by what they were quantized by."""
    carried: dict[ir.Value, _Params] = {}
    ends: set[ir.Node] = set()
    for node in model.graph:
        given = [carried[value] for value in node.inputs if value is not None and value in carried]
        if node.op_type == "QuantizeLinear":
            carried[node.outputs[0]] = _params(node)
        elif node.op_type == "DequantizeLinear":
            if given and given[0] != _params(node):
                raise InputError(
                    f"the quantization can't be undone exactly: '{printable(str(node.inputs[0].name))}' "  # type: ignore[union-attr]
                    "is dequantized by another scale or zero point than it was quantized by"
                )
            if given:
                ends.add(node)
        elif given:
            if not only_moves(node) or len(set(given)) > 1:
                raise InputError(
                    f"the quantization can't be undone exactly: {node.op_type} "
                    f"'{printable(str(node.name or node.outputs[0].name))}' calculates with integers"
                )
            carried.update(dict.fromkeys(node.outputs, given[0]))
    return set(carried), ends


def _drop_pairs(model: ir.Model, carried: set[ir.Value], ends: set[ir.Node]) -> None:
    not_negative: set[ir.Value] = set()
    for node in list(model.graph):
        source, output = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type == "QuantizeLinear" and source is not None:
            kept = source if source in not_negative or source.is_graph_input() else _cut_off(node, source)
            if kept is not source or source in not_negative:
                not_negative.add(kept)
            _pass_on(model, node, kept)
        elif node.op_type == "DequantizeLinear" and source is not None:
            _pass_on(model, node, source if node in ends else _scaled(model, node, source))
        else:
            if output in carried:
                for value in node.outputs:
                    value.dtype = ir.DataType.FLOAT
            if _gives_not_negative(node, not_negative):
                not_negative.update(node.outputs)


def _cut_off(node: ir.Node, source: ir.Value) -> ir.Value:
    """Return `source`, behind the Relu or Clip that quantizing did by the way."""
    through = quantized_range(node)
    if through is None or through[0] != 0.0:
        return source
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    if abs(through[1] - _RELU6) > through[1] / 255:
        activation = ir.Node("", "Relu", [source], name=f"{node.name or node.outputs[0].name}_relu")
    else:
        limits = [
            new_constant(graph, f"{node.outputs[0].name}_{end}", np.array(limit, np.float32))
            for end, limit in (("min", 0.0), ("max", _RELU6))
        ]
        activation = ir.Node("", "Clip", [source, *limits], name=f"{node.name or node.outputs[0].name}_relu6")
    graph.insert_before(node, activation)
    result = activation.outputs[0]
    result.name, result.dtype, result.shape = f"{node.outputs[0].name}_cut_off", ir.DataType.FLOAT, source.shape
    return result


def _scaled(model: ir.Model, node: ir.Node, source: ir.Value) -> ir.Value:
    """Return what a DequantizeLinear gives of integers that nothing here quantized, such as bytes of an image."""
    scale, zero = _scale(node)
    if scale.size > 1:
        raise InputError(
            f"the quantization can't be undone exactly: '{printable(str(source.name))}' has a scale for each channel"
        )
    value = source
    for op, operand in (("Cast", None), ("Sub", zero), ("Mul", scale)):
        if op == "Sub" and not zero.any():
            continue
        stem = f"{node.outputs[0].name}_{op.lower()}"
        if operand is None:
            step = ir.Node("", op, [value], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], name=stem)
        else:
            constant = new_constant(model.graph, f"{stem}_by", np.asarray(operand.reshape(()), np.float32))
            step = ir.Node("", op, [value, constant], name=stem)
        model.graph.insert_before(node, step)
        value = step.outputs[0]
        value.name, value.dtype, value.shape = f"{stem}_output", ir.DataType.FLOAT, source.shape
    return value


def _pass_on(model: ir.Model, node: ir.Node, kept: ir.Value) -> None:
    """Let everybody who read what a node gives read `kept`, and remove the node; outputs keep their names."""
    output = node.outputs[0]
    if output.is_graph_output():
        if kept.is_graph_input() or kept.is_graph_output() or kept.is_initializer():
            same = ir.Node("", "Identity", [kept])
            model.graph.insert_before(node, same)
            kept = same.outputs[0]
        kept.shape = kept.shape or output.shape
        name, output.name = output.name, None
        kept.name = name
        kept.dtype = ir.DataType.FLOAT
    ir.convenience.replace_all_uses_with(output, kept, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)


def _gives_not_negative(node: ir.Node, not_negative: set[ir.Value]) -> bool:
    row = counted_op(node.op_type, node.domain)
    if node.op_type in _NOT_NEGATIVE:
        return True
    if node.op_type == "Clip":
        least = constant_of(node, 1)
        return (0.0 if least is None else float(least.reshape(-1)[0])) >= 0 and (
            least is not None or node.attributes.get_float("min", -1.0) >= 0
        )
    if row.join in ("sum", "product", "concat"):
        return all(value is None or value in not_negative for value in node.inputs)
    if node.op_type == "Pad":
        filling = constant_of(node, 2)
        if node.attributes.get_float("value", 0.0) < 0 or (filling is not None and float(filling.reshape(-1)[0]) < 0):
            return False
    moves = row.kernel in _MOVING and node.op_type != "Resize"
    return (moves or node.op_type in _STAYS_SO) and bool(node.inputs) and node.inputs[0] in not_negative


def _scale(node: ir.Node) -> tuple[_Array, _Array]:
    scale, zero = constant_of(node, 1), constant_of(node, 2)
    has_zero = len(node.inputs) > 2 and node.inputs[2] is not None and bool(node.inputs[2].name)
    if scale is None or (has_zero and zero is None):
        raise InputError(
            f"the quantization can't be undone exactly: the scale of {node.op_type} "
            f"'{printable(str(node.name or node.outputs[0].name))}' is found at run time"
        )
    return scale, np.zeros(scale.shape, np.int32) if zero is None else zero


def _params(node: ir.Node) -> _Params:
    scale, zero = _scale(node)
    told = "uint8" if len(node.inputs) < 3 else str(zero.dtype)
    if node.op_type == "DequantizeLinear" and len(node.inputs) < 3:
        told = "uint8" if not zero.any() else told
    return scale.astype(np.float32).tobytes(), zero.astype(np.int64).tobytes(), told


def _limits(node: ir.Node) -> tuple[int, int]:
    """Return the least and the most that a QuantizeLinear gives."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    kind = ir.DataType.UINT8 if tensor is None else tensor.dtype
    bits = {ir.DataType.INT4: 4, ir.DataType.UINT4: 4}.get(kind, 8 * int(kind.itemsize))
    return (0, 2**bits - 1) if kind.name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _spread(array: _Array, shape: tuple[int, ...], node: ir.Node) -> _Array:
    """Return scales or zero points for every element of `shape`: one for all, for a channel or for a block."""
    if array.size == 1:
        return np.broadcast_to(array.reshape(()), shape)
    axis = node.attributes.get_int("axis", 1)
    block = node.attributes.get_int("block_size", 0)
    if axis is None or not -len(shape) <= axis < len(shape):
        raise InputError(f"node '{node.name}': its axis is none of the {len(shape)} of what it scales; export it again")
    if block:
        return np.repeat(array, block, axis)[tuple(slice(size) for size in shape)]
    sizes = [1] * len(shape)
    sizes[axis] = array.size
    return np.broadcast_to(array.reshape(sizes), shape)
