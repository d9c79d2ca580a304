"""An architecture is a value: hashable, comparable, serialisable, and strict about names."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.running import architectures
from tests.graph.test_remove import one_network
from tests.strategies import GRAPH_SETTINGS, cnn_models


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(one_network("residual"))


@GRAPH_SETTINGS
@given(cnn_models(), st.data())
def test_json_brings_an_architecture_back(model: ir.Model, data: st.DataObject) -> None:
    teacher = Teacher(model)
    architecture = data.draw(architectures(teacher))

    document = json.loads(json.dumps(architecture.to_json()))
    again = teacher.architecture(document["removed"], document["widths"])

    assert architecture == again
    assert hash(architecture) == hash(again)
    assert architecture.key == again.key


def test_changes_give_new_values_and_order_does_not_matter(teacher: Teacher) -> None:
    full = teacher.full
    one = full.remove("conv3").resize("g1", 3).resize("g2", 4)
    other = full.resize("g2", 4).resize("g1", 5).resize("g1", 3).remove("conv3")

    assert one == other
    assert one.key == other.key
    assert len({full, one, other}) == 2
    assert teacher.full == full
    assert "conv3" in full.kept
    assert "conv3" not in one.kept
    assert (one.width("g1"), full.width("g1")) == (3, 8)


def test_a_full_width_is_no_change(teacher: Teacher) -> None:
    assert teacher.full == teacher.full.resize("g1", 4).resize("g1", 8)
    assert teacher.full == teacher.full.remove()


def test_numpy_widths_are_plain_numbers_afterwards(teacher: Teacher) -> None:
    architecture = teacher.full.resize("g1", np.int64(3))

    assert architecture == teacher.full.resize("g1", 3)
    assert json.dumps({"removed": [], "widths": {"g1": 3}}) == json.dumps(architecture.to_json())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.remove("conv99"), "no layer is called 'conv99'; layers: conv0, conv3, conv6"),
        (lambda a: a.remove("conv0"), "layer 'conv0' can't be removed: it changes the width from 3 to 8"),
        (lambda a: a.resize("g99", 1), "no channel group is called 'g99'; groups: g0, g1, g2"),
        (lambda a: a.resize("g1", 0), r"width 0 of group 'g1' is not within 1\.\.8"),
        (lambda a: a.resize("g1", 9), r"width 9 of group 'g1' is not within 1\.\.8"),
        (lambda a: a.resize("g1", 2.0), r"width 2\.0 of group 'g1' is not within 1\.\.8"),
        (lambda a: a.resize("g1", True), r"width True of group 'g1' is not within 1\.\.8"),
        (lambda a: a.resize("g0", 1), "group 'g0' can't be resized: graph input 'input'"),
        (lambda a: a.width("g99"), "no channel group is called 'g99'"),
    ],
)  # fmt: skip
def test_bad_names_and_widths_are_refused(teacher: Teacher, change: object, said: str) -> None:
    assert callable(change)
    with pytest.raises(ValueError, match=said):
        change(teacher.full)


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ({"g99": (0,)}, "no channel group is called 'g99'"),
        ({"g1": ()}, r"keep\['g1'\] must name distinct units within 0..7, got \[\]"),
        ({"g1": (0, 0)}, "must name distinct units"),
        ({"g1": (0, 8)}, "must name distinct units"),
        ({"g1": (-1,)}, "must name distinct units"),
        ({"g0": (0,)}, "group 'g0' can't be resized: graph input 'input'"),
        ({"g2": (0, 1)}, r"keep\['g2'\] names 2 units, but the architecture's width is 4"),
    ],
)
def test_bad_choices_of_channels_are_refused(teacher: Teacher, keep: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(teacher, teacher.full.resize("g2", 4), keep=keep)


def test_a_full_group_may_be_named_whole_even_if_it_is_fixed(teacher: Teacher) -> None:
    student = build(teacher, teacher.full, keep={"g0": (0, 1, 2)})

    assert len(list(teacher.model.graph)) == len(list(student.graph))


def test_an_architecture_prints_what_differs_from_the_teacher(teacher: Teacher) -> None:
    assert (
        repr(teacher.full.remove("conv3").resize("g1", 3))
        == "Architecture(removed=frozenset({'conv3'}), widths=(('g1', 3),), int8=frozenset(), linear=frozenset())"
    )
    assert Architecture() == teacher.full
