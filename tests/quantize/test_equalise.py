"""Cross-layer equalisation leaves what a graph computes as it is, and makes channels' ranges more even."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.load import load_model
from n2n_edge.graph.normalise import normalise
from n2n_edge.graph.shape_run import example_inputs
from n2n_edge.quantize.equalise import equalise
from n2n_edge.quantize.noise import Reader, channel_statistics, find_readers, least_noise
from n2n_edge.quantize.scaling import multiply, scalable
from n2n_edge.quantize.sensitivity import output_error
from tests.graph.running import assert_same_outputs, inputs_of, run
from tests.quantize.pairs import paired
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


@pytest.mark.parametrize("block", ["plain", "residual", "separable", "inverted"])
def test_an_uneven_network_loses_less(block: str) -> None:
    model = fold_batchnorm(_network(block, block))
    images = inputs_of(model, 16)
    parts = scalable(model)
    multiply(model, parts, np.exp(np.random.default_rng(2).normal(0, 1.5, len(parts.free))))
    wanted = run(model, images)
    before, after = (
        output_error(wanted, run(paired(each, images), images, optimised=False))
        for each in (model, equalise(model, [images]))
    )
    assert after < 0.5 * before


@GRAPH_SETTINGS
@given(cnn_models(max_blocks=3))
def test_the_noise_never_grows(source: ir.Model) -> None:
    model = fold_batchnorm(normalise(source))
    parts = scalable(model)
    readers = find_readers(model, parts, [inputs_of(model, 4)])
    logs = np.log(least_noise(readers, parts.free))
    assert not logs[~parts.free].any()
    assert sum(reader.noise(logs) for reader in readers) <= sum(reader.noise(0 * logs) for reader in readers)


def test_slopes_are_those_of_the_noise() -> None:
    """Where one channel is largest by far, the smooth maximum is the maximum."""
    rng = np.random.default_rng(0)
    logs = rng.normal(0, 1, (2, 3, 2))
    logs[:, :, 1] += 4
    ranges = np.array([1.0, 9.0, 0.5, 0.2])
    reader = Reader(np.array([1, 2, 3, 1]), ranges, np.exp(rng.normal(0, 1, 4)), rng.random(4), logs, 2.0)
    at = rng.normal(0, 0.1, 4)
    summed = np.zeros(4)
    np.add.at(summed, reader.labels, reader.slope(at))
    for label in (1, 2, 3):
        step = np.eye(4)[label] * 1e-6
        assert summed[label] == pytest.approx((reader.noise(at + step) - reader.noise(at - step)) / 2e-6, rel=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "teachers/resnet20_jpeg",
        "exam/pfld",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("models/ultraface_RFB-320", "exam/deimv2-atto", "exam/yunet-like")
        ),
    ],
)
def test_real_networks_stay_as_they_are(shared_data: Path, name: str) -> None:
    model = fold_batchnorm(normalise(load_model(shared_data / f"{name}.onnx")))
    parts = scalable(model)
    images = example_inputs(model, 1)
    expected = run(model, images, optimised=False)
    assert parts.any
    multiply(model, parts, 2.0 ** np.random.default_rng(0).integers(-3, 4, len(parts.free)).astype(np.float64))
    for want, got in zip(expected, run(model, images, optimised=False), strict=True):
        assert np.array_equal(want, got)  # powers of two aren't rounded
