"""Figures of quantized files: weights count whatever their type, and nothing rises by quantizing."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import IncompressibleError
from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import file_figures, inferred_figures
from n2n_edge.latency.model import LatencyModel
from tests.quantized import KINDS, floats, quantized


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_rises_by_quantizing(kind: str, tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")
    path = quantized(source, kind)

    before, after = file_figures(source), file_figures(path)

    assert after["params"] == before["params"]
    assert after["macs"] == before["macs"]
    assert costs(load_model(path)).integer_macs == after["macs"].value
    assert costs(load_model(source)).integer_macs == 0
    assert after["memory_bound_mb"].value < before["memory_bound_mb"].value
    assert after["size_mb"].value < before["size_mb"].value
    assert inferred_figures(load_model(path), path) == after


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
