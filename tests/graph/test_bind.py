"""Inputs beside the image that are bound to a value."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from n2n_edge.errors import InputError
from n2n_edge.graph.bind import bind, bound_names, bound_where_named, parse_bindings, with_bound_inputs
from n2n_edge.graph.costs import costs
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.training.executor import GraphModule
from tests.graph.test_free_batch import CHANNELS, SIZE, Net


def two_inputs(shape: list[int | str], kind: int = TensorProto.FLOAT, *, first: bool = False) -> ir.Model:
    """Two convolutions whose result is multiplied by a further input; `first`: that stands before the image."""
    net = Net()
    y = net.conv(net.op("Relu", net.conv("x", 3, CHANNELS)), CHANNELS, 5)
    pooled = net.op("Flatten", net.op("GlobalAveragePool", y))
    factor = net.op("Cast", "factor", to=TensorProto.FLOAT) if kind != TensorProto.FLOAT else "factor"
    y = net.op("Mul", pooled, factor)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE]),
        helper.make_tensor_value_info("factor", kind, shape),
    ]
    graph = helper.make_graph(
        net.nodes,
        "g",
        inputs[::-1] if first else inputs,
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", 5])],
        net.constants,
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


IMAGES = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "kind", "text", "array"),
    [
        ([], TensorProto.FLOAT, "factor=2.5", np.array(2.5, np.float32)),
        ([1], TensorProto.FLOAT, "factor=2.5", np.full(1, 2.5, np.float32)),
        ([1, 5], TensorProto.FLOAT, "factor=1,2,3,4,5", np.arange(1, 6, dtype=np.float32)[None]),
        (["N", 5], TensorProto.INT64, "factor=1,2,3,4,5", np.arange(1, 6)[None]),
        (["M", 5], TensorProto.INT64, "factor=3", np.full((1, 5), 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("for_good", [True, False])
def test_a_student_of_a_bound_teacher_keeps_the_input_unless_bound_for_good(
    tmp_path: Path, shape: list[int | str], kind: int, text: str, array: np.ndarray, first: bool, for_good: bool
) -> None:
    model = two_inputs(shape, kind, first=first)
    whole = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    expected = whole.run(None, {"x": IMAGES, "factor": array})[0]
    save_model(bind(model, parse_bindings([text.replace("=", ":=") if for_good else text])), tmp_path / "t.onnx")

    teacher = Teacher.load(tmp_path / "t.onnx")
    save_model(with_bound_inputs(build(teacher, teacher.full)), tmp_path / "s.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "s.onnx"), providers=["CPUExecutionProvider"])

    assert [value.name for value in teacher.model.graph.inputs] == ["x"]
    assert np.allclose(ImageSession(tmp_path / "s.onnx").run(IMAGES)[0], expected, atol=1e-6)
    if for_good:
        assert not session.get_overridable_initializers()
    else:
        doubled = session.run(None, {"x": IMAGES, "factor": np.array(2 * array, array.dtype)})[0]
        assert len(list(GraphModule(teacher.model).parameters())) == 4
        assert np.allclose(doubled, 2 * expected, atol=1e-6)
        assert bound_names(load_model(tmp_path / "s.onnx")) == {"factor"}


def test_channels_that_an_input_is_multiplied_with_stay() -> None:
    net = Net()
    y = net.op("Mul", net.conv("x", 3, CHANNELS), "factor")
    graph = helper.make_graph(
        [*net.nodes, helper.make_node("Conv", [y, net.random(5, CHANNELS, 3, 3)], ["z"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE]),
            helper.make_tensor_value_info("factor", TensorProto.FLOAT, [1, CHANNELS, 1, 1]),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        net.constants,
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))

    kept, for_good = (Teacher(bind(model, parse_bindings([text]))) for text in ("factor=1,2,3,4", "factor:=1,2,3,4"))

    assert not any(group.shrinkable for group in kept.groups)
    assert any(group.shrinkable for group in for_good.groups)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["factor"], "give an input's name and its numbers"),
        (["factor=a"], "give an input's name and its numbers"),
        (["factor=1", "factor=2"], "bound twice"),
        (["other=1"], "has no such input; it has x, factor"),
        (["factor=1,2"], "2 numbers for an input that is 1x5; give 5, or one"),
        (["x=0"], "other"),
    ],
    ids=str,
)
def test_a_binding_that_does_not_fit_is_one_line(texts: list[str], words: str) -> None:
    model = two_inputs([1, 5])
    if texts == ["x=0"]:
        texts, words = ["x=0", "factor=1"], "no input is left for the image"

    with pytest.raises(InputError, match=words):
        bind(model, parse_bindings(texts))


def test_a_checked_file_says_which_inputs_are_bound(tmp_path: Path) -> None:
    save_model(bind(two_inputs([1, 5]), parse_bindings(["factor=2"])), tmp_path / "t.onnx")

    onnx.checker.check_model(onnx.load(tmp_path / "t.onnx"))


def test_a_students_binding_can_be_given_another_value_and_costs_what_the_input_does(tmp_path: Path) -> None:
    model = two_inputs([1, 5])
    save_model(bind(model, parse_bindings(["factor=2"])), tmp_path / "t.onnx")
    student = load_model(tmp_path / "t.onnx")
    fixed = bind(model, parse_bindings(["factor:=2"]))

    other, untouched = bound_where_named([student, fixed], ["factor=6"])

    assert untouched is fixed
    assert bound_names(other) == {"factor"}
    save_model(other, tmp_path / "o.onnx")
    given, changed = (ImageSession(tmp_path / name).run(IMAGES)[0] for name in ("t.onnx", "o.onnx"))
    assert np.allclose(changed, 3 * given, rtol=1e-5)
    assert costs(student, 0) == costs(model, 0)
    assert costs(fixed, 0).params == costs(model, 0).params + 5


def test_an_input_that_no_model_has_is_refused() -> None:
    with pytest.raises(InputError, match=r"scale=1: the models have no such input; they have x, factor"):
        bound_where_named([two_inputs([1, 5]), two_inputs([1])], ["scale=1"])
