"""Weights and operands of every rank that an op allows, on either side."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from n2n_edge.graph.teacher import Teacher
from tests.graph.checking import assert_sound
from tests.strategies import GraphBuilder, Tensor

Body = Callable[[GraphBuilder, str], str]
"""Takes rows of features, (N, 6, 8), and gives the output."""


def weight(s: GraphBuilder, *shape: int) -> str:
    return s.constant(f"w{len(s.initializers)}.weight", s.rng.normal(0, 0.3, shape).astype(np.float32))


def vector(s: GraphBuilder, *shape: int) -> str:
    return s.constant("v", s.rng.uniform(0.5, 1.5, shape).astype(np.float32))


def finished(s: GraphBuilder, name: str, shape: list[int | str | None], source: list[int | str]) -> onnx.ModelProto:
    s.nodes.append(helper.make_node("Identity", [name], ["out"], name="out"))
    graph = helper.make_graph(
        s.nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, source)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        s.initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", s.opset)], ir_version=9)


def on_rows(body: Body) -> onnx.ModelProto:
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    rows = s.op("Relu", [s.op("MatMul", ["input", weight(s, 5, 8)])])
    return finished(s, body(s, rows), None, ["N", 6, 5])  # type: ignore[arg-type]


def square(s: GraphBuilder, name: str) -> str:
    return s.op("MatMul", [name, weight(s, 8, 8)])


BODIES: dict[str, Body] = {
    "matrix by vector": lambda s, x: s.op("MatMul", [x, weight(s, 8)]),
    "vector by matrix": lambda s, x: s.op("MatMul", [weight(s, 6), square(s, x)]),
    "matrix on the left": lambda s, x: square(s, s.op("MatMul", [weight(s, 4, 6), x])),
    "stack of matrices": lambda s, x: s.op("MatMul", [square(s, x), weight(s, 1, 8, 4)]),
    "stack of matrices of higher rank": lambda s, x: s.op("MatMul", [square(s, x), weight(s, 2, 1, 8, 4)]),
    "stack on the left": lambda s, x: square(s, s.op("MatMul", [weight(s, 1, 4, 6), x])),
    "scalar on the right": lambda s, x: square(s, s.op("Mul", [x, vector(s)])),
    "scalar on the left": lambda s, x: square(s, s.op("Sub", [vector(s), x])),
    "one number": lambda s, x: square(s, s.op("Div", [x, vector(s, 1)])),
    "vector on the left": lambda s, x: square(s, s.op("Sub", [vector(s, 8), x])),
    "column": lambda s, x: square(s, s.op("Mul", [x, vector(s, 6, 1)])),
    "constant of higher rank": lambda s, x: square(s, s.op("Add", [x, vector(s, 2, 1, 1, 8)])),
    "power": lambda s, x: square(s, s.op("Pow", [x, s.constant("two", np.array(2, np.float32))])),
    "slope vector": lambda s, x: square(s, s.op("PRelu", [x, vector(s, 8)])),
    "one slope": lambda s, x: square(s, s.op("PRelu", [x, vector(s)])),
    "slope of full rank": lambda s, x: square(s, s.op("PRelu", [x, vector(s, 1, 1, 8)])),
    "layer norm": lambda s, x: square(s, s.op("LayerNormalization", [x, vector(s, 8), vector(s, 8)], axis=-1)),
    "layer norm over all": lambda s, x: square(s, s.op("LayerNormalization", [x, vector(s, 6, 8)], axis=1)),
    "norm of rank 3": lambda s, x: square(
        s, s.op("BatchNormalization", [x, vector(s, 6), vector(s, 6), vector(s, 6), vector(s, 6)])
    ),
    "norm of rank 2": lambda s, x: s.op(
        "BatchNormalization",
        [square(s, s.op("ReduceMean", [x], axes=[1], keepdims=0)), *(vector(s, 8) for _ in range(4))],
    ),
    "sum of everything": lambda s, x: s.op("Mul", [square(s, x), s.op("ReduceSum", [x], keepdims=0)]),
    "mean over channels": lambda s, x: s.op("ReduceMean", [square(s, x)], axes=[-1], keepdims=0),
    "largest": lambda s, x: s.op("ReduceMax", [square(s, x)], axes=[1, 2], keepdims=0),
    "Where with numbers": lambda s, x: square(
        s, s.op("Where", [s.op("Greater", [x, vector(s)]), x, s.constant("low", np.array(-1, np.float32))])
    ),
    "Gemm with a number": lambda s, x: s.op(
        "Gemm", [s.op("ReduceMean", [x], axes=[1], keepdims=0), weight(s, 8, 4), vector(s)]
    ),
    "Gemm with one": lambda s, x: s.op(
        "Gemm", [s.op("ReduceMean", [x], axes=[1], keepdims=0), weight(s, 8, 4), vector(s, 1)]
    ),
    "Gemm with a row": lambda s, x: s.op(
        "Gemm", [s.op("ReduceMean", [x], axes=[1], keepdims=0), weight(s, 8, 4), vector(s, 1, 4)]
    ),
    "Gemm with the weight first": lambda s, x: s.op(
        "Gemm", [weight(s, 4, 8), s.op("ReduceMean", [x], axes=[1], keepdims=0)], transB=1
    ),
}


@pytest.mark.parametrize("form", BODIES)
def test_operands_of_any_rank(form: str) -> None:
    """Whatever their rank: analysed, cut rightly where it is cut, and named where it isn't."""
    free = form not in ("constant of higher rank", "stack of matrices of higher rank")
    teacher = assert_sound(on_rows(BODIES[form]), batches=(1, 3) if free else (1,))

    assert teacher.layers
    assert all(group.reason or group.shrinkable for group in teacher.groups)


