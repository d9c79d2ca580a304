from pathlib import Path

import onnx_ir as ir
import pytest

from n2n_edge.devices import Calibration, load_profile, predict_latency, predict_node_latencies, roofline
from n2n_edge.errors import InputError
from n2n_edge.graph import NodeCost, load_model
from tests.measure.small_models import write_conv_model

BOARD = load_profile("raspberry-pi-4")
OVERHEAD_MS = BOARD.launch_overhead_us / 1000


def node(op_type: str, inputs: str, output: str, macs: int = 0, megabytes: int = 0) -> NodeCost:
    return NodeCost(output, op_type, tuple(inputs.split()), (output,), macs, 0, 0, megabytes * 1_000_000, 0)


def conv_model(folder: Path, width: int) -> ir.Model:
    return load_model(write_conv_model(folder / f"{width}.onnx", width))


def test_arithmetic_bound_memory_bound_and_overhead_bound() -> None:
    latencies = roofline(
        [
            node("Conv", "x", "a", macs=48_000_000),  # 96 MFLOP at 48 GFLOP/s
            node("MaxPool", "a", "b", megabytes=128),  # 128 MB at 12.8 GB/s
            node("Softmax", "b", "c"),
        ],
        BOARD,
    )

    assert pytest.approx([each.latency_ms for each in latencies]) == [
        2.0 + OVERHEAD_MS,
        10.0 + OVERHEAD_MS,
        OVERHEAD_MS,
    ]
    assert [each.limited_by for each in latencies] == ["compute", "memory", "overhead"]


def test_norms_and_activations_behind_a_conv_or_add_cost_nothing() -> None:
    latencies = roofline(
        [
            node("Conv", "x", "c1", macs=1000),
            node("BatchNormalization", "c1", "n1", megabytes=1),
            node("Relu", "n1", "r1", megabytes=1),
            node("Conv", "r1", "c2", macs=1000),
            node("Relu", "c2", "r2", megabytes=1),
            node("Add", "r2 r1", "s", megabytes=1),
            node("Relu", "s", "r3", megabytes=1),
            node("Relu", "r3", "r4", megabytes=1),
            node("Flatten", "r4", "f", megabytes=1),
        ],
        BOARD,
    )

    limits = [each.limited_by for each in latencies]
    assert [limits[1], limits[2], limits[4], limits[6]] == ["fused", "fused", "fused", "fused"]
    assert limits[8] == "free"
    assert [int(latencies[step].latency_ms > 0) for step in (0, 3, 5, 7)] == [1, 1, 1, 1]


def test_a_value_that_others_read_is_not_fused_away() -> None:
    nodes = [node("Conv", "x", "c", macs=1000), node("Relu", "c", "r", megabytes=1), node("Add", "c r", "s")]
    as_output = [node("Conv", "x", "c", macs=1000), node("Relu", "c", "r", megabytes=1)]

    assert roofline(nodes, BOARD)[1].limited_by == "memory"
    assert roofline(as_output, BOARD, graph_outputs=["c", "r"])[1].limited_by == "memory"
    assert roofline(as_output, BOARD, graph_outputs=["r"])[1].limited_by == "fused"


def test_the_prediction_grows_with_width_and_says_that_it_is_analytic(tmp_path: Path) -> None:
    figures = [predict_latency(conv_model(tmp_path, width), BOARD) for width in (8, 16, 32, 64)]

    values = [figure.value for figure in figures]
    assert values == sorted(set(values))
    for figure in figures:
        assert (figure.provenance, figure.unit) == ("analytic", "ms")
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < figure.value < figure.high


def test_the_whole_is_the_sum_of_its_operators(tmp_path: Path) -> None:
    model = conv_model(tmp_path, 16)

    latencies = predict_node_latencies(model, BOARD)

    assert [each.name for each in latencies] == ["conv1", "norm1", "relu1", "conv2", "add", "relu2"]
    assert [latencies[step].limited_by for step in (1, 2, 5)] == ["fused", "fused", "fused"]
    assert predict_latency(model, BOARD).value == pytest.approx(sum(each.latency_ms for each in latencies))


def test_fewer_threads_are_slower_on_a_cpu_and_no_matter_on_a_gpu(tmp_path: Path) -> None:
    model = conv_model(tmp_path, 64)
    jetson = load_profile("jetson")

    assert predict_latency(model, BOARD, threads=1).value > predict_latency(model, BOARD, threads=4).value
    assert predict_latency(model, BOARD, threads=4) == predict_latency(model, BOARD)
    assert predict_latency(model, jetson, threads=1) == predict_latency(model, jetson)


@pytest.mark.parametrize("threads", [0, 5])
def test_threads_that_the_device_does_not_have_are_refused(tmp_path: Path, threads: int) -> None:
    with pytest.raises(InputError, match=f"{threads} threads: raspberry-pi-4 has 4 cores"):
        predict_latency(conv_model(tmp_path, 8), BOARD, threads=threads)


def test_a_calibration_scales_the_value_and_is_named(tmp_path: Path) -> None:
    model = conv_model(tmp_path, 16)
    calibration = Calibration(
        ratio=3.0, low_ratio=2.0, high_ratio=5.0, models=12, runtime="onnxruntime 1.20", source="timed on the board"
    )
    analytic = predict_latency(model, BOARD)

    figure = predict_latency(model, BOARD.model_copy(update={"calibration": calibration}))

    assert (figure.provenance, figure.n) == ("calibrated", 12)
    assert pytest.approx(
        (figure.value / analytic.value, (figure.low or 0) / analytic.value, (figure.high or 0) / analytic.value)
    ) == (3.0, 2.0, 5.0)
    calibrated_profile = BOARD.model_copy(update={"calibration": calibration})
    assert predict_latency(model, calibrated_profile, threads=1).provenance == "analytic"
