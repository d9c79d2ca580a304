"""Channel groups of known networks: what is tied, what is fixed and why, and that names don't change between runs."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.graph.groups import ChannelGroup
from n2n_edge.graph.load import serialize
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.running import inputs_of, run
from tests.strategies import BLOCKS, GraphBuilder, Tensor


def teacher_of(builder: GraphBuilder, x: Tensor) -> Teacher:
    output = builder.dense(builder.flatten(builder.global_pool(x, "GlobalAveragePool")), 3)
    return Teacher(ir.from_proto(builder.to_proto(3, 8, output, free_batch=True, batch=1)))


def of(teacher: Teacher, layer: int, axis: int = 0) -> ChannelGroup:
    return next(group for group in teacher.groups if (teacher.layers[layer].weight, axis) in group.dims)


@pytest.mark.parametrize("name", ["resnet20_jpeg", "resnet56_jpeg"])
def test_the_padded_stream_of_a_real_resnet_falls_out_as_three_groups(teachers: Path, name: str) -> None:
    teacher = Teacher.load(teachers / f"{name}.onnx")
    blocks = (len(teacher.layers) - 2) // 6

    streams = [group for group in teacher.groups if len(group.layers) > 2 and group.shrinkable]
    inner = [group for group in teacher.groups if len(group.layers) == 2 and group.shrinkable]

    # 16 channels run through all three stages; the first Pad adds 16 (8 on either side), the second one 32
    assert [group.width for group in streams] == [16, 16, 32]
    assert [16] * blocks + [32] * blocks + [64] * blocks == [group.width for group in inner]
    assert {1} == {int(group.name[1:]) - index for index, group in enumerate(teacher.groups[1:])}
    assert len(streams[0].layers) > len(streams[1].layers) > len(streams[2].layers)
    again = Teacher.load(teachers / f"{name}.onnx")
    assert teacher.groups == again.groups
    assert teacher.layers == again.layers


def test_the_padded_stream_shrinks_in_a_real_resnet(teachers: Path) -> None:
    teacher = Teacher.load(teachers / "resnet20_jpeg.onnx")
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, group.width * 3 // 4)

    student = build(teacher, architecture)

    assert [array.shape for array in run(student, inputs_of(student, 3))] == [(3, 10)]


@pytest.mark.parametrize("path", ["mlperftiny_ic_resnet8_fp32", "mlperftiny_vww_mbv1_025_fp32", "yunet_n_320_320"])
def test_real_exports_of_other_tools_shrink(shared_data: Path, path: str) -> None:
    teacher = Teacher.load(shared_data / "models" / f"{path}.onnx")
    inputs = inputs_of(teacher.model, 1)
    full = run(build(teacher, teacher.full), inputs)
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, max(1, group.width // 2))

    student = build(teacher, architecture)

    assert [array.tobytes() for array in run(teacher.source, inputs)] == [array.tobytes() for array in full]
    assert [array.shape for array in full] == [array.shape for array in run(student, inputs)]
    assert len(serialize(student)) < 0.6 * len(serialize(teacher.model))


def test_a_residual_stream_is_one_group_and_inner_widths_are_their_own() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    x = builder.conv(Tensor("input", 3, (8, 8)), 8)
    teacher = teacher_of(builder, BLOCKS["residual"](builder, BLOCKS["residual"](builder, x, 8, 1), 8, 1))

    assert of(teacher, 0) == of(teacher, 2) == of(teacher, 4)
    assert len({of(teacher, layer).name for layer in (0, 1, 3)}) == 3
    assert of(teacher, 0).layers[:5] == ("conv0", "conv3", "conv6", "conv10", "conv13")


def test_a_padded_shortcut_gives_old_channels_and_new_ones() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    teacher = teacher_of(builder, BLOCKS["padded"](builder, builder.conv(Tensor("input", 3, (8, 8)), 4), 10, 2))

    widths = {group.width for group in teacher.groups if (teacher.layers[2].weight, 0) in group.dims}

    assert widths == {4, 6}


def test_a_gate_is_tied_to_what_it_gates_but_its_inner_width_is_free() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    teacher = teacher_of(builder, BLOCKS["gated"](builder, builder.conv(Tensor("input", 3, (8, 8)), 4), 8, 1))
    gated, squeeze, excite = 1, 2, 3

    assert of(teacher, gated) == of(teacher, excite) == of(teacher, squeeze, axis=1)
    assert of(teacher, squeeze).width == 4
    assert of(teacher, squeeze).shrinkable


def test_parts_of_a_concat_are_groups_of_their_own() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    teacher = teacher_of(builder, BLOCKS["fire"](builder, builder.conv(Tensor("input", 3, (8, 8)), 4), 5, 1))

    assert [of(teacher, layer).width for layer in (2, 3)] == [5, 5]
    assert of(teacher, 2) != of(teacher, 3)


def test_groups_of_a_convolution_lose_channels_evenly() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    teacher = teacher_of(builder, BLOCKS["grouped"](builder, builder.conv(Tensor("input", 3, (8, 8)), 4), 8, 1))
    grouped = teacher.layers[2]
    assert grouped.groups == 2

    student = build(teacher, teacher.full.resize(of(teacher, 1).name, 3).resize(of(teacher, 2).name, 1))

    weight = student.graph.initializers[grouped.weight].shape
    assert tuple(weight or ()) == (2, 3, 3, 3)


def test_halves_of_a_split_shrink_apart_so_that_none_becomes_empty() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    x = builder.conv(Tensor("input", 3, (8, 8)), 8)
    first, second = builder.split(x)
    pooled = [builder.op("MaxPool", [part.name], kernel_shape=[1, 1]) for part in (second, first)]
    teacher = teacher_of(builder, builder.conv(builder.concat(*(Tensor(name, 4, x.size) for name in pooled)), 8))

    halves = [group for group in teacher.groups if (teacher.layers[0].weight, 0) in group.dims]

    assert [group.width for group in halves] == [4, 4]
    student = build(teacher, teacher.full.resize(halves[0].name, 1).resize(halves[1].name, 3))
    assert [array.shape for array in run(student, inputs_of(student, 2))] == [(2, 3)]


def test_what_is_fixed_says_why() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    teacher = teacher_of(builder, builder.conv(Tensor("input", 3, (8, 8)), 4))

    assert [group.reason for group in teacher.groups] == ["graph input 'input'", "", "graph output 'logits'"]
    assert [layer.reason for layer in teacher.layers[-1:]] == ["gives the graph output 'logits'"]


def test_the_most_important_channels_stay() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x = builder.conv(builder.conv(Tensor("input", 3, (8, 8)), 6), 4)
    teacher = teacher_of(builder, x)
    weights = teacher.model.graph.initializers
    inputs = inputs_of(teacher.model, 1)
    for name, factor in (("conv0.weight", 10.0), ("conv2.weight", 10.0)):
        value = weights[name]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        np.moveaxis(array, 0 if name == "conv0.weight" else 1, 0)[[1, 4]] *= factor
        value.const_value = ir.tensor(array, name=name)
    teacher = Teacher(teacher.model)
    group = of(teacher, 0)

    student = build(teacher, teacher.full.resize(group.name, 2))

    chosen = build(teacher, teacher.full, keep={group.name: (1, 4)})
    assert run(chosen, inputs)[0].tobytes() == run(student, inputs)[0].tobytes()


def test_self_attention_ties_query_and_key_and_leaves_the_values_in_the_stream() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    teacher = teacher_of(builder, BLOCKS["attention"](builder, builder.conv(Tensor("input", 3, (8, 8)), 6), 4, 1))
    stem, query, key, value = range(4)

    assert of(teacher, query) == of(teacher, key)
    assert of(teacher, query).shrinkable
    assert of(teacher, value) == of(teacher, stem)
    assert of(teacher, stem).shrinkable


def test_the_heads_of_an_attention_can_go_and_its_width_stays() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    teacher = teacher_of(builder, BLOCKS["many_heads"](builder, builder.conv(Tensor("input", 3, (8, 8)), 6), 3, 1))

    mixing = next(layer for layer in teacher.layers if layer.op_type == "MatMul")
    heads = next(group for group in teacher.groups if (mixing.weight, 1) in group.dims)
    assert (heads.width, heads.reason) == (3, "")
    student = build(teacher, teacher.full.resize(heads.name, 1))
    assert run(student, inputs_of(student))[0].shape == run(teacher.model, inputs_of(student))[0].shape


def test_a_convnext_block_shrinks_inside_and_says_why_not_outside() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    teacher = teacher_of(builder, BLOCKS["convnext"](builder, builder.conv(Tensor("input", 3, (8, 8)), 6), 4, 1))

    first = next(layer for layer in teacher.layers if layer.op_type == "MatMul")
    inside = next(group for group in teacher.groups if (first.weight, 1) in group.dims)
    outside = next(group for group in teacher.groups if (first.weight, 0) in group.dims)
    assert (inside.width, inside.reason) == (8, "")
    assert "LayerNormalization" in outside.reason
    assert "averages over these channels" in outside.reason


def test_channels_of_stacked_branches_are_tied_where_they_are_averaged() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    x = builder.conv(Tensor("input", 3, (8, 8)), 4)
    branches = [builder.op("Unsqueeze", [builder.conv(x, 6).name, builder.ints(0)]) for _ in range(2)]
    mean = builder.op("ReduceMean", [builder.op("Concat", branches, axis=0)], axes=[0], keepdims=0)
    teacher = teacher_of(builder, Tensor(mean, 6, (8, 8)))

    assert of(teacher, 1) == of(teacher, 2)
    assert (of(teacher, 1).width, of(teacher, 1).reason) == (6, "")
    student = build(teacher, teacher.full.resize(of(teacher, 1).name, 2))
    assert run(student, inputs_of(student, 2))[0].shape == (2, 3)


def test_asking_for_the_batch_leaves_channels_alone() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    x = builder.conv(builder.conv(Tensor("input", 3, (8, 8)), 6), 6)
    batch = builder.op("Gather", [builder.op("Shape", [x.name]), builder.ints(0)], axis=0)
    scaled = Tensor(builder.op("Mul", [x.name, builder.op("Cast", [batch], to=1)]), 6, (8, 8))
    teacher = teacher_of(builder, scaled)

    assert "Shape" in {node.op_type for node in teacher.model.graph}
    assert (of(teacher, 1).width, of(teacher, 1).reason) == (6, "")
    student = build(teacher, teacher.full.resize(of(teacher, 1).name, 2))
    assert run(student, inputs_of(student, 2))[0].shape == (2, 3)
