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

from n2n_edge.graph.shape_run import Array
from n2n_edge.graph.shapes import is_constant
from n2n_edge.quantize.integer_ops import constant_of, new_constant
from n2n_edge.quantize.scaling import Floats
from n2n_edge.quantize.stages import Stages, node_reading, pair_of, rounded_constant

__all__ = ["correct_biases"]

_BIASED = ("Conv", "ConvTranspose", "Gemm")
_BIAS = 2


def correct_biases(quantized: ir.Model, reference: ir.Model, batches: Iterable[Mapping[str, Array]]) -> ir.Model:
    """Return a copy of `quantized` whose biases make up for the rounding of weights.

    `quantized` is in training form (see `with_qdq`): pairs around weights and activations, biases in float. `reference`
    is the float model that it was made from, with the same names of nodes. `batches` are inputs by name,
    ``(N, C, H, W)`` each, of one size of image; the values between two layers are kept for all of them.

    Raises:
        InputError: ONNX Runtime can't run the model on a batch.

    >>> corrected = correct_biases(with_qdq(model, ranges, plan), model, [{"input": images}])
    """
    result = quantized.clone()
    twins = {str(node.name): node for node in result.graph if node.name}
    stages = Stages(reference, batches)
    if not stages.live:
        return result
    for index, node in enumerate(stages.nodes):
        twin = twins.get(str(node.name))
        change = None if twin is None or not _is_correctable(twin) else _change_of_weight(node, twin)
        if twin is None or change is None:
            continue
        stages.advance(index)
        shift = _mean_output(stages, node, change)
        if np.isfinite(shift).all():
            _add_to_bias(result, twin, -shift)
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


def _mean_output(stages: Stages, node: ir.Node, weight: Array) -> Floats:
    """Return the mean of each channel that a layer would give with this weight and no bias."""
    source, name = str(node.inputs[0].name if node.inputs[0] else ""), f"{node.outputs[0].name}.change"
    inputs = [node.inputs[0], ir.Value(name=name)]
    images = sum(len(batch[source]) for batch in stages.live)
    mean = sum(batch[source].sum(axis=0, keepdims=True, dtype=np.float64) for batch in stages.live) / images
    array = stages.run(
        [node_reading(node, inputs)],
        [str(node.outputs[0].name)],
        extra={name: weight},
        given=[{source: mean.astype(weight.dtype)}],
    )[0][str(node.outputs[0].name)]
    return np.asarray(array.mean(axis=tuple(axis for axis in range(array.ndim) if axis != 1), dtype=np.float64))


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
