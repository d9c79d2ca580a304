"""Cross-layer equalisation leaves what a graph computes as it is, and makes channels' ranges more even."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.normalise import normalise
from n2n_edge.quantize.equalise import equalise
from n2n_edge.quantize.noise import channel_statistics
from n2n_edge.quantize.scaling import multiply, scalable
from tests.graph.running import assert_same_outputs, inputs_of, run
from tests.strategies import BLOCKS, GRAPH_SETTINGS, Recipe, build_cnn, cnn_models


def _network(*blocks: str, activation: str = "Relu", seed: int = 0) -> ir.Model:
    recipe = Recipe(
        opset=17, seed=seed, batch_norm=True, activation=activation, channels=3, size=8, stem=6,
        blocks=tuple((block, 1, 6) for block in blocks), head="pooled", classes=4, free_batch=True, batch=1,
    )  # fmt: skip
    return normalise(ir.from_proto(build_cnn(recipe)))


def _unevenness(model: ir.Model, images: dict[str, np.ndarray]) -> float:
    """Mean over maps of the deviation of log ranges over channels."""
    axes = {
        str(node.outputs[0].name): 1
        for node in model.graph
        if node.op_type == "Relu" and len(node.outputs[0].shape or ()) == 4
    }
    ranges = [each.ranges for each in channel_statistics(model, [images], axes).values()]
    return float(np.mean([np.log(each[each > 0]).std() for each in ranges]))


@GRAPH_SETTINGS
@given(cnn_models())
def test_the_function_stays_whatever_the_graph(source: ir.Model) -> None:
    model = normalise(source)
    images = inputs_of(model, 3)
    expected = run(model, images, optimised=False)
    assert_same_outputs(expected, run(equalise(model), images, optimised=False), relative=1e-4)
    assert_same_outputs(expected, run(equalise(model, [images]), images, optimised=False), relative=1e-4)


@GRAPH_SETTINGS
@given(cnn_models())
def test_any_factors_leave_the_function_as_it_is(source: ir.Model) -> None:
    model = normalise(source)
    parts = scalable(model)
    images = inputs_of(model, 2)
    expected = run(model, images, optimised=False)
    multiply(model, parts, 2.0 ** np.random.default_rng(0).integers(-4, 5, len(parts.free)).astype(np.float64))
    assert_same_outputs(expected, run(model, images, optimised=False), relative=1e-4)


@pytest.mark.parametrize("block", [*BLOCKS])
def test_channels_can_be_multiplied_in_every_block_of_relu_networks(block: str) -> None:
    parts = scalable(_network("plain", block, "plain"))
    assert parts.free.sum() >= 6


@pytest.mark.parametrize("block", ["plain", "residual", "separable", "inverted", "grouped", "dense", "projection"])
def test_ranges_become_more_even(block: str) -> None:
    model = fold_batchnorm(_network(block, block))
    images = inputs_of(model, 8)
    parts = scalable(model)
    multiply(model, parts, np.exp(np.random.default_rng(1).normal(0, 1.5, len(parts.free))))
    assert _unevenness(equalise(model, [images]), images) < 0.7 * _unevenness(model, images)


@pytest.mark.parametrize("activation", ["Clip", "HardSwish", "Tanh"])
def test_nothing_passes_what_is_not_homogeneous(activation: str) -> None:
    model = _network("plain", "plain", activation=activation)
    given = {str(node.inputs[0].name) for node in model.graph if node.op_type == activation and node.inputs[0]}
    parts = scalable(model)
    assert given
    assert not any(parts.free[parts.values[name]].any() for name in given)


def test_without_images_rows_and_columns_of_weights_meet() -> None:
    model = fold_batchnorm(_network("plain", "plain", "plain"))
    even = equalise(model)
    weights = [node.inputs[1] for node in even.graph if node.op_type == "Conv"]
    first, second = (value.const_value.numpy() for value in weights[1:3] if value and value.const_value)
    given, read = np.abs(first).max(axis=(1, 2, 3)), np.abs(second).max(axis=(0, 2, 3))
    ratio = np.log(given / read)
    assert np.ptp(ratio) < 0.1
