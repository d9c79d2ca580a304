"""What `build()` gives, for random networks: the teacher itself, exact cuts, and models that run."""

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import serialize
from n2n_edge.graph.shape_run import run_graph
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.dead import with_dead_channels
from tests.graph.running import architectures, assert_same_outputs, has_free_batch, inputs_of, run
from tests.strategies import GRAPH_SETTINGS, cnn_models


@GRAPH_SETTINGS
@given(cnn_models())
def test_the_full_architecture_is_the_teacher_bit_for_bit(model: ir.Model) -> None:
    teacher = Teacher(model)

    student = build(teacher, teacher.full)

    for batch in (1, 3):
        inputs = inputs_of(model, batch)
        expected, actual = run(model, inputs), run(student, inputs)
        assert [array.tobytes() for array in expected] == [array.tobytes() for array in actual]


@GRAPH_SETTINGS
@given(cnn_models(), st.data())
def test_shrinking_dead_channels_away_changes_nothing(model: ir.Model, data: st.DataObject) -> None:
    alive = Teacher(model)
    keep = {}
    dead: list[int] = []
    for group in alive.groups:
        if group.shrinkable:
            some = st.sets(st.integers(0, group.width - 1), min_size=1)
            keep[group.name] = tuple(sorted(data.draw(some, label=group.name)))
            dead += [unit for index, unit in enumerate(group.units) if index not in keep[group.name]]
    teacher = Teacher(with_dead_channels(alive, dead))
    inputs = inputs_of(model, 2)

    student = build(teacher, teacher.full, keep=keep)

    assert_same_outputs(run(teacher.model, inputs), run(student, inputs))
    assert (costs(student).params < costs(teacher.model).params) == bool(dead)


@GRAPH_SETTINGS
@given(cnn_models(), st.data())
def test_any_architecture_is_a_valid_model_with_the_shapes_it_notes(model: ir.Model, data: st.DataObject) -> None:
    teacher = Teacher(model)
    architecture = data.draw(architectures(teacher))

    student = build(teacher, architecture)

    onnx.checker.check_model(onnx.ModelProto.FromString(serialize(student)), full_check=True)
    for batch in (1, 3) if has_free_batch(model) else (1,):
        inputs = inputs_of(model, batch)
        assert [array.shape for array in run(model, inputs)] == [array.shape for array in run(student, inputs)]
        real = {name: array.shape for name, array in run_graph(student, inputs).items()}
        noted = {
            str(value.name): tuple(noted_size(size, batch) for size in value.shape or ())
            for node in student.graph
            for value in node.outputs
            if value.name
        }
        assert real == noted
    removed = [layer for layer in teacher.layers if layer.name in architecture.removed]
    if any(layer.in_channels != layer.out_channels for layer in removed):
        return  # readers take the wider input, which may cost more
    before, after = costs(teacher.model), costs(student)
    assert after.params <= before.params
    assert after.macs <= before.macs
    assert after.memory_bound_bytes <= before.memory_bound_bytes
    if architecture != teacher.full:
        assert (after.params, after.macs) != (before.params, before.macs)


@GRAPH_SETTINGS
@given(cnn_models(), st.data())
def test_widths_are_as_asked_and_weights_are_the_teachers(model: ir.Model, data: st.DataObject) -> None:
    teacher = Teacher(model)
    groups = [group for group in teacher.groups if group.shrinkable]
    if not groups:
        return
    group = data.draw(st.sampled_from(groups))
    kept = sorted(data.draw(st.sets(st.integers(0, group.width - 1), min_size=1)))

    student = build(teacher, teacher.full, keep={group.name: kept})

    again = {item.dims: item.width for item in Teacher(student).groups}
    assert len(kept) == again.get(group.dims, len(kept))
    full = teacher.model.graph.initializers
    for name, value in student.graph.initializers.items():
        if name in full and value.dtype == ir.DataType.FLOAT:
            assert set(array_of(value).ravel()) <= set(array_of(full[name]).ravel())


@GRAPH_SETTINGS
@given(cnn_models(), st.data())
def test_build_is_a_pure_function(model: ir.Model, data: st.DataObject) -> None:
    teacher = Teacher(model)
    before = serialize(teacher.model)
    architecture = data.draw(architectures(teacher))

    first = serialize(build(teacher, architecture))
    build(teacher, data.draw(architectures(teacher)))

    assert first == serialize(build(teacher, architecture))
    assert first == serialize(build(Teacher(model), architecture))
    assert before == serialize(teacher.model)


def noted_size(size: int | ir.SymbolicDim, batch: int) -> int:
    """``N`` is the batch, ``N*49`` 49 times the batch."""
    if isinstance(size, int):
        return size
    _, _, factor = str(size.value).partition("*")
    return batch * int(factor or 1)


def array_of(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()
