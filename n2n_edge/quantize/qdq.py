"""QDQ form of a float network: pairs of QuantizeLinear and DequantizeLinear for training, folded for shipping.

ONNX Runtime's own quantizer puts in the pairs. Only operators that it has integer kernels for get any (`Op.integer`),
and none behind the last weighted layers: what is calculated there, such as decoding of boxes, is little and fragile.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from n2n_edge.graph.file_version import in_version
from n2n_edge.graph.load import GENERATED_NAME, drop_unused_initializers, to_proto
from n2n_edge.graph.op import STANDARD_DOMAINS, Op, counted_op
from n2n_edge.graph.shapes import is_constant
from n2n_edge.quantize.integer_ops import constant_of
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.ranges import Range

__all__ = [
    "LEAST_OPSET",
    "activations",
    "folded",
    "output_nodes",
    "quantized_nodes",
    "structural",
    "weighted_nodes",
    "with_qdq",
]

LEAST_OPSET = 13
"""The first opset with a scale per channel."""

_WEIGHTED = ("conv", "conv_transpose", "gemm", "matmul")
_REMOVABLE = ("Relu", "Clip")
"""Activations that QuantizeLinear does by the way."""
_FLOAT_OUTPUT = ("gemm", "matmul")
"""Kernels on integers that can give floats."""
_NOT_BELOW_NOUGHT = ("Relu", "Sigmoid", "HardSigmoid", "Softmax")
_STEPS = 255
_SUFFIX = "_quantized"


def with_qdq(model: ir.Model, ranges: Mapping[str, Range], plan: QuantizationPlan) -> ir.Model:
    """Return `model` in training form: float weights and activations behind pairs, biases in float.

    `ranges` are of values by name; a node that reads or gives an activation without one stays float. `model` is a
    normalised float network with its norms folded. Its opset is raised to `LEAST_OPSET` where it is older.

    Raises:
        InputError: the network can't be written in that opset.
    """
    return _paired(model, ranges, plan)


def structural(model: ir.Model, plan: QuantizationPlan) -> ir.Model:
    """Return the form that would ship, its ranges unknown: for size, multiply-accumulates, memory and latency.

    Equal constants are held once, so every value has a scale of its own, and a zero point of its own unless it is known
    not to fall below nought: the file that ships is hardly larger.
    """
    above = {str(node.outputs[0].name) for node in model.graph if node.op_type in _NOT_BELOW_NOUGHT}
    various: dict[str, Range] = {}
    for index, name in enumerate(activations(model, plan)):
        step = (1.0 + index / 256) / _STEPS
        below = 0 if name in above else 1 + index % (_STEPS - 1)
        various[name] = (-below * step, (_STEPS - below) * step)
    return _folded(_paired(model, various, plan))


def folded(model: ir.Model) -> ir.Model:
    """Return a model in training form as it ships: weights as integers with their scales, biases as int32.

    A bias has the product of the scales of input and weight, which is what kernels on integers add it with.
    """
    return _folded(model.clone())


def weighted_nodes(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the nodes with a constant weight that can be calculated in int8, in the graph's order."""
    return tuple(str(node.name) for node in model.graph if _is_weighted(node) and _row(node).integer)


