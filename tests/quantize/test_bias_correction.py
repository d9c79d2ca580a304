"""Corrected biases bring the means of quantized layers to those of the float network."""

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.graph.shape_run import run_graph
from n2n_edge.quantize.bias_correction import correct_biases
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import folded, quantized_nodes
from tests.graph.running import Arrays, inputs_of, run
from tests.quantize.pairs import network, paired


def _mean_errors(quantized: ir.Model, reference: ir.Model, images: Arrays) -> dict[str, float]:
    """By layer: how far the mean of its worst channel is off, in units of the channels' deviation."""
    twins = {node.name: node for node in quantized.graph}
    found = {}
    for node in reference.graph:
        if node.op_type in ("Conv", "Gemm") and node.name in twins:
            name, other = str(node.outputs[0].name), str(twins[node.name].outputs[0].name)
            want, got = run_graph(reference, images, {name})[name], run_graph(quantized, images, {other})[other]
            axes = tuple(axis for axis in range(want.ndim) if axis != 1)
            found[str(node.name)] = float(np.abs((got - want).mean(axis=axes)).max() / want.std())
    return found


@pytest.mark.parametrize("blocks", [("plain", "residual"), ("separable", "inverted"), ("grouped", "gated")])
def test_every_layer_has_the_means_of_the_float_network(blocks: tuple[str, ...]) -> None:
    model = network(*blocks, seed=3)
    images = inputs_of(model, 16)
    quantized = paired(model, images, cut=0.6)
    before = _mean_errors(quantized, model, images)
    after = _mean_errors(correct_biases(quantized, model, [images]), model, images)
    assert before.keys() == after.keys()
    assert max(before.values()) > 0.03
    assert max(after.values()) < 1e-3


def test_batches_are_one_set_of_images() -> None:
    model = network("residual")
    images = inputs_of(model, 12)
    quantized = paired(model, images, cut=0.7)
    parts = [{name: array[start : start + 4] for name, array in images.items()} for start in (0, 4, 8)]
    whole = run(correct_biases(quantized, model, [images]), images, optimised=False)
    split = run(correct_biases(quantized, model, parts), images, optimised=False)
    assert np.abs(whole[0] - split[0]).max() < 1e-3


def test_layers_without_a_bias_get_one_and_float_ones_stay() -> None:
    model = network("plain", "plain")
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    convolutions[1].resize_inputs(2)
    images = inputs_of(model, 8)
    plan = QuantizationPlan(float_nodes=frozenset({str(convolutions[0].name)}))
    quantized = paired(model, images, plan, cut=0.5)
    corrected = correct_biases(quantized, model, [images])
    nodes = {node.name: node for node in corrected.graph}
    assert len(nodes[convolutions[1].name].inputs) == 3
    kept, old = nodes[convolutions[0].name].inputs[2], convolutions[0].inputs[2]
    assert kept is not None
    assert old is not None
    assert kept.const_value is not None
    assert old.const_value is not None
    assert np.array_equal(kept.const_value.numpy(), old.const_value.numpy())
    assert convolutions[1].name in quantized_nodes(model, plan)


def test_what_is_folded_afterwards_has_the_correction() -> None:
    model = network("separable", "residual", seed=5)
    images = inputs_of(model, 32)
    quantized = paired(model, images, cut=0.6)
    wanted = run(model, images)[0]
    plain, corrected = (
        run(folded(each), images)[0] for each in (quantized, correct_biases(quantized, model, [images]))
    )
    assert np.square((corrected - wanted).mean(axis=0)).sum() < 0.1 * np.square((plain - wanted).mean(axis=0)).sum()
