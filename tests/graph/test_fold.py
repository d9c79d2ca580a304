"""Nothing grows by being loaded: a full architecture is never larger than its teacher, and counts the same weights."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from n2n_edge.graph.costs import costs
from n2n_edge.graph.teacher import Teacher
from tests.graph.checking import assert_sound, group_of
from tests.strategies import GraphBuilder, Tensor

Body = Callable[[GraphBuilder, Tensor], Tensor]


def network(body: Body, opset: int = 17, *, named: bool = True) -> onnx.ModelProto:
    builder = GraphBuilder(opset, np.random.default_rng(0))
    x = body(builder, builder.conv(Tensor("input", 3, (8, 8)), 8))
    output = builder.dense(builder.flatten(builder.global_pool(builder.conv(x, 8), "GlobalAveragePool")), 3)
    proto = builder.to_proto(3, 8, output, free_batch=True, batch=1)
    if not named:
        for node in proto.graph.node:
            node.ClearField("name")
    return proto


def like(x: Tensor, name: str) -> Tensor:
    return Tensor(name, x.channels, x.size)


def floats(builder: GraphBuilder, *shape: int) -> np.ndarray:
    return builder.rng.normal(0, 0.3, shape).astype(np.float32)


def with_operand(make: Callable[[GraphBuilder], str], op_type: str = "Add") -> Body:
    """An elementwise op with what `make` gives, which broadcasts to (1, 8, 8, 8)."""
    return lambda s, x: like(x, s.op(op_type, [x.name, make(s)]))


def with_weights(make: Callable[[GraphBuilder], list[str]]) -> Body:
    """Convolutions with the 8x8x3x3 weights that `make` gives."""

    def body(s: GraphBuilder, x: Tensor) -> Tensor:
        for weight in make(s):
            x = like(x, s.op("Relu", [s.op("Conv", [x.name, weight], pads=[1] * 4)]))
        return x

    return body


def constant_of_shape(s: GraphBuilder, value: float, *shape: int) -> str:
    return s.op("ConstantOfShape", [s.ints(*shape)], value=numpy_helper.from_array(np.array([value], np.float32)))


def shared(s: GraphBuilder) -> str:
    return s.constant("shared.weight", floats(s, 8, 8, 3, 3))


def twice(s: GraphBuilder, op_type: str, **attributes: object) -> list[str]:
    weight = shared(s)
    return [s.op(op_type, [weight], **attributes) for _ in range(2)]


def used_and_transposed(s: GraphBuilder) -> list[str]:
    weight = shared(s)
    return [weight, s.op("Transpose", [weight], perm=[1, 0, 2, 3])]


def used_and_reshaped(s: GraphBuilder) -> list[str]:
    weight = shared(s)
    return [weight, s.op("Reshape", [s.op("Reshape", [weight, s.ints(8, 8, 9)]), s.ints(8, 8, 3, 3)])]


def grid(s: GraphBuilder, x: Tensor) -> Tensor:
    """Coordinates made by Range, Cast and Unsqueeze, as detectors do."""
    numbers = [s.constant("number", np.array(n, np.int64)) for n in (0, 8, 1)]
    line = s.op("Cast", [s.op("Range", numbers)], to=1)
    rows = s.op("Expand", [s.op("Reshape", [line, s.ints(1, 1, 8, 1)]), s.ints(1, 1, 8, 8)])
    return like(x, s.op("Add", [x.name, rows]))


def number(s: GraphBuilder, value: float) -> str:
    return s.constant("number", np.array(value, np.float32))


FORMS: dict[str, Body] = {
    "expanded slope": with_operand(
        lambda s: s.op("Expand", [s.constant("slope", floats(s, 1, 8, 1, 1)), s.ints(1, 8, 8, 8)]), "PRelu"
    ),
    "expanded vector": with_operand(
        lambda s: s.op("Expand", [s.constant("shift", floats(s, 8, 1, 1)), s.ints(1, 8, 8, 8)])
    ),
    "expanded by pieces": with_operand(
        lambda s: s.op(
            "Expand", [s.op("Expand", [s.constant("v", floats(s, 8, 1, 1)), s.ints(8, 8, 1)]), s.ints(8, 8, 8)]
        )
    ),
    "constant of shape": with_operand(lambda s: constant_of_shape(s, 0.5, 1, 8, 8, 8)),
    "tiled over rows": with_operand(
        lambda s: s.op("Tile", [s.constant("v", floats(s, 1, 8, 1, 1)), s.ints(1, 1, 8, 8)])
    ),
    "tiled pattern": with_operand(lambda s: s.op("Tile", [s.constant("v", floats(s, 1, 1, 4, 4)), s.ints(1, 1, 2, 2)])),
    "range": grid,
    "padded constant": with_operand(
        lambda s: s.op("Pad", [s.constant("v", floats(s, 1, 1, 2, 2)), s.ints(0, 0, 3, 3, 0, 0, 3, 3)])
    ),
    "joined constants": with_operand(
        lambda s: s.op(
            "Concat", [s.constant("v", floats(s, 1, 4, 1, 1)), s.constant("v", floats(s, 1, 4, 1, 1))], axis=1
        )
    ),
    "one constant joined with itself": with_operand(
        lambda s: s.op("Concat", [s.constant("v", floats(s, 1, 1, 8, 8))] * 8, axis=1)
    ),
    "identity": with_weights(lambda s: [s.op("Identity", [shared(s)])]),
    "shared through identity": with_weights(lambda s: twice(s, "Identity")),
    "shared transposed": with_weights(lambda s: twice(s, "Transpose", perm=[1, 0, 2, 3])),
    "shared and transposed": with_weights(used_and_transposed),
    "shared and reshaped": with_weights(used_and_reshaped),
    "split": with_weights(
        lambda s: [
            first := s.op("Split", [s.constant("w.weight", floats(s, 16, 8, 3, 3)), s.ints(8, 8)], 2, axis=0),
            f"{first}.1",
        ]
    ),
    "constant node": with_weights(
        lambda s: [s.op("Constant", [], value=numpy_helper.from_array(floats(s, 8, 8, 3, 3)))]
    ),
    "weight normed": with_weights(
        lambda s: [s.op("Mul", [s.constant("v", floats(s, 8, 8, 3, 3)), s.constant("g", floats(s, 8, 1, 1, 1))])]
    ),
    "repeated weight": with_weights(
        lambda s: [s.op("Tile", [s.constant("w.weight", floats(s, 8, 1, 3, 3)), s.ints(1, 8, 1, 1)])]
    ),
    "chosen weight": with_weights(
        lambda s: [s.op("Where", [s.constant("c", np.array(True)), weight := shared(s), s.op("Neg", [weight])])]
    ),
    "masked weight": with_weights(
        lambda s: [s.op("Mul", [weight := shared(s), s.op("Cast", [s.op("Greater", [weight, number(s, 0)])], to=1)])]
    ),
    "weight looked up": with_weights(
        lambda s: [s.op("Gather", [shared(s), s.constant("rows", np.array([7, 1, 2, 3, 4, 5, 6, 0]))])]
    ),
    "clipped by numbers": lambda s, x: like(
        x, s.op("Clip", [x.name, s.op("Neg", [number(s, 1)]), s.op("Identity", [number(s, 6)])])
    ),
}


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("form", FORMS)
def test_a_full_architecture_is_never_larger_than_its_teacher(form: str, named: bool) -> None:
    teacher = assert_sound(network(FORMS[form], named=named))

    assert any(group.shrinkable for group in teacher.groups)


@pytest.mark.parametrize("form", FORMS)
def test_only_weights_count_as_params(form: str) -> None:
    proto = network(FORMS[form])
    stored = sum(int(np.prod(item.dims)) for item in proto.graph.initializer if item.data_type == 1 and item.dims)
    in_nodes = sum(
        int(np.prod(attribute.t.dims))
        for node in proto.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
    )

    model = Teacher(ir.from_proto(proto)).model
    held = {str(value.name): value for value in model.graph.initializers.values()}

    sizes = [
        value.const_value.size for value in held.values() if value.const_value and value.dtype == ir.DataType.FLOAT
    ]
    assert sum(sizes) <= stored + in_nodes + 8
    if form != "padded constant":  # what Pad gives is read as it is
        assert costs(model).params <= stored + in_nodes


COUNTED = FORMS | {
    "one-hot weight": with_weights(
        lambda s: [
            s.op(
                "Reshape",
                [
                    s.op(
                        "OneHot",
                        [
                            s.constant("columns", np.arange(8)),
                            s.constant("depth", np.array(72, np.int64)),
                            s.constant("off_on", np.array([0.1, 0.4], np.float32)),
                        ],
                    ),
                    s.ints(8, 8, 3, 3),
                ],
            )
        ]
    ),
}
"""`FORMS`, and one with an op that only ONNX Runtime runs."""


@pytest.mark.parametrize("form", COUNTED)
def test_a_file_counts_the_params_of_its_loaded_graph(form: str) -> None:
    model = ir.from_proto(network(COUNTED[form]))

    assert costs(model).params == costs(Teacher(model.clone()).model).params


@pytest.mark.parametrize("form", ["shared through identity", "shared transposed", "shared and transposed",
                                  "shared and reshaped"])  # fmt: skip
def test_a_shared_weight_stays_shared_and_can_shrink(form: str) -> None:
    teacher = Teacher(ir.from_proto(network(FORMS[form])))

    kernels = [value for value in teacher.model.graph.initializers.values() if value.const_value.size == 576]  # type: ignore[union-attr]
    assert len(kernels) == 2  # it, and that of the last convolution
    assert all(group.shrinkable for group in teacher.groups[1:-1])


def test_what_an_expand_repeats_is_cut_with_its_channels() -> None:
    teacher = Teacher(ir.from_proto(network(FORMS["expanded slope"])))
    (slope,) = (node.inputs[1] for node in teacher.model.graph if node.op_type == "PRelu")

    assert slope is not None
    assert slope.const_value is not None
    assert slope.const_value.size == 8
    assert group_of(teacher, str(slope.name), 1).shrinkable
