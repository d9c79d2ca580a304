"""Regions of a network: few, each between places where little crosses, without the heads' output layers."""

import pytest

from n2n_edge._example import teacher_path
from n2n_edge.graph.regions import nodes_outside
from n2n_edge.graph.teacher import Teacher, build


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(teacher_path())


def test_regions_are_few_and_hold_every_layer_but_the_output_layer(teacher: Teacher) -> None:
    assert 2 <= len(teacher.regions) <= 4
    in_regions = [layer for region in teacher.regions for layer in region.layers]
    assert in_regions == [layer.name for layer in teacher.layers if layer.name != "fc"]
    nodes = [node for region in teacher.regions for node in region.nodes]
    assert len(nodes) == len(set(nodes))


def test_outside_of_all_regions_is_the_head_alone(teacher: Teacher) -> None:
    head = next(layer for layer in teacher.layers if layer.name == "fc")
    assert nodes_outside(teacher.model, teacher.regions) == set(head.nodes)


def test_a_candidate_keeps_the_regions_of_its_teacher(teacher: Teacher) -> None:
    gone = next(layer for layer in teacher.layers if layer.removable)
    model = build(teacher, teacher.full.remove(gone.name))
    chosen = teacher.regions[:1]
    inside = {str(node.name) for node in model.graph} - nodes_outside(model, chosen)
    assert inside == chosen[0].nodes & {str(node.name) for node in model.graph}


def test_architectures_in_int8_have_keys_of_their_own(teacher: Teacher) -> None:
    first, second = (region.name for region in teacher.regions[:2])
    full = teacher.full
    assert len({each.key for each in (full, full.in_int8(first), full.in_int8(second))}) == 3
    assert full.in_int8(second, first).key == full.in_int8(first, second).key
    assert full.in_int8(first).in_int8() == full
    assert "int8" not in full.to_json()  # keys of earlier journals hold
    with pytest.raises(ValueError, match="no region is called 'head'"):
        full.in_int8("head")
