"""Ranges of activations, by every method, from one pass."""

import numpy as np
import pytest

from n2n_edge.errors import InputError
from n2n_edge.quantize.calibrate import METHODS, Calibration, Method, least_divergence
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import activations
from tests.graph.running import inputs_of
from tests.quantize.pairs import network


def seen(*arrays: np.ndarray) -> Calibration:
    calibration = Calibration(["x"])
    for array in arrays:
        calibration.add({"x": array.astype(np.float32)})
    return calibration


def error(array: np.ndarray, low: float, high: float) -> float:
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    steps = np.clip(np.rint(array / scale) + zero, 0, 255)
    return float(np.mean(((steps - zero) * scale - array) ** 2))


@pytest.fixture
def outliers() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=100_000)
    values[:3] = (40.0, -35.0, 38.0)
    return values


def test_minmax_is_what_was_seen_over_all_batches() -> None:
    assert seen(np.array([0.5, 2.0]), np.array([-3.0, 1.0])).ranges("minmax")["x"] == (-3.0, 2.0)


@pytest.mark.parametrize("method", METHODS)
def test_every_range_holds_nought_and_no_more_than_was_seen(method: Method) -> None:
    low, high = seen(np.linspace(2.0, 5.0, 1000), np.linspace(3.0, 6.0, 1000)).ranges(method)["x"]
    assert low == 0.0
    assert 2.0 < high <= 6.0


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_outliers_are_cut_off(method: Method, outliers: np.ndarray) -> None:
    low, high = seen(outliers).ranges(method)["x"]
    assert outliers.min() < low < -2
    assert 2 < high < outliers.max()


def test_the_least_squared_error_is_less_than_all_others(outliers: np.ndarray) -> None:
    calibration = seen(outliers[::2], outliers[1::2])
    errors = {method: error(outliers, *calibration.ranges(method)["x"]) for method in METHODS}
    assert errors["mse"] <= 1.02 * min(errors.values())
    assert errors["mse"] < errors["minmax"]


def test_a_relu_has_no_negative_range(outliers: np.ndarray) -> None:
    for method in METHODS:
        assert seen(np.maximum(outliers, 0)).ranges(method)["x"][0] == 0.0


def test_values_that_are_all_nought_have_an_empty_range() -> None:
    for method in METHODS:
        assert seen(np.zeros(100)).ranges(method)["x"] == (0.0, 0.0)


@pytest.mark.parametrize("bins", [512, 514, 430])
@pytest.mark.parametrize("shape", ["normal", "relu", "sparse", "empty"])
def test_entropy_is_as_onnxruntime_has_it(bins: int, shape: str, outliers: np.ndarray) -> None:
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = {
        "normal": outliers,
        "relu": np.maximum(outliers, 0),
        "sparse": outliers[:40],
        "empty": np.zeros(3),
    }[shape].astype(np.float32)
    largest = np.abs(values).max()
    hist, edges = np.histogram(values, bins, range=(-largest, largest))
    limits = np.float32(-1e9), np.float32(1e9)
    theirs = HistogramCollector("entropy", False, bins, 255, 99.99, "same").get_entropy_threshold(
        (hist, edges, *limits), 255
    )
    assert least_divergence(hist, edges) == tuple(float(each) for each in theirs)


def test_a_first_image_of_tiny_values_takes_no_memory() -> None:
    found = seen(np.array([1e-7, -1e-7]), np.random.default_rng(0).normal(size=10_000))
    low, high = found.ranges("percentile")["x"]
    assert -5 < low < -3
    assert 3 < high < 5
    assert found.ranges("minmax")["x"][1] > high - 1e-6


def test_one_pass_over_a_network_sees_every_value() -> None:
    model = network("residual")
    names = activations(model, QuantizationPlan())
    calibration = Calibration.of(model, names, [inputs_of(model, 2), inputs_of(model, 3)])
    assert calibration.images == 5
    assert set(calibration.ranges("minmax")) == set(names)


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="needs images"):
        Calibration.of(network("residual"), ["input"], [])
