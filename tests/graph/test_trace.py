"""Shapes and static values without running the model agree with those of a run."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.errors import InputError
from n2n_edge.graph import shapes
from n2n_edge.graph.shape_run import run_graph, types_by_running
from n2n_edge.graph.shapes import trace_model
from tests.graph.running import inputs_of
from tests.strategies import GRAPH_SETTINGS, cnn_models


@GRAPH_SETTINGS
@given(cnn_models(free_batch=True))
def test_a_trace_tells_what_a_run_shows(model: ir.Model) -> None:
    for batch in (1, 2):
        inputs = inputs_of(model, batch)
        told, seen = trace_model(model, inputs), run_graph(model, inputs)
        for name, array in seen.items():
            assert told.shapes[name] == array.shape
            assert told.dtypes[name] == array.dtype
        for name, value in told.values.items():
            np.testing.assert_array_equal(value, seen[name])


def model_of(nodes: list[onnx.NodeProto], *constants: onnx.TensorProto, size: int = 4) -> ir.Model:
    """A model of one input ``x`` (N, 4, size, size) and one output ``y`` of unknown shape."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(constants),
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[ir.Model]:
    runs: list[ir.Model] = []

    def counting(model: ir.Model, *rest: Any) -> Any:
        runs.append(model)
        return types_by_running(model, *rest)

    monkeypatch.setattr(shapes, "types_by_running", counting)
    return runs


def test_shape_arithmetic_is_told_without_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = counted(monkeypatch)
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Relu", ["flat"], ["y"]),
    ]
    model = model_of(nodes, ints("zero", 0), ints("rest", -1))

    told = trace_model(model, {"x": np.zeros((2, 4, 4, 4), np.float32)})

    assert not runs
    assert told.shapes["y"] == (2, 64)
    assert told.values["target"].tolist() == [2, -1]
    assert told.values["zeros"].shape == (2, 4, 4, 4)
    assert "y" not in told.values


def test_what_inference_cannot_tell_is_seen_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = counted(monkeypatch)
    nodes = [
        helper.make_node("Greater", ["x", "bound"], ["large"]),
        helper.make_node("NonZero", ["large"], ["places"]),
        helper.make_node("Cast", ["places"], ["y"], to=TensorProto.FLOAT),
    ]
    model = model_of(nodes, numpy_helper.from_array(np.array(0, np.float32), "bound"))

    told = trace_model(model, {"x": np.ones((1, 4, 4, 4), np.float32)})

    assert len(runs) == 1
    assert told.shapes["y"] == (4, 64)
    assert not told.values


def test_a_reshape_that_fixes_the_batch_fails_for_two_images() -> None:
    model = model_of([helper.make_node("Reshape", ["x", "target"], ["y"])], ints("target", 1, 64))

    assert trace_model(model, {"x": np.zeros((1, 4, 4, 4), np.float32)}).shapes["y"] == (1, 64)
    with pytest.raises(InputError, match="ONNX Runtime can't run the model"):
        trace_model(model, {"x": np.zeros((2, 4, 4, 4), np.float32)})
