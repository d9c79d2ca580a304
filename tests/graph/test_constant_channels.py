"""Constant channels are channels: what they are joined with can shrink, and so can they."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from n2n_edge.graph.teacher import Teacher, build
from tests.graph.checking import assert_sound, group_of, halved
from tests.graph.running import has_free_batch, inputs_of, run
from tests.strategies import GraphBuilder, Tensor

Pad = Callable[[GraphBuilder, Tensor, int], str]
"""``pad(builder, x, count)`` gives `x` with `count` constant channels more."""


def filled(s: GraphBuilder, x: Tensor, count: int, value: float = 0) -> str:
    fill = numpy_helper.from_array(np.array([value], np.float32))
    return s.op("ConstantOfShape", [s.ints(1, count, *x.size)], value=fill)


def stored(s: GraphBuilder, x: Tensor, count: int, value: float = 0) -> str:
    return s.constant("fill", np.full((1, count, *x.size), value, np.float32))


def expanded(s: GraphBuilder, x: Tensor, count: int) -> str:
    vector = s.constant("vector", s.rng.normal(0, 1, (1, count, 1, 1)).astype(np.float32))
    return s.op("Expand", [vector, s.ints(1, count, *x.size)])


def joined(s: GraphBuilder, *names: str) -> str:
    return s.op("Concat", list(names), axis=1)


def of_the_batch(s: GraphBuilder, x: Tensor, count: int, value: float = 0.0) -> str:
    """Zeros made for every image."""
    batch = s.op("Slice", [s.op("Shape", [x.name]), s.ints(0), s.ints(1)])
    shape = s.op("Concat", [batch, s.ints(count, *x.size)], axis=0)
    return s.op("ConstantOfShape", [shape], value=numpy_helper.from_array(np.array([value], np.float32)))


def padded(s: GraphBuilder, x: Tensor, before: int, after: int, value: float = 0.0) -> str:
    fill = [s.constant("fill", np.array(value, np.float32))] if value else []
    return s.op("Pad", [x.name, s.ints(0, before, 0, 0, 0, after, 0, 0), *fill])


PADDINGS: dict[str, Pad] = {
    "ConstantOfShape last": lambda s, x, n: joined(s, x.name, filled(s, x, n)),
    "ConstantOfShape first": lambda s, x, n: joined(s, filled(s, x, n), x.name),
    "ConstantOfShape on both sides": lambda s, x, n: joined(s, filled(s, x, n // 2), x.name, filled(s, x, n - n // 2)),
    "two numbers": lambda s, x, n: joined(s, filled(s, x, n // 2, 1.5), x.name, filled(s, x, n - n // 2, -0.5)),
    "two numbers on one side": lambda s, x, n: joined(s, x.name, filled(s, x, n // 2, 1), filled(s, x, n - n // 2, 2)),
    "initializer": lambda s, x, n: joined(s, x.name, stored(s, x, n)),
    "initializer of ones": lambda s, x, n: joined(s, stored(s, x, n, 1), x.name),
    "expanded zero": lambda s, x, n: joined(
        s, x.name, s.op("Expand", [s.constant("zero", np.zeros((1, 1, 1, 1), np.float32)), s.ints(1, n, *x.size)])
    ),
    "expanded vector": lambda s, x, n: joined(s, x.name, expanded(s, x, n)),
    "vector first": lambda s, x, n: joined(s, expanded(s, x, n), x.name),
    "map": lambda s, x, n: joined(
        s, s.constant("map", s.rng.normal(0, 1, (1, n, *x.size)).astype(np.float32)), x.name
    ),
    "zeros for every image": lambda s, x, n: joined(s, x.name, of_the_batch(s, x, n)),
    "ones for every image": lambda s, x, n: joined(s, of_the_batch(s, x, n, 1.0), x.name),
    "Pad": lambda s, x, n: padded(s, x, 0, n),
    "Pad first": lambda s, x, n: padded(s, x, n, 0),
    "Pad with a number": lambda s, x, n: padded(s, x, n // 2, n - n // 2, 0.7),
}  # fmt: skip


def network(pad: Pad, opset: int = 13) -> onnx.ModelProto:
    """Two stages, the second one's pooled shortcut padded as MediaPipe's networks do."""
    s = GraphBuilder(opset, np.random.default_rng(0), batch_norm=False)
    x = s.conv(Tensor("input", 3, (16, 16)), 8)
    for width in (12, 16):
        inner = s.conv(s.conv(x, width, stride=2), width, act=False)
        pooled = s.pool(x)
        name = pad(s, pooled, width - x.channels)
        x = s.act(s.add(inner, Tensor(name, width, pooled.size)))
    output = s.flatten(s.global_pool(s.conv(x, 3, kernel=1, act=False), "GlobalAveragePool"))
    return s.to_proto(3, 16, output, free_batch=False, batch=1)


OTHER_OPSETS = [("ConstantOfShape last", 10), ("expanded zero", 10), ("zeros for every image", 18), ("Pad", 18)]


@pytest.mark.parametrize(("name", "opset"), [*((name, 13) for name in PADDINGS), *OTHER_OPSETS])
def test_every_stage_shrinks_behind_a_padded_shortcut(name: str, opset: int) -> None:
    teacher = assert_sound(network(PADDINGS[name], opset), batches=(1,))

    stages = [group for group in teacher.groups if group.shrinkable]
    reasons = [group.reason for group in teacher.groups if group not in stages]
    assert reasons == ["graph input 'input'", "graph output 'logits'"]
    student = build(teacher, halved(teacher))
    assert run(student, inputs_of(student, 3))[0].shape == (3 if has_free_batch(student) else 1, 3)


@pytest.mark.parametrize("name", [name for name in PADDINGS if name.startswith(("Const", "init", "zeros", "two"))])
def test_padding_made_for_one_image_serves_every_batch(name: str) -> None:
    teacher = Teacher(ir.from_proto(network(PADDINGS[name])))

    assert not isinstance(teacher.model.graph.inputs[0].shape[0], int)  # type: ignore[index]
    assert "Concat" not in {node.op_type for node in teacher.model.graph}


def planes(s: GraphBuilder, x: Tensor) -> str:
    """Coordinates of every position: two channels that nothing labels."""
    rows = np.broadcast_to(np.linspace(-1, 1, x.size[0], dtype=np.float32)[:, None], x.size)
    return s.constant("planes", np.stack([rows, rows.T])[None])


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("where", ["first", "last", "middle", "picture"])
def test_depth_to_space_of_channels_some_of_which_carry_no_label(where: str, mode: str) -> None:
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x, y = (s.conv(Tensor("input", 1, (8, 8)), 7) for _ in range(2))
    others = [planes(s, x)] if where != "picture" else ["input", "input"]
    order = {"first": [*others, x.name, y.name], "last": [x.name, y.name, *others]}
    name = joined(s, *order.get(where, [x.name, *others, y.name]))
    up = Tensor(s.op("DepthToSpace", [name], blocksize=2, mode=mode), 4, (16, 16))
    output = s.dense(s.flatten(s.global_pool(s.conv(up, 6), "GlobalAveragePool")), 3)

    assert_sound(s.to_proto(1, 8, output, free_batch=where == "picture", batch=1), batches=(1,))


@pytest.mark.parametrize("op_type", ["SpaceToDepth", "Split", "Transpose", "Slice", "Gather"])
def test_other_moves_of_channels_some_of_which_carry_no_label(op_type: str) -> None:
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x = s.conv(Tensor("input", 1, (8, 8)), 7)
    name = joined(s, x.name, "input")
    match op_type:
        case "SpaceToDepth":
            moved = Tensor(s.op("SpaceToDepth", [name], blocksize=2), 32, (4, 4))
        case "Split":
            moved = Tensor(
                s.op("Add", [part := s.op("Split", [name, s.ints(4, 4)], 2, axis=1), f"{part}.1"]), 4, (8, 8)
            )
        case "Transpose":
            moved = s.shuffle(Tensor(name, 8, (8, 8)), 2)
        case "Slice":
            moved = Tensor(s.op("Slice", [name, s.ints(1), s.ints(8), s.ints(1), s.ints(3)]), 3, (8, 8))
        case _:
            moved = Tensor(s.op("Gather", [name, s.ints(7, 0, 3)], axis=1), 3, (8, 8))
    output = s.dense(s.flatten(s.global_pool(s.conv(moved, 6), "GlobalAveragePool")), 3)

    assert_sound(s.to_proto(1, 8, output, free_batch=True, batch=1))


def test_a_constant_part_shrinks_by_itself_where_only_a_convolution_reads_it() -> None:
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x = s.conv(Tensor("input", 3, (8, 8)), 8)
    y = s.conv(Tensor(joined(s, x.name, expanded(s, x, 4)), 12, x.size), 6)
    output = s.dense(s.flatten(s.global_pool(y, "GlobalAveragePool")), 3)
    proto = s.to_proto(3, 8, output, free_batch=False, batch=1)
    vector = next(item.name for item in proto.graph.initializer if item.name.startswith("vector"))

    teacher = assert_sound(proto, batches=(1,))

    constant = group_of(teacher, vector, 1)
    assert (constant.shrinkable, constant.width) == (True, 4)
