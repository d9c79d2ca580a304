"""Enlarging to the size of another value leaves channels free, however the sizes are spelled."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from n2n_edge.graph.teacher import Teacher
from tests.graph.checking import assert_sound
from tests.strategies import GraphBuilder, Tensor

Sizes = Callable[[GraphBuilder, Tensor, Tensor], str]
"""``sizes(builder, small, large)`` gives the sizes to which `small` is enlarged: those of `large`, but for channels."""


def taken(s: GraphBuilder, x: Tensor, start: int, end: int) -> str:
    return s.op("Slice", [s.op("Shape", [x.name]), s.ints(start), s.ints(end), s.ints(0)])


def gathered(s: GraphBuilder, x: Tensor, *axes: int) -> list[str]:
    """One axis after the other, as TorchScript exports ``y.shape[2]``."""
    sizes = [
        s.op("Gather", [s.op("Shape", [x.name]), s.constant("i", np.array(axis, np.int64))], axis=0) for axis in axes
    ]
    return [s.op("Unsqueeze", [size, s.ints(0)]) for size in sizes]


def joined(s: GraphBuilder, *parts: str) -> str:
    return s.op("Concat", list(parts), axis=0)


def cast(s: GraphBuilder, name: str) -> str:
    return s.op("Cast", [s.op("Cast", [name], to=1)], to=7)


SPELLINGS: dict[str, Sizes] = {
    "own batch and channels, other's rows": lambda s, x, y: joined(s, taken(s, x, 0, 2), taken(s, y, 2, 4)),
    "numbers for rows": lambda s, x, y: joined(s, taken(s, x, 0, 2), s.ints(*y.size)),
    "gathered": lambda s, x, y: joined(s, *gathered(s, x, 0, 1), *gathered(s, y, 2, 3)),
    "gathered together": lambda s, x, y: joined(
        s,
        s.op("Gather", [s.op("Shape", [x.name]), s.ints(0, 1)]),
        s.op("Gather", [s.op("Shape", [y.name]), s.ints(2, 3)]),
    ),
    "cast": lambda s, x, y: joined(s, taken(s, x, 0, 2), cast(s, taken(s, y, 2, 4))),
    "batch alone": lambda s, x, y: joined(s, taken(s, x, 0, 1), s.ints(x.channels), taken(s, y, 2, 4)),
    "the other's batch": lambda s, x, y: joined(s, taken(s, y, 0, 1), taken(s, x, 1, 2), taken(s, y, 2, 4)),
    "all of the other": lambda s, x, y: s.op("Shape", [y.name]),
    "from the end": lambda s, x, y: joined(s, taken(s, x, 0, -2), taken(s, y, -2, 2**31)),
    "attributes of Shape": lambda s, x, y: joined(s, s.op("Shape", [x.name], end=2), s.op("Shape", [y.name], start=2)),
    "product": lambda s, x, y: joined(
        s,
        taken(s, x, 0, 2),
        s.op("Mul", [taken(s, x, 2, 4), s.ints(*(b // a for a, b in zip(x.size, y.size, strict=True)))]),
    ),
}


def pyramid(sizes: Sizes, opset: int, mode: str = "nearest", edge: int = 16) -> onnx.ModelProto:
    """A small FPN: the deep map is enlarged to the size of the one before and added to it."""
    s = GraphBuilder(opset, np.random.default_rng(0), batch_norm=False)
    large = s.conv(s.conv(Tensor("input", 3, (edge, edge)), 8), 10)
    small = s.conv(s.conv(large, 12, stride=2), 10)
    empty = s.constant("empty", np.zeros(0, np.float32))
    transform = "asymmetric" if mode == "nearest" else "half_pixel"
    name = s.op(
        "Resize", [small.name, empty, "", sizes(s, small, large)], mode=mode, nearest_mode="floor",
        coordinate_transformation_mode=transform,
    )  # fmt: skip
    x = s.conv(s.add(large, Tensor(name, 10, large.size)), 8)
    output = s.dense(s.flatten(s.global_pool(x, "GlobalAveragePool")), 3)
    return s.to_proto(3, edge, output, free_batch=True, batch=1)


@pytest.mark.parametrize("opset", [13, 19])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_enlarged_to_another_value_can_shrink(spelling: str, opset: int) -> None:
    if opset < 15 and "attributes" in spelling:
        pytest.skip("Shape has no attributes before opset 15")

    teacher = assert_sound(pyramid(SPELLINGS[spelling], opset))

    assert all(group.shrinkable for group in teacher.groups[1:-1])
    assert not isinstance(teacher.model.graph.inputs[0].shape[0], int)  # type: ignore[index]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("edge", [7, 10, 13])
@pytest.mark.parametrize("opset", [18])
def test_sizes_that_no_scale_gives_exactly(opset: int, edge: int, mode: str) -> None:
    teacher = assert_sound(pyramid(SPELLINGS["own batch and channels, other's rows"], opset, mode, edge))

    assert all(group.shrinkable for group in teacher.groups[1:-1])


@pytest.mark.parametrize("axes", [(1, 2, 3), (-3, -2, -1), (3, 1, 2), (2, 3), (1, 3)])
@pytest.mark.parametrize("free_batch", [True, False])
def test_sizes_that_name_the_channels(axes: tuple[int, ...], *, free_batch: bool) -> None:
    proto = enlarged(18, axes, free_batch=free_batch)

    teacher = assert_sound(proto)

    assert all(group.shrinkable for group in teacher.groups[1:-1])


@pytest.mark.parametrize("opset", [13, 18, 19])
def test_sizes_of_all_axes_of_one_image(opset: int) -> None:
    teacher = assert_sound(enlarged(opset, (), free_batch=False))

    assert all(group.shrinkable for group in teacher.groups[1:-1])
    assert not isinstance(teacher.model.graph.inputs[0].shape[0], int)  # type: ignore[index]


def enlarged(opset: int, axes: tuple[int, ...], *, free_batch: bool) -> onnx.ModelProto:
    """A map that is resized to constant sizes along `axes` (none: all) and added to itself."""
    s = GraphBuilder(opset, np.random.default_rng(0), batch_norm=False)
    x = s.conv(s.conv(Tensor("input", 3, (16, 16)), 8), 10)
    sizes = s.ints(*((1, 10, 16, 16)[axis] for axis in axes or range(4)))
    more = {"axes": list(axes)} if axes else {}
    name = s.op("Resize", [x.name, s.constant("empty", np.zeros(0, np.float32)), "", sizes], mode="nearest", **more)
    x = s.conv(s.add(x, Tensor(name, 10, x.size)), 8)
    output = s.dense(s.flatten(s.global_pool(x, "GlobalAveragePool")), 3)
    return s.to_proto(3, 16, output, free_batch=free_batch, batch=1)


def test_scales_worked_out_from_two_shapes() -> None:
    def resized(s: GraphBuilder, x: Tensor, y: Tensor) -> str:
        large, small = (s.op("Cast", [taken(s, value, 2, 4)], to=1) for value in (y, x))
        ones = s.constant("ones", np.ones(2, np.float32))
        return joined(s, ones, s.op("Div", [large, small]))

    proto = pyramid(resized, 17)
    resize = next(node for node in proto.graph.node if node.op_type == "Resize")
    resize.input[2], resize.input[3] = resize.input[3], ""

    teacher = assert_sound(proto)

    assert all(group.shrinkable for group in teacher.groups[1:-1])


@pytest.mark.parametrize("opset", [9, 8])
def test_upsample(opset: int) -> None:
    s = GraphBuilder(opset, np.random.default_rng(0), batch_norm=False)
    large = s.conv(Tensor("input", 3, (8, 8)), 10)
    small = s.conv(large, 10, stride=2)
    if opset == 9:
        name = s.op("Upsample", [small.name, s.constant("scales", np.array([1, 1, 2, 2], np.float32))])
    else:
        name = s.op("Upsample", [small.name], scales=[1.0, 1.0, 2.0, 2.0])
    x = s.conv(s.add(large, Tensor(name, 10, large.size)), 3)
    proto = s.to_proto(3, 8, Tensor(s.op("GlobalAveragePool", [x.name]), 3, (1, 1)), free_batch=True, batch=1)

    teacher = assert_sound(proto)

    assert all(group.shrinkable for group in teacher.groups[1:-1])


def test_expanding_to_the_shape_of_another_value() -> None:
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x = s.conv(Tensor("input", 3, (8, 8)), 8)
    gate = s.op("Sigmoid", [s.conv(s.global_pool(x, "GlobalAveragePool"), 8, kernel=1, act=False).name])
    expanded = s.op("Expand", [gate, s.op("Shape", [x.name])])
    x = s.conv(Tensor(s.op("Mul", [x.name, expanded]), 8, x.size), 8)
    output = s.dense(s.flatten(s.global_pool(x, "GlobalAveragePool")), 3)

    teacher = assert_sound(s.to_proto(3, 8, output, free_batch=True, batch=1))

    assert all(group.shrinkable for group in teacher.groups[1:-1])


def test_a_number_of_channels_that_something_calculates_with_stays() -> None:
    """Channels that are counted at run time, because the batch is in the same product, can't change."""
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x = s.conv(Tensor("input", 3, (8, 8)), 8)
    count = s.op("ReduceProd", [taken(s, x, 0, 2)], keepdims=0)
    scaled = s.op("Div", [x.name, s.op("Cast", [count], to=1)])
    output = s.dense(s.flatten(s.global_pool(Tensor(scaled, 8, x.size), "GlobalAveragePool")), 3)
    proto = s.to_proto(3, 8, output, free_batch=True, batch=1)

    teacher = Teacher(ir.from_proto(proto))

    assert "tells their number" in teacher.groups[1].reason
