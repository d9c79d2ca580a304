"""What ships in another opset and IR version gives what it gave."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.errors import InputError
from n2n_edge.graph.file_version import check_versions, in_version
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.teacher import Teacher
from tests.graph.test_free_batch import CHANNELS, Net, images, network

Body = Callable[[Net, str], str]

MOVED: dict[str, tuple[Body, int]] = {
    "Clip": (lambda net, y: net.op("Clip", y, net.constant(0.0), net.constant(6.0)), 13),
    "ReduceMean": (lambda net, y: net.op("Sub", y, net.op("ReduceMean", y, net.ints(2, 3), keepdims=1)), 18),
    "ReduceSum": (lambda net, y: net.op("Sub", y, net.op("ReduceSum", y, net.ints(2, 3), keepdims=1)), 13),
    "Squeeze and Unsqueeze": (
        lambda net, y: net.op(
            "Mul",
            y,
            net.op(
                "Unsqueeze",
                net.op("Squeeze", net.op("GlobalAveragePool", y), net.ints(2, 3)),
                net.ints(2, 3),
            ),
        ),
        13,
    ),
    "Pad": (
        lambda net, y: net.op("MaxPool", net.op("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 1, 1)), kernel_shape=[3, 3]),
        13,
    ),
    "Slice": (
        lambda net, y: net.op(
            "Concat",
            net.op("Slice", y, net.ints(2), net.ints(4), net.ints(1)),
            net.op("Slice", y, net.ints(0), net.ints(2), net.ints(1)),
            axis=1,
        ),
        13,
    ),
    "Softmax": (lambda net, y: net.op("Softmax", y, axis=-1), 13),
    "BatchNormalization": (
        lambda net, y: net.op(
            "BatchNormalization",
            y,
            *(net.constant(np.linspace(0.5, 1.5, CHANNELS)) for _ in range(4)),
            training_mode=0,
        ),
        15,
    ),
}


def enlarged(kind: str, mode: str) -> Body:
    def body(net: Net, y: str) -> str:
        return net.op(kind, net.low(y), net.constant([1.0, 1.0, 2.0, 2.0]), mode=mode)

    return body


def assert_the_same(model: ir.Model, converted: ir.Model) -> None:
    for expected, given in zip(ImageSession(model).run(images()), ImageSession(converted).run(images()), strict=True):
        assert np.allclose(expected, given, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
@pytest.mark.parametrize("name", MOVED)
def test_an_older_opset_is_written_with_the_attributes_of_then(name: str, opset: int) -> None:
    body, own = MOVED[name]
    model = Teacher(network(body, own)).model

    converted = in_version(model, opset, None)

    assert converted.opset_imports[""] == opset
    assert_the_same(model, converted)


@pytest.mark.parametrize(
    ("body", "own", "opset"),
    [
        (enlarged("Upsample", "nearest"), 9, 13),
        (enlarged("Upsample", "linear"), 9, 17),
        (enlarged("Resize", "linear"), 10, 18),
        (MOVED["Squeeze and Unsqueeze"][0], 13, 21),
        (lambda net, y: y, 7, 26),
    ],
    ids=["Upsample nearest", "Upsample linear", "Resize", "Squeeze", "plain"],
)
def test_a_newer_opset_is_written(body: Body, own: int, opset: int) -> None:
    model = Teacher(network(body, own)).model

    assert_the_same(model, in_version(model, opset, None))


def test_a_file_of_ir_version_3_and_opset_7_is_read_and_written(tmp_path: Path) -> None:
    model = in_version(Teacher(network(lambda net, y: net.low(y), 13)).model, 7, 3)
    save_model(model, tmp_path / "old.onnx")

    loaded = load_model(tmp_path / "old.onnx")
    teacher = Teacher.load(tmp_path / "old.onnx")

    assert (loaded.ir_version, loaded.opset_imports[""]) == (3, 7)
    assert len(teacher.layers) == 4
    assert_the_same(model, teacher.model)
    assert_the_same(model, in_version(teacher.model, None, 10))


@pytest.mark.parametrize(
    ("opset", "ir_version", "words"),
    [(5, None, "opset 5: give one from 7 to"), (None, 2, "ir_version 2: give one from 3 to"), (999, None, "999")],
)
def test_versions_that_are_not_written(opset: int | None, ir_version: int | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_versions(opset, ir_version)


def test_an_operator_that_an_opset_does_not_have_is_named() -> None:
    model = network(lambda net, y: net.op("HardSwish", y), 14)

    with pytest.raises(InputError, match=r"opset 9: HardSwish '.*' isn't in it; .* nearer to the teacher's, 14"):
        in_version(model, 9, None)
