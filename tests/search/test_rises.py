"""Rises of the loss by group: from what was probed, and from what a group's readers lose."""

from pathlib import Path

import numpy as np
import pytest

from n2n_edge._example import teacher_path
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.teacher import Teacher
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.fitting import widths_at
from n2n_edge.search.precision import Base
from n2n_edge.search.proposers.suggested import balanced_ratios
from n2n_edge.search.rises import PROBED, RATIOS, average_rise, group_rises, scale_of_rises
from n2n_edge.search.store import Journal

STEEP = {ratio: (1 - ratio) ** 4 for ratio in RATIOS}
FLAT = {ratio: 0.1 * (1 - ratio) for ratio in RATIOS}


def test_without_a_probe_readers_tell() -> None:
    rises = group_rises({}, {"a": STEEP, "b": FLAT}, 1.0)
    assert rises["a"] == tuple(STEEP.values())
    assert rises["b"] == tuple(FLAT.values())


def test_probes_give_the_scale_of_all_and_their_own_value() -> None:
    probed, lost = {"a": {0.25: 3 * STEEP[0.25]}}, {"a": STEEP, "b": FLAT}
    rises = group_rises(probed, lost, scale_of_rises(probed, lost, {}))
    assert rises["a"] == pytest.approx([3 * share for share in STEEP.values()])
    assert rises["b"] == pytest.approx([3 * share for share in FLAT.values()])


def test_what_was_probed_stands() -> None:
    probed = {"a": {0.25: 0.7, 0.5: 0.01}}
    rises = dict(zip(RATIOS, group_rises(probed, {"a": FLAT}, 1.0)["a"], strict=True))
    assert rises[0.25] == pytest.approx(0.7)
    assert rises[0.5] == pytest.approx(0.01)


def test_without_readers_a_group_counts_as_the_average_of_those_probed() -> None:
    rises = group_rises({"a": {0.25: 0.4, 0.5: 0.1}}, {"a": None, "b": None}, 1.0)
    assert rises["b"] == rises["a"]
    assert dict(zip(RATIOS, rises["b"], strict=True))[0.5] == pytest.approx(0.1)


def test_with_no_group_probed_whole_layers_give_the_scale() -> None:
    lost = {"a": STEEP, "b": {ratio: 3 * share for ratio, share in STEEP.items()}, "c": None}
    scale = scale_of_rises({}, lost, {"conv": 4.0, "other": 2.0})
    assert average_rise(group_rises({}, {"a": lost["a"], "b": lost["b"]}, scale)) == pytest.approx(3.0)
    scale = scale_of_rises({}, lost, {})
    assert average_rise(group_rises({}, {"a": lost["a"], "b": lost["b"]}, scale)) == pytest.approx(1.0)
    assert scale_of_rises({}, {"a": None}, {}) == 1.0


def test_probes_are_among_the_ratios() -> None:
    assert set(PROBED) <= set(RATIOS)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(teacher_path())


def test_an_importance_by_data_adds_up(teacher: Teacher) -> None:
    group = next(group for group in teacher.groups if group.shrinkable)
    assert teacher.lost(group, [group.width // 2]) is None
    ranked = teacher.ranked(np.arange(teacher.labels.count, dtype=np.float64))
    shares = ranked.lost(group, range(group.width, 0, -1))
    assert shares is not None
    assert shares[0] == 0
    assert np.diff(np.array(shares)).tolist() == sorted(group.units)[: group.width - 1]


def test_what_loses_much_stays_wide(teacher: Teacher, tmp_path: Path) -> None:
    free = [index for index, group in enumerate(teacher.groups) if group.shrinkable]
    dear = {teacher.groups[index].name for index in free[::2]}
    budgets = [Budget("params", 0.3 * sum(layer.params for layer in teacher.layers))]
    with WarmWorker() as worker, Journal.create(tmp_path / "journal.sqlite") as journal:
        meter = CostMeter(teacher, load_profile("raspberry-pi-4"), budgets, journal, worker)
        rows = balanced_ratios(
            meter, Base(), lambda group, ratio: (1 - ratio) ** 2 * (10.0 if group.name in dear else 0.1)
        )
        met, dearer = meter.predicted_excesses(
            meter.predicted(Base(), widths_at(teacher.groups, rows, np.ones(len(rows)), meter.multiple))
        )
    assert met == 0
    assert dearer > 0  # the price before it isn't enough
    wide = [float(rows[0, index]) for index in free if teacher.groups[index].name in dear]
    narrow = [float(rows[0, index]) for index in free if teacher.groups[index].name not in dear]
    assert min(wide) > np.median(narrow)


def test_nothing_is_suggested_where_no_budget_asks_for_anything(teacher: Teacher, tmp_path: Path) -> None:
    with WarmWorker() as worker, Journal.create(tmp_path / "journal.sqlite") as journal:
        meter = CostMeter(teacher, load_profile("raspberry-pi-4"), [Budget("size_mb", 1e3)], journal, worker)
        assert not len(balanced_ratios(meter, Base(), lambda group, ratio: 1 - ratio))
