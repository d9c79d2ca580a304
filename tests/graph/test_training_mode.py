"""Networks that were exported in training mode are refused: everything behind the loader would make others of them."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.errors import InputError
from n2n_edge.graph.teacher import Teacher
from tests.graph.running import run

VECTORS = [numpy_helper.from_array(np.full(4, value, np.float32), f"v{value}") for value in (1, 2, 3)]


def model_of(node: Callable[[], list[object]], opset: int, *more: object) -> ir.Model:
    """A convolution, `node` from ``conv`` to ``y``, and a Relu."""
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1] * 4), *node()]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Relu", ["y"], ["out"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [weight, *VECTORS, *more],
    )
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4 if opset < 14 else 8)
    )


def norm(*outputs: str, **attributes: object) -> Callable[[], list[object]]:
    return lambda: [
        helper.make_node(
            "BatchNormalization", ["conv", "v1", "v2", "v3", "v1"], ["y", *outputs], name="bn", **attributes
        )
    ]


YES, NO = numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.array(False), "no")
HALF, NONE = (
    numpy_helper.from_array(np.array(ratio, np.float32), name) for ratio, name in ((0.5, "half"), (0, "none"))
)


def dropout(ratio: str, mode: str) -> Callable[[], list[object]]:
    return lambda: [helper.make_node("Dropout", ["conv", ratio, mode], ["y"], name="drop")]


@pytest.mark.parametrize(
    "model",
    [
        model_of(norm("m", "v", training_mode=1), 17),
        model_of(norm("m", "v", training_mode=1), 14),
        model_of(norm("m", "v", "sm", "sv"), 9),
        model_of(norm("m", "v", "sm", "sv"), 7),
        model_of(dropout("half", "yes"), 17, HALF, YES),
        model_of(dropout("", "yes"), 13, YES),
    ],
)
def test_training_mode_is_refused(model: ir.Model) -> None:
    with pytest.raises(InputError, match=r"was exported in training mode; call eval\(\)"):
        Teacher(model)


@pytest.mark.parametrize(
    "model",
    [
        model_of(norm(), 17),
        model_of(norm(training_mode=0), 14),
        model_of(norm(), 9),
        model_of(norm(""), 7),
        model_of(dropout("half", "no"), 17, HALF, NO),
        model_of(dropout("none", "yes"), 17, NONE, YES),
    ],
)
def test_evaluation_mode_is_taken_and_stays_the_function(model: ir.Model) -> None:
    teacher = Teacher(model)

    images = {"x": np.random.default_rng(1).standard_normal((3, 3, 6, 6)).astype(np.float32)}
    np.testing.assert_allclose(run(teacher.model, images)[0], run(model, images)[0], rtol=1e-4, atol=1e-5)