def output_nodes(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the weighted nodes behind which no other comes on some way to an output: heads' last ones."""
    found: dict[str, None] = {}
    waiting = [value.producer() for value in model.graph.outputs]
    seen: set[ir.Node] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if _is_weighted(node):
            found[str(node.name)] = None
        else:
            waiting += [value.producer() for value in node.inputs if value is not None]
    return tuple(str(node.name) for node in model.graph if node.name in found)


def quantized_nodes(model: ir.Model, plan: QuantizationPlan) -> tuple[str, ...]:
    """Return the names of the nodes that pairs go around by a plan, where ranges of their values are given."""
    tail = _tail(model)
    return tuple(
        str(node.name)
        for node in model.graph
        if node.domain in STANDARD_DOMAINS
        and node not in tail
        and node.name not in plan.float_nodes
        and (_row(node).integer or node.op_type in _REMOVABLE)
    )


def activations(model: ir.Model, plan: QuantizationPlan) -> tuple[str, ...]:
    """Return the names of the values whose ranges `with_qdq` asks for, in the graph's order."""
    chosen = set(quantized_nodes(model, plan))
    values = (value for node in model.graph if node.name in chosen for value in _floats(node))
    return tuple(dict.fromkeys(str(value.name) for value in values))


def _folded(model: ir.Model) -> ir.Model:
    names = {*model.graph.initializers}
    for node in list(model.graph):
        if node.op_type == "QuantizeLinear" and (weight := constant_of(node, 0)) is not None:
            _fold_weight(model, node, weight, names)
    for node in list(model.graph):
        if _row(node).kernel in _WEIGHTED and len(node.inputs) > 2:
            _fold_bias(model, node, names)
    _shorten(model, names)
    drop_unused_initializers(model)
    return model


def _paired(model: ir.Model, ranges: Mapping[str, Range], plan: QuantizationPlan) -> ir.Model:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData

    from n2n_edge.quantize.fast_quantizer import FastQuantizer

    model = _raised(model)
    chosen = set(quantized_nodes(model, plan))
    nodes = [node for node in model.graph if node.name in chosen]
    nodes = [node for node in nodes if all(value.name in ranges for value in _floats(node))]
    proto = to_proto(model)
    if not nodes:
        return _typed(ir.from_proto(proto), model)
    for written, node in zip(proto.graph.node, model.graph, strict=True):
        written.name = str(node.name)
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.dtype is not None and not value.is_graph_output():
                proto.graph.value_info.append(onnx.helper.make_tensor_value_info(value.name, int(value.dtype), None))
    metadata = dict(model.metadata_props)
    onnx.helper.set_model_props(proto, {"onnx.infer": "onnxruntime.quant"})  # its types are complete
    needed = {str(value.name) for node in nodes for value in _floats(node)}
    bounds = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name in needed
        for low, high in [ranges[name]]
    }
    quantizer = FastQuantizer(
        proto,
        per_channel=plan.per_channel,
        reduce_range=plan.weight_bits == 7,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if plan.activations == "int8" else QuantType.QUInt8,
        tensors_range=bounds,
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize={node.op_type for node in nodes},
        extra_options={
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "WeightSymmetric": True,
            "ActivationSymmetric": plan.symmetric,
        },
    )
    with _quiet():
        paired = quantizer.quantize_model()
    del paired.graph.value_info[:]
    paired.producer_name, paired.producer_version = model.producer_name or "", model.producer_version or ""
    result = _typed(ir.from_proto(paired), model)
    result.graph.sort()
    result.metadata_props.clear()
    result.metadata_props.update(metadata)
    _keep_floats(result, model, {str(node.name) for node in nodes})
    return result


def _raised(model: ir.Model) -> ir.Model:
    """Return `model` itself, or in the first opset that will do, its nodes and values called as before."""
    if model.opset_imports.get("", LEAST_OPSET) >= LEAST_OPSET:
        return model
    named = model.clone()
    for node in named.graph:
        node.meta.pop(GENERATED_NAME, None)
    raised = in_version(named, LEAST_OPSET, None)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(raised)
    for index, node in enumerate(raised.graph):
        node.name = node.name or f"{node.op_type}_raised_{index}"
    return _typed(raised, model)


def _typed(result: ir.Model, like: ir.Model) -> ir.Model:
    """Note, in place, types and shapes of the values that both models have; of pairs those of what they are of."""
    known = {str(value.name): value for node in like.graph for value in node.outputs if value.name}
    known |= {str(value.name): value for value in (*like.graph.inputs, *like.graph.initializers.values())}
    unnamed = {node.name for node in like.graph if GENERATED_NAME in node.meta}
    for node in result.graph:
        if node.name in unnamed:
            node.meta[GENERATED_NAME] = True
        source = known.get(str(node.inputs[0].name)) if node.inputs and node.inputs[0] is not None else None
        for value in node.outputs:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and str(value.name) not in known:
                if source is not None:
                    known[str(value.name)] = source
                    value.shape = source.shape
                    if node.op_type == "DequantizeLinear" and source.dtype is not None:
                        value.dtype = source.dtype
            elif (other := known.get(str(value.name))) is not None:
                value.shape, value.type = other.shape, other.type
    return result


def _keep_floats(result: ir.Model, model: ir.Model, quantized: Collection[str]) -> None:
    """Drop, in place, the pairs behind products whose floats nothing quantized reads: kernels give them as they are."""
    kept = set()
    for node in model.graph:
        value = node.outputs[0]
        gives_floats = node.name in quantized and _row(node).kernel in _FLOAT_OUTPUT
        if gives_floats and not any(use.node.name in quantized for use in value.uses()):
            kept.add(f"{value.name}_DequantizeLinear")
    for node in list(result.graph):
        pair = node.inputs[0].producer() if node.name in kept and node.inputs[0] is not None else None
        if pair is None or pair.inputs[0] is None:
            continue
        source, output = pair.inputs[0], node.outputs[0]
        if output.is_graph_output():
            name, output.name = output.name, f"{output.name}_dropped"
            source.name, source.shape, source.type = name, output.shape, output.type
        ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
        result.graph.remove([node, pair] if len(pair.outputs[0].uses()) == 1 else node, safe=True)


