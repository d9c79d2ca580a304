"""Grouped convolutions: which channels are tied so that every block loses equally many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.graph.balance import tie_balanced
from n2n_edge.graph.costs import costs
from n2n_edge.graph.labels import LabelArray, Labels
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.test_groups import teacher_of
from tests.strategies import GRAPH_SETTINGS, GraphBuilder, Tensor


def classes(labels: Labels, row: LabelArray) -> list[LabelArray]:
    roots = labels.find(np.array(row))
    return [np.flatnonzero(roots == root) for root in np.unique(roots)]


@GRAPH_SETTINGS
@given(st.integers(2, 4), st.integers(1, 6), st.randoms(use_true_random=False))
def test_two_partitions_in_any_order_leave_one_unit_for_each_channel_of_a_block(
    groups: int, size: int, order: object
) -> None:
    labels = Labels()
    row = labels.fresh(("weight", 0), groups * size)
    shuffled = row.copy()
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    labels.balance(row, groups, "first")
    labels.balance(shuffled, groups, "second")

    tie_balanced(labels)

    found = classes(labels, row)
    assert len(found) == size
    place = {int(label): position for position, label in enumerate(shuffled)}
    for members in found:
        for blocks in (members // size, np.array([place[int(label)] // size for label in row[members]])):
            assert sorted(blocks.tolist()) == list(range(groups))
    assert not tie_balanced(labels)


@GRAPH_SETTINGS
@given(st.data())
def test_whatever_is_tied_already_units_take_equally_many_from_every_block(data: st.DataObject) -> None:
    labels = Labels()
    row = labels.fresh(("weight", 0), 12)
    for groups in (2, 3):
        labels.balance(row[np.array(data.draw(st.permutations(range(12))))], groups, "")
    for first, second in data.draw(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=4)):
        labels.unite(row[first : first + 1], row[second : second + 1])

    tie_balanced(labels)

    for partition, groups in labels.partitions:
        roots = labels.find(np.array(partition)).reshape(groups, -1)
        for root in np.unique(roots):
            assert len(set((roots == root).sum(axis=1).tolist())) == 1


def test_a_plain_grouped_convolution_ties_the_channels_of_equal_place() -> None:
    labels = Labels()
    row = labels.fresh(("weight", 0), 8)
    labels.balance(row, 2, "")

    tie_balanced(labels)

    assert [members.tolist() for members in classes(labels, row)] == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_channels_without_a_label_keep_all_of_a_grouped_convolution() -> None:
    labels = Labels()
    row = labels.fresh(("weight", 0), 4)
    row[1] = 0

    labels.balance(row, 2, "why")

    assert not labels.partitions
    assert set(labels.frozen().values()) == {"why"}


@pytest.mark.parametrize("groups", [2, 3])
def test_a_shuffled_pair_of_grouped_convolutions_can_shrink(groups: int) -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    wide = builder.conv(Tensor("input", 3, (8, 8)), 8 * groups, kernel=1)
    inner = builder.shuffle(builder.conv(wide, 6 * groups, kernel=1, groups=groups), groups)
    y = builder.conv(builder.conv(inner, 6 * groups, groups=6 * groups), 8 * groups, kernel=1, groups=groups)
    teacher: Teacher = teacher_of(builder, y)

    units = {group.width for group in teacher.groups if group.shrinkable}
    assert min(units) > 1
    half = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            half = half.resize(group.name, (group.width + 1) // 2)
    assert costs(build(teacher, half)).macs < 0.6 * costs(teacher.model).macs


def test_making_rectangular_ends_where_some_elements_have_no_channel() -> None:
    labels = Labels()
    table = labels.fresh(("weight", 0), 6).reshape(2, 3).copy()
    table[0] = 0  # one of two stacked branches carries no channels

    labels.make_rectangular(table)

    assert not labels.make_rectangular(table)
    assert set(labels.frozen().values()) == {"they share a value with elements that have no channel"}
