"""What each layer loses by being quantized alone, and which go back to float."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.normalise import normalise
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import folded, quantized_nodes
from n2n_edge.quantize.sensitivity import (
    LayerSensitivity,
    Sensitivity,
    measure_sensitivity,
    output_error,
    to_float,
)
from tests.graph.running import inputs_of, run
from tests.quantize.pairs import network, paired
from tests.strategies import GRAPH_SETTINGS, cnn_models


def test_a_layer_loses_what_a_network_loses_that_has_it_alone_in_int8() -> None:
    model = network("residual", "separable", seed=1)
    images = inputs_of(model, 8)
    wanted = run(model, images)
    found = measure_sensitivity(model, paired(model, images), [images])
    everything = frozenset(quantized_nodes(model, QuantizationPlan()))
    weighted = {str(node.name): node for node in model.graph if node.op_type == "Conv"}
    checked = 0
    for layer in found.layers:
        source = weighted[layer.nodes[0]].inputs[0] if set(layer.nodes) <= weighted.keys() else None
        if source is None or len(source.uses()) > 1:  # a pair stands in front of all readers
            continue
        own = set(layer.nodes)
        # what the layer gives is rounded by those that read it
        alone = paired(model, images, QuantizationPlan(float_nodes=everything - own))
        node = weighted[layer.nodes[0]]
        twin = next(each for each in alone.graph if each.name == node.name)
        output = twin.outputs[0]
        for use in output.uses():
            if use.node.op_type == "QuantizeLinear":
                ir.convenience.replace_all_uses_with(use.node.outputs[0].uses()[0].node.outputs[0], output)
        expected = output_error(wanted, run(alone, images, optimised=False))
        assert layer.error == pytest.approx(expected, rel=1e-3, abs=1e-9)
        checked += 1
    assert checked >= 4


@pytest.mark.parametrize("form", [lambda model: model, folded])
def test_training_and_shipped_form_say_the_same(form: Callable[[ir.Model], ir.Model]) -> None:
    model = network("residual", "gated", seed=2)
    images = inputs_of(model, 8)
    quantized = paired(model, images)
    expected = measure_sensitivity(model, quantized, [images])
    parts = [{name: array[start : start + 4] for name, array in images.items()} for start in (0, 4)]
    found = measure_sensitivity(model, form(quantized), parts)
    assert [layer.layer for layer in found.layers] == [layer.layer for layer in expected.layers]
    assert found.worst_first[0].layer == expected.worst_first[0].layer


def test_the_layer_that_was_made_worse_comes_first() -> None:
    model = network("plain", "plain", "residual", seed=4)
    images = inputs_of(model, 8)
    node = [node for node in model.graph if node.op_type == "Conv"][2]
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    array[:, 0, 0, 0] *= 300  # one figure sets the scale of each row
    source = images["input"]
    weight.const_value = ir.Tensor(array, name=weight.name)
    found = measure_sensitivity(model, paired(model, {"input": source}), [images])
    assert str(node.name) in found.worst_first[0].nodes


@GRAPH_SETTINGS
@given(cnn_models(max_blocks=3))
def test_every_quantized_weight_belongs_to_a_layer(source: ir.Model) -> None:
    model = fold_batchnorm(normalise(source))
    images = inputs_of(model, 2)
    quantized = paired(model, images)
    found = measure_sensitivity(model, quantized, [images])
    nodes = {node for layer in found.layers for node in layer.nodes}
    own = {str(node.name) for node in model.graph}
    for node in quantized.graph:
        pair = node.inputs[0].producer() if node.op_type in ("Conv", "Gemm") and node.inputs[0] else None
        if pair is not None and pair.op_type == "DequantizeLinear" and node.name in own:
            assert node.name in nodes
    assert all(np.isfinite(layer.error) and layer.error >= 0 for layer in found.layers)


def _sensitivity(*errors: float) -> Sensitivity:
    return Sensitivity(
        tuple(LayerSensitivity(f"l{index}", (f"n{index}",), error) for index, error in enumerate(errors))
    )


@pytest.mark.parametrize("needed", range(9))
def test_the_fewest_layers_that_hold_go_back_to_float(needed: int) -> None:
    sensitivity = _sensitivity(*np.random.default_rng(0).permutation(8).astype(float).tolist())
    asked = []

    def drop(nodes: frozenset[str]) -> float:
        asked.append(nodes)
        return float(max(0, needed - len(nodes)))

    choice = to_float(sensitivity, drop, 0.0)
    worst = sorted(sensitivity.layers, key=lambda layer: -layer.error)[:needed]
    assert choice.met
    assert choice.layers == tuple(layer.layer for layer in worst)
    assert choice.nodes == {layer.nodes[0] for layer in worst}
    assert len(asked) == len(set(asked)) == len(choice.tried) <= 7


def test_a_limit_that_nothing_holds_gives_the_best_that_was_tried() -> None:
    drops = {0: 9.0, 1: 5.0, 2: 4.0, 4: 6.0}
    choice = to_float(_sensitivity(4, 3, 2, 1), lambda nodes: drops[len(nodes)], 1.0)
    assert (choice.met, choice.layers, choice.drop) == (False, ("l0", "l1"), 4.0)
    assert to_float(_sensitivity(4, 3, 2, 1), lambda nodes: drops[len(nodes)], 1.0, most=1).layers == ("l0",)


def test_equal_layers_go_in_the_order_of_the_graph() -> None:
    assert [layer.layer for layer in _sensitivity(1, 2, 2, 1).worst_first] == ["l1", "l2", "l0", "l3"]
