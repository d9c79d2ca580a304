"""Figures of quantized files: weights count whatever their type, and nothing rises by quantizing."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import IncompressibleError
from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import file_figures, inferred_figures
from n2n_edge.latency.model import LatencyModel

KINDS = ("operators", "pairs", "pairs per channel", "dynamic")


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._images = iter([{"x": generator.random((1, 3, 32, 32), np.float32)} for _ in range(3)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._images, None)


def floats(path: Path) -> Path:
    """A residual network: Conv, Relu, Conv, Add, Sigmoid gate, depthwise Conv, global pool, Gemm."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": (16, 3, 3, 3), "b0": (16,), "w1": (16, 16, 3, 3), "b1": (16,), "w2": (16, 1, 3, 3), "b2": (16,),
        "w3": (16, 10), "b3": (10,),
    }  # fmt: skip
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=pads, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], pads=pads, kernel_shape=[3, 3]),
        helper.make_node("Add", ["c1", "r0"], ["a"]),
        helper.make_node("Relu", ["a"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=pads, kernel_shape=[3, 3], group=16),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), n) for n, shape in weights.items()],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    return path


def quantized(source: Path, kind: str) -> Path:
    target = source.with_name(f"{kind}.onnx")
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "dynamic":
                quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
            else:
                quantize_static(
                    source,
                    target,
                    Images(),
                    quant_format=QuantFormat.QOperator if kind == "operators" else QuantFormat.QDQ,
                    per_channel=kind == "pairs per channel",
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )
    finally:
        logging.disable(logging.NOTSET)
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_rises_by_quantizing(kind: str, tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")
    path = quantized(source, kind)

    before, after = file_figures(source), file_figures(path)

    assert after["params"] == before["params"]
    assert after["macs"] == before["macs"]
    assert after["memory_bound_mb"].value < before["memory_bound_mb"].value
    assert after["size_mb"].value < before["size_mb"].value
    assert inferred_figures(load_model(path), path) == after


@pytest.mark.parametrize("device", ["raspberry-pi-4", "jetson-nano", "cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_is_no_higher_and_says_that_its_evidence_is_float(kind: str, device: str, tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")
    profile = load_profile(device)

    before, after = (
        LatencyModel(profile).estimate(load_model(source)),
        LatencyModel(profile).estimate(load_model(quantized(source, kind))),
    )

    assert after.figure.value <= before.figure.value
    assert after.figure.high is not None
    assert before.figure.high is not None
    assert after.figure.low is not None
    assert before.figure.low is not None
    assert after.figure.high <= before.figure.high
    assert after.figure.low < before.figure.low
    assert "quantized" in [warning.code for warning in after.warnings]


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_refuses_them_with_a_reason(kind: str, tmp_path: Path) -> None:
    with pytest.raises(IncompressibleError, match="the model is quantized"):
        Teacher.load(quantized(floats(tmp_path / "float.onnx"), kind))


def test_four_bits_are_half_a_byte(tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.INT4, [64, 32], np.ones(64 * 32, np.int8))
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["w", "s"], ["d"]), helper.make_node("MatMul", ["x", "d"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])],
        [weight, numpy_helper.from_array(np.array(0.1, np.float32), "s")],
    )
    path = tmp_path / "int4.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), str(path))

    found = file_figures(path)

    assert found["params"].value == 64 * 32
    assert found["macs"].value == 64 * 32
    assert found["memory_bound_mb"].value == pytest.approx((64 * 32 / 2 + 4 * (64 + 32)) / 1e6)


def strings() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["t"], ["u"]), helper.make_node("Relu", ["x"], ["y"])],
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8]),
            helper.make_tensor_value_info("t", TensorProto.STRING, [2]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("u", TensorProto.STRING, [2]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def sequences() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("SplitToSequence", ["r"], ["y"], axis=1)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("make", [strings, sequences])
def test_what_is_no_tensor_of_numbers_has_figures(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "model.onnx"
    onnx.save(make(), str(path))

    assert file_figures(path)["params"].value == 0
    assert LatencyModel(load_profile("raspberry-pi-4")).estimate(load_model(path)).figure.value > 0
    with pytest.raises(IncompressibleError, match="can't be compressed"):
        Teacher.load(path)
