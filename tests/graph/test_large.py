"""Models over 2 GB: counted as any other, refused in a line that names the limit where one message has to hold them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from n2n_edge.errors import InputError
from n2n_edge.graph import model_file
from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import load_model, save_model, serialize
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.latency.file_figures import file_figures


def write_with_holes(folder: Path, hidden: int, wide: int) -> Path:
    """Write three Gemms whose weights are a sparse external data file, and return the model's path."""
    shapes = {"a": (hidden, 192), "b": (wide, hidden), "c": (10, wide)}
    tensors, offset = [], 0
    for name, dims in shapes.items():
        length = 4 * int(np.prod(dims))
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "weights.bin"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        offset += length
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(offset)
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "a"], ["g"], name="first", transB=1),
        helper.make_node("Gemm", ["g", "b"], ["h"], name="second", transB=1),
        helper.make_node("Gemm", ["h", "c"], ["y"], name="third", transB=1),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "large", [image], [output], tensors)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_what_one_file_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_with_holes(tmp_path, 200, 300)
    monkeypatch.setattr(model_file, "MESSAGE_BYTES", 50_000)
    params = 192 * 200 + 200 * 300 + 300 * 10

    teacher = Teacher.load(path)
    student = build(teacher, teacher.full)

    assert costs(student).params == costs(load_model(path)).params == params
    assert file_figures(path)["size_mb"].value == pytest.approx(4e-6 * params, rel=0.01)
    for write in (serialize, lambda model: save_model(model, tmp_path / "student.onnx")):
        with pytest.raises(InputError, match="one ONNX file may hold"):
            write(student)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["model.onnx", "weights.bin"]


@pytest.mark.slow
def test_over_two_gigabytes(tmp_path: Path) -> None:
    path = write_with_holes(tmp_path, 20_000, 30_000)
    params = 192 * 20_000 + 20_000 * 30_000 + 30_000 * 10

    teacher = Teacher.load(path)

    assert costs(teacher.model).params == params
    assert file_figures(path)["size_mb"].value == pytest.approx(4e-6 * params, rel=0.01)
    with pytest.raises(InputError, match="one ONNX file may hold"):
        serialize(build(teacher, teacher.full))