def _fold_weight(model: ir.Model, node: ir.Node, weight: NDArray[np.generic], names: set[str]) -> None:
    scale, zero, source = constant_of(node, 1), constant_of(node, 2), node.inputs[0]
    assert scale is not None
    assert zero is not None
    assert source is not None
    limits = np.iinfo(zero.dtype.name)
    axis = node.attributes.get_int("axis", 1) if scale.size > 1 else 0
    spread = [-1 if place == axis and scale.size > 1 else 1 for place in range(weight.ndim)]
    factors, offsets = (each.astype(np.float32).reshape(spread if each.size > 1 else ()) for each in (scale, zero))
    integers = np.clip(np.rint(weight.astype(np.float32) / factors) + offsets, limits.min, limits.max)
    value = _added(model, f"{source.name}{_SUFFIX}", integers.astype(zero.dtype), names)
    ir.convenience.replace_all_uses_with(node.outputs[0], value)
    model.graph.remove(node, safe=True)


def _fold_bias(model: ir.Model, node: ir.Node, names: set[str]) -> None:
    """Turn the bias of a node between pairs into int32 behind a DequantizeLinear, where kernels on integers take it."""
    bias, scale = constant_of(node, 2), _bias_scale(node)
    source = node.inputs[2]
    if bias is None or scale is None or source is None or scale.size not in (1, bias.size):
        return
    flat = bias.reshape(-1).astype(np.float64)
    limits = np.iinfo(np.int32)
    integers = np.clip(np.rint(flat / scale.astype(np.float64)), limits.min, limits.max).astype(np.int32)
    inputs = [
        _added(model, f"{source.name}{_SUFFIX}", integers, names),
        _added(model, f"{source.name}{_SUFFIX}_scale", scale, names),
    ]
    dequantizer = ir.Node("", "DequantizeLinear", inputs, [ir.AttrInt64("axis", 0)] if scale.size > 1 else [])
    dequantizer.name = f"{inputs[0].name}_DequantizeLinear"
    result = dequantizer.outputs[0]
    result.name = f"{dequantizer.name}_Output"
    result.dtype, result.shape = ir.DataType.FLOAT, ir.Shape([bias.size])
    model.graph.insert_before(node, dequantizer)
    node.replace_input_with(2, result)


def _shorten(model: ir.Model, names: set[str]) -> None:
    """Give pairs short names, in place, and equal scales and zero points one constant: in small files names weigh most.

    Quantized weights keep their name, by which layers are called, and so do all values of the float network.
    """
    names |= {str(value.name) for node in model.graph for value in node.outputs}
    fresh = (name for number in count() if (name := f"q{number}") not in names)
    shared: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    for node in model.graph:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        node.name, node.meta[GENERATED_NAME] = None, True  # copies of the graph name their nodes
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = next(fresh)
        for index in (1, 2):
            array = constant_of(node, index)
            if array is None:
                continue
            key = (array.dtype.name, array.shape, array.tobytes())
            if key not in shared:
                shared[key] = _added(model, next(fresh), array, names)
            node.replace_input_with(index, shared[key])


def _added(model: ir.Model, stem: str, array: NDArray[np.generic], names: set[str]) -> ir.Value:
    """Return a new initializer, called `stem` or, where that is among the names, `stem` and a number."""
    name = next(each for each in chain([stem], (f"{stem}_{n}" for n in count(2))) if each not in names)
    names.add(name)
    shape, kind = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
    value = ir.Value(name=name, shape=shape, type=kind, const_value=ir.Tensor(array, name=name))
    model.graph.register_initializer(value)
    return value


def _bias_scale(node: ir.Node) -> NDArray[np.float32] | None:
    """Return the product of the scales of input and weight; None where one has none, or more is multiplied in."""
    if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return None
    scales = []
    for value in node.inputs[:2]:
        pair = None if value is None else value.producer()
        scale = constant_of(pair, 1) if pair is not None and pair.op_type == "DequantizeLinear" else None
        if scale is None:
            return None
        scales.append(scale.astype(np.float32))
    product = scales[0] * scales[1]
    return product.reshape(-1) if product.size > 1 else product.reshape(())


def _tail(model: ir.Model) -> set[ir.Node]:
    """Return the nodes behind which no weighted one comes, less these and the activations that go with them."""
    before: set[ir.Node] = set()
    waiting = [node for node in model.graph if _is_weighted(node)]
    while waiting:
        node = waiting.pop()
        if node not in before:
            before.add(node)
            waiting += [each for value in node.inputs if value is not None and (each := value.producer()) is not None]
    return {node for node in model.graph if node not in before and not _ends_layer(node)}


def _ends_layer(node: ir.Node) -> bool:
    producer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return node.op_type in _REMOVABLE and producer is not None and _is_weighted(producer)


def _is_weighted(node: ir.Node) -> bool:
    row = _row(node)
    return row.kernel in _WEIGHTED and any(value is not None and is_constant(value) for value in node.inputs[:2])


def _floats(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the float values that a node reads or gives and that aren't constant."""
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.name and not is_constant(value) and value.dtype in (ir.DataType.FLOAT, None):
            yield value


def _row(node: ir.Node) -> Op:
    return counted_op(node.op_type, node.domain)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's quantizer from writing to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
