"""Functions in a model file: what is called as it is declared, in versions that agree."""

from pathlib import Path

import onnx
import pytest
from onnx import helper

from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import file_figures
from tests.graph.test_hostile_files import inferred_in, refused, saved


def function(nodes: list[onnx.NodeProto], opset: int = 17, gives: str = "q") -> onnx.FunctionProto:
    """A function of one input ``p`` and one output."""
    return helper.make_function("local", "F", ["p"], [gives], nodes, [helper.make_opsetid("", opset)])


def calling(path: Path, called: onnx.FunctionProto, inputs: int = 1, outputs: int = 1) -> Path:
    node = helper.make_node("F", ["x"] * inputs, ["y", "z"][:outputs], domain="local")
    return saved(path, [node], functions=(called,))


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (1, 2)])
def test_a_function_called_with_more_than_it_declares(inputs: int, outputs: int, tmp_path: Path) -> None:
    path = calling(tmp_path / "model.onnx", function([helper.make_node("Relu", ["p"], ["q"])]), inputs, outputs)

    for analyse in (Teacher.load, file_figures, inferred_in):
        assert "declares 1" in refused(path, analyse)


def test_a_function_of_another_version_with_the_same_operators(tmp_path: Path) -> None:
    path = calling(tmp_path / "model.onnx", function([helper.make_node("Relu", ["p"], ["q"])], opset=13))

    assert Teacher.load(path).model.graph.node(0).op_type == "Relu"
    file_figures(path)


def test_a_function_of_another_version_with_other_operators(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["p"], ["q"])]  # up to version 12 its axis is another one by default
    path = calling(tmp_path / "model.onnx", function(nodes, opset=12))

    for analyse in (Teacher.load, file_figures, inferred_in):
        assert "uses Softmax of version 12" in refused(path, analyse)
