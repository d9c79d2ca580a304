"""Biases of quantized layers corrected by what rounding shifts their outputs on average.

Rounded weights, and activations that are cut off, shift the mean of a channel; a shift of all positions alike is a
bias, which costs nothing to undo. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction" (ICCV 2019), section 4.2, measured on images as in its appendix D: layers are corrected in the graph's
order, so that each is measured with what the corrected ones before it give.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.op import op_of
from n2n_edge.graph.shape_run import Array, run_graph_each
from n2n_edge.graph.shapes import is_constant
from n2n_edge.quantize.integer_ops import constant_of, new_constant
from n2n_edge.quantize.scaling import Floats
from n2n_edge.quantize.stages import Stages

__all__ = ["correct_biases"]

_BIASED = ("Conv", "ConvTranspose", "Gemm")
_MATRIX = 2


def correct_biases(quantized: ir.Model, reference: ir.Model, batches: Sequence[Mapping[str, Array]]) -> ir.Model:
    """Return a copy of `quantized` whose layers give, on average over images, what those of `reference` give.

    `quantized` is in training form (see `with_qdq`): pairs around weights and activations, biases in float. `reference`
    is the float model that it was made from, with the same names of nodes. `batches` are inputs by name,
    ``(N, C, H, W)`` each; the values between two layers are kept for all of them.

    Raises:
        InputError: ONNX Runtime can't run a model on a batch.

    >>> corrected = correct_biases(with_qdq(model, ranges, plan), model, [{"input": images}])
    """
    result = quantized.clone()
    twins = {str(node.name): node for node in reference.graph if node.name}
    layers = [(index, node) for index, node in enumerate(result.graph) if _is_correctable(node, twins)]
    wanted = {str(twins[str(node.name)].outputs[0].name) for _, node in layers}
    expected = _means(run_graph_each(reference, batches, wanted))
    stages = Stages(result, batches)
    for index, node in layers:
        output, twin = str(node.outputs[0].name), str(twins[str(node.name)].outputs[0].name)
        stages.advance(index + 1)
        shift = expected[twin] - _means({output: batch[output]} for batch in stages.live)[output]
        if not np.isfinite(shift).all():
            continue
        _add_to_bias(result, node, shift)
        for batch in stages.live:
            array = batch[output]
            batch[output] = array + shift.astype(array.dtype).reshape(1, -1, *(1,) * (array.ndim - 2))
    return result


def _is_correctable(node: ir.Node, twins: Mapping[str, ir.Node]) -> bool:
    """Tell whether a layer is quantized and has, or may be given, a bias of its own."""
    twin = twins.get(str(node.name))
    if twin is None or node.op_type not in _BIASED or op_of(node).weight is None:
        return False
    if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return False
    bias = node.inputs[2] if len(node.inputs) > _MATRIX else None
    if bias is not None and not (is_constant(bias) and len(bias.uses()) == 1):
        return False
    producers = [value.producer() for value in node.inputs[:2] if value is not None]
    return any(pair is not None and pair.op_type == "DequantizeLinear" for pair in producers)


def _means(batches: Iterable[Mapping[str, Array]]) -> dict[str, Floats]:
    """Return the mean of every channel (axis 1) of values over all images and positions."""
    total: dict[str, Floats] = {}
    count: dict[str, int] = {}
    for seen in batches:
        for name, array in seen.items():
            channels = np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
            total[name] = total.get(name, 0.0) + channels.sum(axis=1, dtype=np.float64)
            count[name] = count.get(name, 0) + channels.shape[1]
    return {name: total[name] / count[name] for name in total}


def _add_to_bias(model: ir.Model, node: ir.Node, shift: Floats) -> None:
    old = constant_of(node, 2)
    if old is None:
        node.resize_inputs(3)
        bias = new_constant(model.graph, f"{node.outputs[0].name}.bias", shift.astype(np.float32))
        node.replace_input_with(2, bias)
        return
    value = node.inputs[2]
    assert value is not None
    value.const_value = ir.Tensor((old.astype(np.float64) + shift).astype(old.dtype), name=value.name)
    value.shape = value.const_value.shape
