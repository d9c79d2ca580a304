"""Residual branches that go as a whole: the student is the teacher whose sums are their skips."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.branches import Branch
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.running import assert_same_outputs, inputs_of, run
from tests.graph.test_remove import finished, one_network
from tests.strategies import BLOCKS, GRAPH_SETTINGS, GraphBuilder, Tensor, cnn_models

WHOLE = ["inverted", "bottleneck", "convnext", "preactivated", "attention", "many_heads", "nested"]


def inverted_residuals(count: int, gate: bool = False) -> Teacher:
    builder = GraphBuilder(17, np.random.default_rng(3))
    x = builder.conv(Tensor("input", 3, (8, 8)), 8)
    for _ in range(count):
        y = builder.conv(builder.conv(x, 24, kernel=1), 24, groups=24)
        y = BLOCKS["gated"](builder, y, 24, 1) if gate else y
        x = builder.add(builder.conv(y, 8, kernel=1, act=False), x)
    x = builder.conv(x, 6)
    return Teacher(finished(builder, builder.dense(builder.flatten(builder.global_pool(x, "GlobalAveragePool")), 3)))


def without(model: ir.Model, branches: tuple[Branch, ...]) -> ir.Model:
    """The definition: what reads a branch's sum reads its skip."""
    model = model.clone()
    skips = {branch.output: branch.skip for branch in branches}
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    values |= {str(value.name): value for value in model.graph.inputs}
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            name = "" if value is None else str(value.name)
            while name in skips:
                name = skips[name]
            if value is not None and name != value.name:
                node.replace_input_with(index, values[name])
    return model


def layers_of(branches: tuple[Branch, ...]) -> set[str]:
    return {name for branch in branches for name in branch.layers}


@GRAPH_SETTINGS
@given(cnn_models(blocks=WHOLE, free_batch=True), st.data())
def test_a_student_without_branches_is_the_teacher_whose_sums_are_their_skips(
    model: ir.Model, data: st.DataObject
) -> None:
    teacher = Teacher(model)
    if not teacher.branches:
        return
    chosen = data.draw(st.sets(st.sampled_from(teacher.branches), min_size=1))
    gone = tuple(branch for branch in teacher.branches if branch in chosen)
    student = build(teacher, teacher.full.remove(*layers_of(gone)))
    inputs = inputs_of(model, 2)
    assert_same_outputs(run(without(teacher.model, gone), inputs), run(student, inputs))
    left = {layer.name for layer in Teacher(student).layers}
    assert left == {layer.name for layer in teacher.layers} - layers_of(gone)


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("gone", [(0,), (1, 2), (0, 2), (0, 1, 2)])
def test_inverted_residuals_go_one_by_one_and_together(gone: tuple[int, ...], gate: bool) -> None:
    teacher = inverted_residuals(3, gate)
    assert len(teacher.branches) == 3
    assert {len(branch.layers) for branch in teacher.branches} == {6 if gate else 3}
    assert layers_of(teacher.branches) <= teacher.removable
    branches = tuple(teacher.branches[index] for index in gone)
    stream = next(group for group in teacher.groups if group.shrinkable)
    student = build(teacher, teacher.full.remove(*layers_of(branches)).resize(stream.name, 5))
    assert sum(node.op_type == "Add" for node in student.graph) == 3 - len(gone)
    full = build(teacher, teacher.full.remove(*layers_of(branches)))
    inputs = inputs_of(teacher.model, 2)
    assert_same_outputs(run(without(teacher.model, branches), inputs), run(full, inputs))
    assert run(student, inputs)[0].shape == (2, 3)


def test_part_of_a_branch_is_refused_by_name_and_left_when_repaired() -> None:
    teacher = inverted_residuals(2)
    first, second = (branch.layers for branch in teacher.branches)
    alone = {layer.name for layer in teacher.layers if layer.removable}
    widening = next(name for name in first if name not in alone)
    with pytest.raises(ValueError, match=f"'{widening}' can't be removed: it .*; it goes with all of its branch"):
        teacher.full.remove(widening)
    assert teacher.repaired(frozenset({widening, *second})) == frozenset(second)
    assert teacher.repaired(frozenset(first)) == frozenset(first)


def test_an_architecture_without_branches_comes_back_from_its_document() -> None:
    teacher = inverted_residuals(2)
    architecture = teacher.full.remove(*teacher.branches[0].layers)
    document = architecture.to_json()
    again: Architecture = teacher.architecture(document["removed"], {})  # type: ignore[arg-type]
    assert again == architecture
    assert again.key == architecture.key


def test_what_is_read_elsewhere_stays() -> None:
    builder = GraphBuilder(17, np.random.default_rng(3))
    x = builder.conv(Tensor("input", 3, (8, 8)), 8)
    wide = builder.conv(x, 24, kernel=1)
    y = builder.add(builder.conv(wide, 8, kernel=1, act=False), x)
    both = builder.concat(y, builder.conv(wide, 4))  # reads the inside of the branch
    output = builder.dense(builder.flatten(builder.global_pool(both, "GlobalAveragePool")), 3)
    teacher = Teacher(finished(builder, output))
    assert teacher.branches == ()


@pytest.mark.parametrize("kind", ["plain", "residual", "separable"])
def test_where_every_layer_can_go_alone_or_there_is_no_skip_there_is_no_such_branch(kind: str) -> None:
    teacher = Teacher(one_network(kind))
    assert all(any(not layer.removable for layer in teacher.layers if layer.name in branch.layers)
               for branch in teacher.branches)  # fmt: skip
    if kind != "residual":
        assert teacher.branches == ()
