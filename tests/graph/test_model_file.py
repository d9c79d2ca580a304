"""The bytes of a model: tensors in other files, and sparse ones, wherever a model holds them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.graph.model_file import file_size_bytes
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import file_figures
from tests.graph.test_function_calls import calling, function
from tests.graph.test_hostile_files import KERNEL, conv, inferred_in, refused, saved


def external(name: str, location: str, kind: int, *dims: int) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def sparse(location: str, part: str) -> onnx.SparseTensorProto:
    """A weight ``w`` of 4x3x3x3, one part of which lies in another file."""
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    indices = numpy_helper.from_array(np.array([0, 5], np.int64), "i")
    if part == "values":
        values = external("w", location, TensorProto.FLOAT, 2)
    else:
        indices = external("i", location, TensorProto.INT64, 2)
    return helper.make_sparse_tensor(values, indices, [4, 3, 3, 3])


def with_data_elsewhere(path: Path, place: str, location: str) -> Path:
    """A model whose convolution has its weight, or a part of it, in another file."""
    if place.startswith("function"):
        weight = helper.make_node("Constant", [], ["w"], value=external("w", location, TensorProto.FLOAT, 4, 3, 3, 3))
        nodes = [weight, helper.make_node("Conv", ["p", "w"], ["q"])]
        if place == "function's body":
            branch = helper.make_graph(nodes, "b", [], [helper.make_tensor_value_info("q", TensorProto.FLOAT, None)])
            yes = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
            nodes = [yes, helper.make_node("If", ["c"], ["q"], then_branch=branch, else_branch=branch)]
        return calling(path, function(nodes))
    held = sparse(location, place.split()[-1])
    if place.startswith("constant"):
        return saved(path, [helper.make_node("Constant", [], ["w"], sparse_value=held), *conv()])
    proto = onnx.load(str(saved(path, conv())))
    proto.graph.sparse_initializer.append(held)
    path.write_bytes(proto.SerializeToString())
    return path


PLACES = ["function", "function's body", "sparse values", "sparse indices", "constant values", "constant indices"]


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "missing.bin"])
@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_looked_for_wherever_tensors_are(place: str, location: str, tmp_path: Path) -> None:
    path = with_data_elsewhere(tmp_path / "model.onnx", place, location)

    for analyse in (Teacher.load, file_figures, inferred_in, file_size_bytes):
        assert "beside the model" in refused(path, analyse)


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_read_wherever_tensors_are(place: str, tmp_path: Path) -> None:
    content = np.arange(2, dtype=np.int64) if place.endswith("indices") else np.ones(108, np.float32)
    size = 2 if "values" in place else content.size
    (tmp_path / "w.bin").write_bytes(content[:size].tobytes())
    path = with_data_elsewhere(tmp_path / "model.onnx", place, "w.bin")

    assert file_figures(path)["macs"].value == 4 * 27 * 36
    assert inferred_in(path)
    assert file_size_bytes(path) == path.stat().st_size + size * content.itemsize


def test_sparse_weights_in_bodies(tmp_path: Path) -> None:
    given = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    dense = helper.make_graph([helper.make_node("Conv", ["x", "v"], ["b"])], "dense", [], [given])
    dense.initializer.append(numpy_helper.from_array(KERNEL["w"], "v"))
    thin = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["b"])], "thin", [], [given])
    indices = numpy_helper.from_array(np.array([0, 5], np.int64))
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    thin.sparse_initializer.append(helper.make_sparse_tensor(values, indices, KERNEL["w"].shape))
    choice = helper.make_node("If", ["c"], ["y"], then_branch=thin, else_branch=dense)
    path = saved(tmp_path / "model.onnx", [choice], {"c": np.array(True)})

    for analyse in (Teacher.load, file_figures, inferred_in):
        analyse(path)
