"""Height and width that a teacher leaves free stay free in students where nothing in the graph is for one size."""

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.graph.free_size import batch_name, free_size, with_batch_name, with_free_size
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.input_shape import image_shape
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.test_free_batch import Body, network


def freed(body: Body) -> ir.Model:
    model = network(body)
    model.graph.inputs[0].shape = ir.Shape(["N", 3, "H", "W"])
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    return model


HOLDS: dict[str, Body] = {
    "convolutions": lambda net, y: net.low(y),
    "scales": lambda net, y: net.op(
        "Add", y, net.op("Resize", net.low(y), "", net.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest")
    ),
    "a flat map put back": lambda net, y: net.op("GlobalAveragePool", y),
}
ONE_SIZE: dict[str, Body] = {
    "a number of positions": lambda net, y: net.op(
        "Mul",
        y,
        net.op(
            "Cast",
            net.op("ReduceProd", net.op("Slice", net.op("Shape", y), net.ints(2), net.ints(4)), keepdims=0),
            to=1,
        ),
    ),
}


@pytest.mark.parametrize("name", HOLDS)
def test_a_student_of_a_graph_for_all_sizes_declares_them_free(name: str) -> None:
    source = freed(HOLDS[name])
    teacher = Teacher(source, (3, 16, 16))
    found = free_size(teacher)
    assert found is not None
    narrow = next(group for group in teacher.groups if group.shrinkable)

    student = with_free_size(build(teacher, teacher.full.resize(narrow.name, narrow.width - 1)), found.source)
    batch = np.random.default_rng(0).standard_normal((2, *found.shape)).astype(np.float32)

    assert image_shape(teacher.model) == (3, 16, 16)
    assert [str(size) for size in list(student.graph.inputs[0].shape or ())[1:]] == ["3", "H", "W"]
    assert ImageSession(student).run(batch)[0].shape == (2, 5)
    whole = with_free_size(build(teacher, teacher.full), found.source)
    assert np.allclose(ImageSession(whole).run(batch)[0], ImageSession(source).run(batch)[0], atol=1e-5)


@pytest.mark.parametrize("name", ONE_SIZE)
def test_a_graph_with_constants_of_one_size_is_for_that_one(name: str) -> None:
    assert free_size(Teacher(freed(ONE_SIZE[name]), (3, 16, 16))) is None


def test_a_fixed_size_is_not_free() -> None:
    assert free_size(Teacher(network(HOLDS["convolutions"]))) is None


@pytest.mark.parametrize(("given", "name"), [("batch_size", "batch_size"), ("N", "N"), (None, "N"), (1, "N")])
def test_a_student_calls_its_batch_as_the_teacher_does(given: str | int | None, name: str) -> None:
    source = freed(HOLDS["convolutions"])
    source.graph.inputs[0].shape = ir.Shape([given, 3, 8, 8])
    teacher = Teacher(network(HOLDS["convolutions"]))

    student = with_batch_name(build(teacher, teacher.full), batch_name(source))

    assert [str(value.shape[0]) for value in (*student.graph.inputs, *student.graph.outputs)] == [name, name]
    assert ImageSession(student).run(np.zeros((2, 3, 8, 8), np.float32))[0].shape == (2, 5)