@pytest.mark.parametrize("form", ["matrix by vector", "vector by matrix", "matrix on the left", "vector on the left",
                                  "scalar on the left", "slope vector"])  # fmt: skip
def test_products_with_vectors_leave_channels_free(form: str) -> None:
    teacher = Teacher(ir.from_proto(on_rows(BODIES[form])))

    assert any(group.shrinkable and group.width == 8 for group in teacher.groups)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_convolutions_of_other_ranks(op_type: str, rank: int) -> None:
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    size = [6] * rank
    x = s.op("Relu", [s.op("Conv", ["input", weight(s, 8, 3, *[3] * rank), vector(s, 8)], pads=[1] * (2 * rank))])
    x = s.op(
        "PRelu",
        [
            s.op(op_type, [x, weight(s, 8, 8, *[3] * rank), vector(s, 8)], pads=[1] * (2 * rank)),
            vector(s, 8, *[1] * rank),
        ],
    )
    x = s.op("BatchNormalization", [x, *(vector(s, 8) for _ in range(4))])
    x = s.op("MaxPool", [x], kernel_shape=[2] * rank, strides=[2] * rank)
    x = s.op("Conv", [x, weight(s, 4, 8, *[1] * rank)])

    teacher = assert_sound(finished(s, s.op("GlobalAveragePool", [x]), ["N", 4, *[1] * rank], ["N", 3, *size]))

    assert [layer.out_channels for layer in teacher.layers] == [8, 8, 4]
    assert [group.shrinkable for group in teacher.groups] == [False, True, True, False]


def test_a_vector_as_the_input_of_a_product() -> None:
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    hidden = s.op("Relu", [s.op("MatMul", ["input", weight(s, 5, 8)])])
    back = s.op("MatMul", [weight(s, 6, 8), hidden])
    proto = finished(s, s.op("MatMul", [back, weight(s, 6, 3)]), [3], [5])

    teacher = assert_sound(proto, batches=(1,))

    assert [layer.out_channels for layer in teacher.layers] == [8, 6, 3]


def normed(op_type: str, **attributes: object) -> onnx.ModelProto:
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x = s.conv(Tensor("input", 3, (8, 8)), 8)
    extra = [vector(s, 8)] if op_type == "LayerNormalization" else []
    x = s.conv(Tensor(s.op(op_type, [x.name, *extra], **attributes), 8, x.size), 8)
    return s.to_proto(3, 8, s.dense(s.flatten(s.global_pool(x, "GlobalAveragePool")), 3), free_batch=True, batch=1)


@pytest.mark.parametrize(("op_type", "attributes", "frozen"), [
    ("MeanVarianceNormalization", {"axes": [2, 3]}, False),
    ("MeanVarianceNormalization", {"axes": [-1, -2]}, False),
    ("MeanVarianceNormalization", {"axes": [0, 2, 3]}, False),
    ("MeanVarianceNormalization", {}, False),
    ("MeanVarianceNormalization", {"axes": [1, 2, 3]}, True),
    ("LpNormalization", {"axis": -1}, False),
    ("LpNormalization", {}, False),
    ("LpNormalization", {"axis": 2, "p": 1}, False),
    ("LpNormalization", {"axis": 1}, True),
    ("LayerNormalization", {"axis": -1}, False),
    ("LRN", {"size": 3}, True),
])  # fmt: skip
def test_a_norm_holds_the_channels_that_it_averages_over(
    op_type: str, attributes: dict[str, object], frozen: bool
) -> None:
    proto = normed(op_type, **attributes)
    teacher = Teacher(ir.from_proto(proto))
    group = next(group for group in teacher.groups if (teacher.layers[0].weight, 0) in group.dims)

    assert frozen == ("averages over these channels" in group.reason)
    if not frozen:
        assert_sound(proto, batches=(1,), dead=op_type != "MeanVarianceNormalization")
