"""Biases of quantized layers corrected by what the rounding of their weights shifts their outputs on average.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), section 4.2: with
rounded weights w' a layer's outputs are off by E[(w' - w) * x] on average, a shift of all positions alike, which a bias
undoes at no cost. A layer is linear, so the expectation is that of its input maps, measured on images, through w' - w.

What activations lose at the ends of their ranges shifts means, too, but differs from image to image: undone on average
(the paper's appendix D), it made networks worse wherever ranges cut anything off. So it isn't.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.shape_run import Array, run_graph_each
from n2n_edge.graph.shapes import is_constant
from n2n_edge.quantize.integer_ops import constant_of, new_constant
from n2n_edge.quantize.scaling import Floats
from n2n_edge.quantize.stages import Stages, pair_of, rounded_constant

__all__ = ["bias_shifts", "correct_biases", "with_biases"]

_BIASED = ("Conv", "ConvTranspose", "Gemm")
_BIAS = 2


def correct_biases(quantized: ir.Model, reference: ir.Model, batches: Iterable[Mapping[str, Array]]) -> ir.Model:
    """Return a copy of `quantized` whose biases make up for the rounding of weights.

    `quantized` is in training form (see `with_qdq`): pairs around weights and activations, biases in float. `reference`
    is the float model that it was made from, with the same names of nodes. `batches` are inputs by name,
    ``(N, C, H, W)`` each, of one size of image.

    Raises:
        InputError: ONNX Runtime can't run the model on a batch.

    >>> corrected = correct_biases(with_qdq(model, ranges, plan), model, [{"input": images}])
    """
    return with_biases(quantized, bias_shifts(quantized, reference, batches))


def bias_shifts(
    quantized: ir.Model, reference: ir.Model, batches: Iterable[Mapping[str, Array]]
) -> Mapping[str, Floats]:
    """Return by how much the rounding of its weights shifts each output channel of a layer, by the layer's node.

    The shift of one layer doesn't depend on what else is quantized. Arguments are as for `correct_biases`.

    Raises:
        InputError: ONNX Runtime can't run the model on a batch.
    """
    twins = {str(node.name): node for node in quantized.graph if node.name}
    changes: dict[str, Array] = {}
    layers: list[ir.Node] = []
    for node in reference.graph:
        twin = twins.get(str(node.name))
        change = None if twin is None or not _is_correctable(twin) else _change_of_weight(node, twin)
        if change is not None:
            changes[_change_name(node)] = change
            if node.op_type == "Gemm":
                changes[_nought_name(node)] = np.zeros(1, change.dtype)
            layers.append(node)
    means = _means(reference, batches, {_source(node) for node in layers}) if layers else {}
    if not means:
        return {}
    nodes = [_reading_change(node) for node in layers]
    shifted = Stages(reference, [means]).run(nodes, [str(node.outputs[0].name) for node in nodes], extra=changes)[0]
    shifts = {str(node.name): _by_channel(shifted[_shift_name(node)]) for node in layers}
    return {name: shift for name, shift in shifts.items() if np.isfinite(shift).all()}


def with_biases(quantized: ir.Model, shifts: Mapping[str, Floats]) -> ir.Model:
    """Return a copy of a network in training form whose biases make up for shifts of what its layers give.

    A layer whose weight stays float keeps its bias.
    """
    result = quantized.clone()
    for node in result.graph:
        shift = shifts.get(str(node.name))
        if shift is not None and _is_correctable(node) and pair_of(node.inputs[1]) is not None:
            _add_to_bias(result, node, -shift)
    return result


def _is_correctable(node: ir.Node) -> bool:
    """Tell whether a layer has, or may be given, a bias of its own."""
    if node.op_type not in _BIASED or any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return False
    bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
    return bias is None or (is_constant(bias) and len(bias.uses()) == 1)


def _change_of_weight(node: ir.Node, twin: ir.Node) -> Array | None:
    """Return by how much rounding changes a layer's weight; None where that isn't rounded."""
    weight, rounded = constant_of(node, 1), rounded_constant(pair_of(twin.inputs[1]))
    if weight is None or rounded is None or is_constant(node.inputs[0] or ir.Value()):
        return None
    return (rounded.astype(np.float64) - weight.astype(np.float64)).astype(weight.dtype)


def _means(model: ir.Model, batches: Iterable[Mapping[str, Array]], names: set[str]) -> dict[str, Array]:
    """Return the mean over images of values, ``(1, ...)`` each; nothing where there are no images."""
    sums: dict[str, Floats] = {}
    kinds: dict[str, np.dtype[np.generic]] = {}
    images = 0
    kept = list(batches)
    given = {str(value.name) for value in model.graph.inputs}
    for batch, seen in zip(kept, run_graph_each(model, kept, names - given), strict=True):
        images += len(next(iter(batch.values())))
        for name, array in {**seen, **{name: batch[name] for name in names & batch.keys()}}.items():
            sums[name] = sums.get(name, 0.0) + array.sum(axis=0, keepdims=True, dtype=np.float64)
            kinds[name] = array.dtype
    return {name: (total / images).astype(kinds[name]) for name, total in sums.items()}


def _source(node: ir.Node) -> str:
    return str(node.inputs[0].name if node.inputs[0] else "")


def _change_name(node: ir.Node) -> str:
    return f"{node.outputs[0].name}.change"


def _shift_name(node: ir.Node) -> str:
    return f"{node.outputs[0].name}.shift"


def _nought_name(node: ir.Node) -> str:
    return f"{node.outputs[0].name}.nought"


def _reading_change(node: ir.Node) -> ir.Node:
    """Return a layer, outside any graph, with the change of its weight as its weight, and nothing added.

    Before opset 11 a Gemm has to add something.
    """
    inputs = [ir.Value(name=_source(node)), ir.Value(name=_change_name(node))]
    inputs += [ir.Value(name=_nought_name(node))] * (node.op_type == "Gemm")
    outputs = [ir.Value(name=_shift_name(node))]
    return ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=outputs, name=node.name)


def _by_channel(array: Array) -> Floats:
    axes = tuple(axis for axis in range(array.ndim) if axis != 1)
    return np.asarray(array.mean(axis=axes, dtype=np.float64))


def _add_to_bias(model: ir.Model, node: ir.Node, shift: Floats) -> None:
    old = constant_of(node, _BIAS)
    if old is None:
        node.resize_inputs(_BIAS + 1)
        node.replace_input_with(
            _BIAS, new_constant(model.graph, f"{node.outputs[0].name}.bias", shift.astype(np.float32))
        )
        return
    value = node.inputs[_BIAS]
    assert value is not None
    value.const_value = ir.Tensor((old.astype(np.float64) + shift).astype(old.dtype), name=value.name)
    value.shape = value.const_value.shape
