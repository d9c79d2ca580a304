"""Before a search: the teacher's file, the graph as loaded, and torch are one function on real images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.errors import InputError
from n2n_edge.graph.teacher import Teacher
from n2n_edge.runs.parity import worst_difference
from n2n_edge.runs.teacher_check import check_teacher, real_images
from n2n_edge.training.ops.registry import OPS

Tail = Callable[[str], list[onnx.NodeProto]]


def network(path: Path, tail: Tail, constants: dict[str, np.ndarray] | None = None, outputs: int = 1) -> Path:
    """Write a convolution, a Relu and `tail`, whose last nodes give ``y0``, ``y1``, ...; the batch is free."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32), **(constants or {})}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1] * 4, name="first"),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        *tail("relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info(f"y{index}", TensorProto.FLOAT, [None] * 4) for index in range(outputs)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Data:
    images = np.random.default_rng(1).integers(0, 255, (40, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=images)
    return load_data(str(tmp_path / "d.npz"), input_shape=(3, 8, 8), classes=None, mean=(0.5,), std=(0.5,), seed=0)


def node(op: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=op.lower(), **attributes)


def check(path: Path, data: Data) -> None:
    check_teacher(path, [Teacher.load(path).model], data)


def plain(x: str) -> list[onnx.NodeProto]:
    return [node("GlobalAveragePool", [x], "y0")]


@pytest.mark.parametrize("broken", ["Conv", "Relu", "GlobalAveragePool"])
def test_an_operator_that_torch_computes_otherwise_ends_the_run_by_name(
    broken: str, tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network(tmp_path / "t.onnx", plain)
    check(path, data)
    honest = OPS[broken]

    def builder(view):  # type: ignore[no-untyped-def]
        kernel = honest(view)
        return lambda *inputs: kernel(*inputs) * 1.01 + 0.01

    monkeypatch.setitem(OPS, broken, builder)
    with pytest.raises(
        InputError, match=rf"t\.onnx: torch computes something else.*'y0' differs by \d.*first at {broken} '"
    ):
        check(path, data)


def test_what_goes_wrong_in_batches_alone_is_seen(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    path = network(tmp_path / "t.onnx", plain)
    honest = OPS["Relu"]

    def builder(view):  # type: ignore[no-untyped-def]
        kernel = honest(view)
        return lambda x: torch.cat([kernel(x[:1]), kernel(x[1:]).flip(0)]) if len(x) > 2 else kernel(x)

    monkeypatch.setitem(OPS, "Relu", builder)
    with pytest.raises(InputError, match=r"in a batch: output 'y0' differs"):
        check(path, data)


MIXING: dict[str, tuple[Tail, dict[str, np.ndarray]]] = {
    "mean over the batch": (
        lambda x: [node("ReduceMean", [x], "m", axes=[0], keepdims=1), node("Sub", [x, "m"], "y0")],
        {},
    ),
    "the first image for all": (
        lambda x: [node("Gather", [x, "zero"], "first", axis=0), node("Add", [x, "first"], "y0")],
        {"zero": np.array(0, np.int64)},
    ),
    "the last image": (
        lambda x: [node("Slice", [x, "a", "b", "zero"], "last"), node("Mul", [x, "last"], "y0")],
        {"a": np.array([-1]), "b": np.array([2**31]), "zero": np.array([0])},
    ),
    "softmax over the batch": (lambda x: [node("Softmax", [x], "y0", axis=0)], {}),
    "statistics of the batch": (lambda x: [node("MeanVarianceNormalization", [x], "y0")], {}),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_file_that_mixes_images_is_refused(name: str, tmp_path: Path, data: Data) -> None:
    tail, constants = MIXING[name]
    path = network(tmp_path / "t.onnx", tail, constants)

    with pytest.raises(InputError, match=r"t\.onnx: gives an image another answer in a batch than alone"):
        check(path, data)


def test_a_graph_that_is_not_the_file_is_refused(tmp_path: Path, data: Data) -> None:
    path = network(tmp_path / "t.onnx", plain)
    graph = Teacher.load(path).model.clone()
    weight = graph.graph.initializers["w"]
    assert weight.const_value is not None
    weight.const_value = ir.Tensor(weight.const_value.numpy() * 1.01, name="w")

    with pytest.raises(InputError, match="the graph as loaded isn't the file's function"):
        check_teacher(path, [graph], data)


def test_outputs_with_the_batch_on_another_axis_are_compared(tmp_path: Path, data: Data) -> None:
    check(network(tmp_path / "t.onnx", lambda x: [node("Transpose", [x], "y0", perm=[2, 0, 1, 3])]), data)


@pytest.mark.parametrize("bias", [-8.0, -12.0, -16.0, -20.0, -60.0])
def test_sigmoids_that_are_nearly_nought_everywhere_are_no_difference(bias: float, tmp_path: Path, data: Data) -> None:
    def tail(x: str) -> list[onnx.NodeProto]:
        return [*plain(x), node("Conv", [x, "v", "b"], "deep"), node("Sigmoid", ["deep"], "y1")]

    arrays = {"v": np.full((1, 4, 1, 1), 0.1, np.float32), "b": np.array([bias], np.float32)}
    check(network(tmp_path / "t.onnx", tail, arrays, outputs=2), data)


def test_images_differ_and_fewer_are_repeated(data: Data) -> None:
    images = real_images(data, 3)

    assert images.shape == (3, 3, 8, 8)
    assert len({image.tobytes() for image in images}) == 3
    assert real_images(data, 60).shape == (60, 3, 8, 8)


@pytest.mark.parametrize(
    ("expected", "got", "agrees"),
    [
        ([1.0, 2.0], [1.0, 2.001], True),
        ([1.0, 2.0], [1.0, 2.003], False),
        ([1e-9, 0.0], [2e-9, 0.0], True),  # rounding
        ([0.0, 0.0], [0.0, 1e-3], False),
        ([1e-3, 0.0], [1e-3, 1e-5], False),  # small, and yet no rounding
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, np.nan], [1.0, 2.0], False),
        ([1.0, np.inf], [1.0, -np.inf], False),
        ([1.0, np.inf], [1.0, np.inf], True),
        ([1.0], [1.0, 1.0], False),
    ],
)
def test_the_bounds_of_agreement(expected: list[float], got: list[float], agrees: bool) -> None:
    one, other = np.array(expected, np.float32), np.array(got, np.float32)
    assert worst_difference([one], [other]).agrees == agrees


def test_the_worst_output_is_named() -> None:
    a, b = np.ones(3, np.float32), np.full(3, 1.5, np.float32)
    assert worst_difference([a, a, a], [a, b, a]).output == 1
    assert not worst_difference([a], [a, a]).agrees
