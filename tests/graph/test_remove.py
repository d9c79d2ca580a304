"""Removing layers: the same as an identity in their place, for random networks, and what happens to groups."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from n2n_edge._example import teacher_path
from n2n_edge.graph.layers import Layer
from n2n_edge.graph.load import serialize
from n2n_edge.graph.remove import RemovalConflictError
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.running import architectures, assert_same_outputs, inputs_of, run
from tests.strategies import BLOCKS, GRAPH_SETTINGS, GraphBuilder, Tensor, cnn_models


@GRAPH_SETTINGS
@given(cnn_models(), st.data())
def test_removing_layers_equals_identities_in_their_place(model: ir.Model, data: st.DataObject) -> None:
    teacher = Teacher(model)
    same_width = [layer for layer in teacher.layers if layer.removable and layer.in_channels == layer.out_channels]
    if not same_width:
        return
    removed = data.draw(st.sets(st.sampled_from(same_width), min_size=1))
    expected = with_identities(teacher.model, removed)

    student = build(teacher, teacher.full.remove(*(layer.name for layer in removed)))

    inputs = inputs_of(model, 2)
    assert_same_outputs(run(expected, inputs), run(student, inputs))
    assert len(list(student.graph)) < len(list(teacher.model.graph))


@GRAPH_SETTINGS
@given(cnn_models(blocks=["plain", "bottleneck", "separable", "fire", "grouped"], free_batch=True), st.data())
def test_removing_a_layer_that_changes_the_width_refits_its_readers(model: ir.Model, data: st.DataObject) -> None:
    teacher = Teacher(model)
    changing = [layer for layer in teacher.layers if layer.removable and layer.in_channels != layer.out_channels]
    if not changing:
        return
    layer = data.draw(st.sampled_from(changing))
    expected = with_identities(teacher.model, [layer])

    student = build(teacher, teacher.full.remove(layer.name))

    inputs = inputs_of(model, 2)
    assert_same_outputs(run(expected, inputs), run(student, inputs))


@GRAPH_SETTINGS
@given(cnn_models(max_blocks=3), st.data())
def test_a_shrunk_student_is_a_teacher_again(model: ir.Model, data: st.DataObject) -> None:
    teacher = Teacher(model)
    student = build(teacher, data.draw(architectures(teacher)))

    again = Teacher(student)

    assert serialize(student) == serialize(build(again, again.full))
    assert {layer.name for layer in again.layers} <= {layer.name for layer in teacher.layers}


@pytest.mark.parametrize("kind", ["plain", "residual", "padded", "inverted", "dense"])
def test_every_name_of_a_base_graph_is_the_teachers(kind: str) -> None:
    teacher = Teacher(one_network(kind))
    names = {group.name for group in teacher.groups}
    for layer in teacher.layers:
        if not layer.removable:
            continue
        base = teacher.base_graph(frozenset([layer.name]))
        kept = [group.name for group in base.groups]
        assert set(kept) <= names
        assert len(kept) == len(set(kept))
        assert set(base.aliases.values()) <= set(kept)
        assert all(base.aliases[name] == name for name in kept)
        assert all(layer.name not in group.layers for group in base.groups)


def test_groups_that_become_one_take_the_narrowest_width() -> None:
    teacher = Teacher(one_network("residual"))
    stem, first, second = teacher.layers[:3]
    stream, inner = group_of_output(teacher, stem), group_of_output(teacher, first)
    apart = teacher.full.resize(stream, 5).resize(inner, 3)
    joined = apart.remove(second.name)

    assert (weight_of(build(teacher, apart), stem).shape[0], weight_of(build(teacher, apart), first).shape[0]) == (5, 3)
    student = build(teacher, joined)

    assert {stream: stream, inner: stream}.items() <= teacher.base_graph(joined.removed).aliases.items()
    assert (weight_of(student, stem).shape[0], weight_of(student, first).shape[0]) == (3, 3)
    assert_same_outputs(
        run(student, inputs_of(student)), run(build(teacher, joined.resize(stream, 3)), inputs_of(student))
    )


def test_a_group_that_goes_with_its_layer_is_no_longer_there() -> None:
    teacher = Teacher(one_network("plain"))
    layer = teacher.layers[2]
    gone = group_of_output(teacher, layer)

    assert gone not in teacher.base_graph(frozenset([layer.name])).aliases
    without = teacher.full.remove(layer.name)
    assert serialize(build(teacher, without)) == serialize(build(teacher, without.resize(gone, 1)))


def test_the_width_of_a_group_that_joins_a_fixed_one_has_no_effect() -> None:
    teacher = Teacher(one_network("residual", channels=8))
    stem = teacher.layers[0]
    stream = group_of_output(teacher, stem)
    fixed = group_of_output(teacher, stem, axis=1)
    assert stem.removable

    student = build(teacher, teacher.full.remove(stem.name).resize(stream, 2))

    assert teacher.base_graph(frozenset([stem.name])).aliases[stream] == fixed

    assert teacher.model.graph.inputs[0].shape == student.graph.inputs[0].shape
    assert weight_of(student, teacher.layers[1]).shape[1] == 8


def test_a_residual_branch_without_layers_passes_the_skip_through() -> None:
    teacher = Teacher(one_network("residual"))
    inner = [layer for layer in teacher.layers if layer.removable]

    student = build(teacher, teacher.full.remove(*(layer.name for layer in inner)))

    assert "Add" not in {node.op_type for node in student.graph}
    inputs = inputs_of(teacher.model, 2)
    assert_same_outputs(run(with_identities(teacher.model, inner), inputs), run(student, inputs))


def test_no_rectifier_is_left_that_only_repeats_another() -> None:
    teacher = Teacher.load(teacher_path())
    first = next(place for place, layer in enumerate(teacher.layers) if layer.removable and layer.skip_start)
    branch = teacher.layers[first : first + 2]
    assert branch[-1].skip_end

    student = build(teacher, teacher.full.remove(*(layer.name for layer in branch)))

    rectifiers = [sum(node.op_type == "Relu" for node in model.graph) for model in (teacher.model, student)]
    assert rectifiers[1] == rectifiers[0] - 2  # the one between the layers, and the one behind their Add
    inputs = inputs_of(teacher.model, 2)
    assert_same_outputs(run(with_identities(teacher.model, branch), inputs), run(student, inputs))


def test_what_follows_an_empty_branch_is_refitted_where_the_width_before_it_changed() -> None:
    builder = GraphBuilder(13, np.random.default_rng(0))
    x = builder.conv(builder.conv(Tensor("input", 3, (8, 8)), 6), 5)
    before = builder.conv(x, 5)
    x = builder.act(builder.add(before, builder.conv(builder.conv(before, 5), 5, act=False)))
    x = builder.conv(x, 4)
    teacher = Teacher(finished(builder, builder.dense(builder.flatten(builder.global_pool(x, "GlobalAveragePool")), 3)))
    _, narrowing, *same, last, _ = teacher.layers

    student = build(teacher, teacher.full.remove(narrowing.name, *(layer.name for layer in same)))

    assert weight_of(student, last).shape[:2] == (4, 6)
    np.testing.assert_array_equal(weight_of(student, last)[:, :5], weight_of(teacher.model, last))
    assert not weight_of(student, last)[:, 5:].any()
    assert run(student, inputs_of(student, 2))[0].shape == (2, 3)


def test_an_add_of_a_value_to_itself_in_the_teacher_stays() -> None:
    builder = GraphBuilder(13, np.random.default_rng(0))
    x = builder.conv(Tensor("input", 3, (8, 8)), 8)
    x = builder.conv(builder.add(x, x), 8)
    teacher = Teacher(finished(builder, builder.dense(builder.flatten(builder.global_pool(x, "GlobalAveragePool")), 3)))
    layer = teacher.layers[1]

    student = build(teacher, teacher.full.remove(layer.name))

    assert "Add" in {node.op_type for node in student.graph}
    inputs = inputs_of(teacher.model, 1)
    assert_same_outputs(run(with_identities(teacher.model, [layer]), inputs), run(student, inputs))


def test_removals_that_leave_two_widths_are_refused_and_repaired() -> None:
    builder = GraphBuilder(13, np.random.default_rng(0))
    x = builder.conv(Tensor("input", 3, (8, 8)), 4)
    wide = builder.conv(x, 8)
    x = builder.add(builder.conv(wide, 8), builder.conv(x, 8))
    teacher = Teacher(finished(builder, builder.dense(builder.flatten(builder.global_pool(x, "GlobalAveragePool")), 3)))
    widening, after = (layer.name for layer in teacher.layers[1:3])
    both = frozenset([widening, after])

    with pytest.raises(RemovalConflictError, match=f"layer '{after}' can't be removed together with others: Add"):
        build(teacher, teacher.full.remove(*both))

    assert frozenset([widening]) == teacher.repaired(both)


def with_identities(model: ir.Model, removed: Iterable[Layer]) -> ir.Model:
    """The definition of removal: every removed layer gives its input, cut or filled with zero channels to its width.

    An Add both of whose operands come to the same value that way passes it through.
    """
    model = model.clone()
    gone = list(removed)
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    values |= {str(value.name): value for value in model.graph.inputs}
    origin = {name: name for name in values}
    doubled = {node for node in model.graph if node.op_type == "Add" and node.inputs[0] is node.inputs[1]}
    for node in list(model.graph):
        for layer in (layer for layer in gone if layer.output == node.outputs[0].name):
            same = adapted(model, node, values[layer.source], layer)
            origin[layer.output] = origin[layer.source]
            ir.convenience.replace_all_uses_with(values[layer.output], same)
            values[layer.output] = same
            origin[str(same.name)] = origin[layer.source]
        if node.op_type == "Add" and node not in doubled:
            first, second = node.inputs
            if first is not None and second is not None and origin.get(str(first.name)) == origin.get(str(second.name)):
                ir.convenience.replace_all_uses_with(node.outputs[0], first)
                origin[str(node.outputs[0].name)] = origin[str(first.name)]
                for layer in gone:  # a later layer may name the Add as its source
                    if layer.source == node.outputs[0].name:
                        values[layer.source] = first
    return model


def adapted(model: ir.Model, after: ir.Node, source: ir.Value, layer: Layer) -> ir.Value:
    """`source` with as many channels as `layer` gave."""
    assert source.shape is not None
    difference = layer.out_channels - layer.in_channels
    if difference == 0:
        return source
    rank = len(source.shape)
    if difference > 0:
        pads = [0] * (2 * rank)
        pads[rank + 1] = difference
        node = ir.node("Pad", [source, constant(model, f"{layer.name}.pads", pads)])
    else:
        bounds = [
            constant(model, f"{layer.name}.{key}", [item])
            for key, item in (("starts", 0), ("ends", layer.out_channels), ("axes", 1))
        ]
        node = ir.node("Slice", [source, *bounds])
    node.outputs[0].name = f"{layer.name}.adapted"
    model.graph.insert_after(after, node)
    return node.outputs[0]


def constant(model: ir.Model, name: str, numbers: list[int]) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.array(numbers, np.int64), name=name))
    model.graph.register_initializer(value)
    return value


def one_network(kind: str, channels: int = 3) -> ir.Model:
    """A fixed network of one kind of block between a stem of width 8 and a classifier."""
    builder = GraphBuilder(17, np.random.default_rng(1))
    x = BLOCKS[kind](builder, builder.conv(Tensor("input", channels, (8, 8)), 8), 8, 1)
    x = builder.conv(x, 6)
    return finished(builder, builder.dense(builder.flatten(builder.global_pool(x, "GlobalAveragePool")), 3), channels)


def finished(builder: GraphBuilder, output: Tensor, channels: int = 3) -> ir.Model:
    return ir.from_proto(builder.to_proto(channels, 8, output, free_batch=True, batch=1))


def group_of_output(teacher: Teacher, layer: Layer, axis: int = 0) -> str:
    return next(group.name for group in teacher.groups if (layer.weight, axis) in group.dims)


def weight_of(model: ir.Model, layer: Layer) -> np.ndarray:
    value = model.graph.initializers[layer.weight].const_value
    assert value is not None
    return value.numpy()


JOINS = {
    "Add": lambda s, x, y: s.op("Add", [x, y]),
    "Add, branch first": lambda s, x, y: s.op("Add", [y, x]),
    "Sum": lambda s, x, y: s.op("Sum", [x, y]),
    "Mean": lambda s, x, y: s.op("Mean", [x, y]),
    "Max": lambda s, x, y: s.op("Max", [x, y]),
    "Min": lambda s, x, y: s.op("Min", [y, x]),
    "Mul": lambda s, x, y: s.op("Mul", [x, y]),
    "Sub": lambda s, x, y: s.op("Sub", [x, y]),
    "Sub, branch first": lambda s, x, y: s.op("Sub", [y, x]),
    "Div": lambda s, x, y: s.op("Div", [x, y]),
}


def joined(
    join: Callable[[GraphBuilder, str, Sequence[str]], str], branches: int, kept: int = 0
) -> tuple[Teacher, list[str]]:
    """A stem, branches of two layers each whose outputs `join` joins with the stem's, and a head.

    Returns the layers of all branches but the first `kept`.
    """
    builder = GraphBuilder(13, np.random.default_rng(0), batch_norm=False)
    x = builder.conv(Tensor("input", 3, (8, 8)), 8)
    ends = [builder.conv(builder.conv(x, 8), 8, act=False).name for _ in range(branches)]
    y = builder.conv(Tensor(join(builder, x.name, ends), 8, x.size), 8)
    teacher = Teacher(finished(builder, builder.dense(builder.flatten(builder.global_pool(y, "GlobalAveragePool")), 3)))
    return teacher, [layer.name for layer in teacher.layers[1 + 2 * kept : 1 + 2 * branches]]


def block_left_out(teacher: Teacher) -> list[np.ndarray]:
    """Outputs of the teacher where its last block reads the stem."""
    model = teacher.model.clone()
    nodes = list(model.graph)
    stem = next(node for node in nodes if node.op_type == "Relu").outputs[0]
    last = [node for node in nodes if node.op_type == "Conv"][-1]
    last.replace_input_with(0, stem)
    return run(model, inputs_of(teacher.model, 2))


@pytest.mark.parametrize("join", JOINS)
def test_a_branch_without_layers_passes_the_skip_once_however_it_is_joined(join: str) -> None:
    teacher, branch = joined(lambda s, x, ends: JOINS[join](s, x, ends[0]), 1)

    student = build(teacher, teacher.full.remove(*branch))

    assert_same_outputs(block_left_out(teacher), run(student, inputs_of(teacher.model, 2)))


SUMS = {
    "one Sum": lambda s, x, y: s.op("Sum", [x, *y]),
    "one Sum, skip last": lambda s, x, y: s.op("Sum", [*y, x]),
    "skip first": lambda s, x, y: s.op("Add", [s.op("Add", [x, y[0]]), y[1]]),
    "branches first": lambda s, x, y: s.op("Add", [x, s.op("Add", [y[0], y[1]])]),
    "branches first, skip last": lambda s, x, y: s.op("Add", [s.op("Sum", [y[0], y[1]]), x]),
    "skip in the middle": lambda s, x, y: s.op("Add", [y[1], s.op("Sum", [y[0], x])]),
}


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("form", SUMS)
def test_sums_of_several_branches_hold_the_skip_once(form: str, kept: int) -> None:
    teacher, gone = joined(SUMS[form], 2, kept)
    inputs = inputs_of(teacher.model, 2)

    student = build(teacher, teacher.full.remove(*gone))

    if kept:
        model = teacher.model.clone()
        value = next(node for node in model.graph if node.name == teacher.layers[4].nodes[-1]).outputs[0]
        zero = ir.Value(name="zero", const_value=ir.tensor(np.zeros((1, 1, 1, 1), np.float32)))
        model.graph.register_initializer(zero)
        ir.convenience.replace_all_uses_with(value, zero)
        expected = run(model, inputs)
    else:
        expected = block_left_out(teacher)
    assert_same_outputs(expected, run(student, inputs))


def test_a_join_that_is_the_graph_output_passes_the_skip_once() -> None:
    builder = GraphBuilder(13, np.random.default_rng(0), batch_norm=False)
    x = builder.conv(Tensor("input", 3, (8, 8)), 4)
    proto = builder.to_proto(3, 8, builder.add(x, builder.conv(x, 4, act=False)), free_batch=True, batch=1)
    del proto.graph.node[-1]
    proto.graph.node[-1].output[0] = "logits"
    teacher = Teacher(ir.from_proto(proto))
    branch = teacher.layers[1]
    assert branch.removable

    student = build(teacher, teacher.full.remove(branch.name))

    inputs = inputs_of(teacher.model, 2)
    stem = teacher.model.clone()
    stem.graph.outputs[:] = [next(node for node in stem.graph if node.op_type == "Relu").outputs[0]]
    assert_same_outputs(run(stem, inputs), run(student, inputs))


def test_what_was_added_to_itself_stays_so_when_a_branch_between_goes() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "head": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "branch": rng.standard_normal((4, 4, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "head"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["a", "branch"], ["f"], pads=[1] * 4),
        helper.make_node("Add", ["a", "f"], ["inner"]),
        helper.make_node("Add", ["inner", "a"], ["outer"]),
        helper.make_node("Sigmoid", ["outer"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    teacher = Teacher(ir.from_proto(proto))

    student = build(teacher, teacher.full.remove("branch"))

    assert [node.op_type for node in student.graph] == ["Conv", "Add", "Sigmoid"]
    joined = student.graph[1]
    assert joined.inputs[0] is joined.inputs[1] is student.graph[0].outputs[0]
