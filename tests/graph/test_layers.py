"""Layers with a Pad of their own, and the share of a teacher that can go."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from n2n_edge.graph.costs import costs
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.checking import assert_sound
from tests.graph.running import inputs_of, run
from tests.strategies import GraphBuilder, Tensor


def padded_conv(s: GraphBuilder, x: Tensor, width: int, how: str) -> Tensor:
    pads = [0, 0, 1, 1, 0, 0, 1, 1]
    match how:
        case "attribute":
            name = s.op("Pad", [x.name], mode="constant", pads=pads)
        case "reflect attribute":
            name = s.op("Pad", [x.name], mode="reflect", pads=pads)
        case "input":
            name = s.op("Pad", [x.name, s.ints(*pads)])
        case "cast input":
            name = s.op(
                "Pad", [x.name, s.op("Cast", [s.constant("p", np.array(pads, np.int32))], to=7)], mode="reflect"
            )
        case "axes":
            name = s.op("Pad", [x.name, s.ints(1, 1, 1, 1), "", s.ints(2, 3)], mode="edge")
        case "with a number":
            name = s.op("Pad", [x.name, s.ints(*pads), s.constant("fill", np.array(0.5, np.float32))])
        case _:
            name = s.op("Pad", [x.name, s.ints(*pads)], mode=how)
    weight = s.rng.normal(0, 0.2, (width, x.channels, 3, 3)).astype(np.float32)
    conv = s.op("Conv", [name, s.constant(f"conv{len(s.nodes)}.weight", weight)], kernel_shape=[3, 3])
    return s.act(Tensor(conv, width, x.size))


def padded_network(how: str, opset: int) -> onnx.ModelProto:
    s = GraphBuilder(opset, np.random.default_rng(0), batch_norm=False)
    x = s.conv(Tensor("input", 3, (8, 8)), 8)
    for width in (8, 8, 6):
        x = padded_conv(s, x, width, how)
    output = s.flatten(s.global_pool(s.conv(x, 3, act=False), "GlobalAveragePool"))
    return s.to_proto(3, 8, output, free_batch=True, batch=1)


@pytest.mark.parametrize(("how", "opset"), [
    ("attribute", 10), ("reflect attribute", 10), ("input", 13), ("reflect", 13), ("edge", 13), ("with a number", 13),
    ("cast input", 13), ("axes", 18), ("reflect", 19),
])  # fmt: skip
def test_a_pad_and_its_convolution_are_one_layer(how: str, opset: int) -> None:
    teacher = assert_sound(padded_network(how, opset))

    assert [layer.reason for layer in teacher.layers][1:-1] == ["", "", ""]
    assert [len(layer.nodes) for layer in teacher.layers] == [2, 3, 3, 3, 1]
    assert {layer.padding for layer in teacher.layers} == {(1, 1)}
    student = build(teacher, teacher.full.remove(*(layer.name for layer in teacher.layers[1:4])))
    assert "Pad" not in {node.op_type for node in student.graph}
    assert [array.shape for array in run(student, inputs_of(student, 3))] == [(3, 3)]


def test_a_pad_that_two_convolutions_read_stays_where_one_of_them_goes() -> None:
    s = GraphBuilder(13, np.random.default_rng(0), batch_norm=False)
    x = s.conv(Tensor("input", 3, (8, 8)), 8)
    padded = Tensor(s.op("Pad", [x.name, s.ints(0, 0, 1, 1, 0, 0, 1, 1)], mode="reflect"), 8, (10, 10))
    parts = []
    for _ in range(2):
        weight = s.constant(f"conv{len(s.nodes)}.weight", s.rng.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32))
        parts.append(Tensor(s.op("Conv", [padded.name, weight]), 8, x.size))
    output = s.dense(s.flatten(s.global_pool(s.add(*parts), "GlobalAveragePool")), 3)

    teacher = assert_sound(s.to_proto(3, 8, output, free_batch=True, batch=1))

    assert ["changes the size" in layer.reason for layer in teacher.layers] == [False, True, True, False]


def test_a_layer_counts_as_touchable_only_in_the_channels_that_can_go() -> None:
    """Of twelve channels of one layer ten meet what has no channels: two can go, a sixth."""
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    pictures = s.op("Concat", ["input"] * 5, axis=1)
    x = s.conv(Tensor("input", 2, (8, 8)), 12, act=False)
    held = s.op("Slice", [x.name, s.ints(0), s.ints(10), s.ints(1)])
    free = s.op("Slice", [x.name, s.ints(10), s.ints(12), s.ints(1)])
    joined = s.op("Concat", [s.op("Add", [held, pictures]), free], axis=1)
    output = s.flatten(s.global_pool(Tensor(joined, 12, x.size), "GlobalAveragePool"))
    proto = s.to_proto(2, 8, s.dense(output, 2), free_batch=True, batch=1)

    teacher = Teacher(ir.from_proto(proto))

    assert not any(layer.removable for layer in teacher.layers)
    assert teacher.touchable.params_share == pytest.approx(1 / 6)
    assert teacher.touchable.macs_share == pytest.approx(1 / 6)
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, 1)
    fall = 1 - costs(build(teacher, architecture)).params / costs(teacher.model).params
    assert fall <= teacher.touchable.params_share
