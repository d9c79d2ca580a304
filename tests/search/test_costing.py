"""The widths that budgets leave, and what candidates cost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from n2n_edge._example import teacher_path
from n2n_edge.devices import load_profile
from n2n_edge.gate import Budget
from n2n_edge.graph import Teacher, build, costs
from n2n_edge.measure import WarmWorker
from n2n_edge.search import CostMeter, Journal, fit_widths


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(teacher_path())


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.create(tmp_path / "journal.sqlite") as opened:
        yield opened


@pytest.mark.parametrize("share", [0.5, 0.2, 0.08])
def test_fitted_widths_use_the_budget_and_never_break_it(teacher: Teacher, share: float) -> None:
    limit = costs(teacher.model).params * share
    architecture = fit_widths(
        teacher,
        frozenset(),
        {group.name: 1.0 for group in teacher.groups},
        lambda a: costs(build(teacher, a)).params <= limit,
        4,
    )
    params = costs(build(teacher, architecture)).params
    assert 0.85 * limit <= params <= limit


def test_fitted_widths_follow_the_ratios(teacher: Teacher) -> None:
    groups = [group for group in teacher.groups if group.shrinkable]
    favoured = max(groups, key=lambda group: group.width)
    ratios = {group.name: 0.25 for group in groups} | {favoured.name: 1.0}
    architecture = fit_widths(teacher, frozenset(), ratios, lambda a: costs(build(teacher, a)).params <= 60_000)
    share = {group.name: architecture.width(group.name) / group.width for group in groups}
    assert share[favoured.name] > 2 * max(value for name, value in share.items() if name != favoured.name)


def test_where_nothing_fits_the_narrowest_comes_back(teacher: Teacher) -> None:
    ratios = {group.name: 1.0 for group in teacher.groups}
    architecture = fit_widths(teacher, frozenset(), ratios, lambda _: False, 4)
    narrower = costs(build(teacher, architecture)).params
    assert narrower < costs(teacher.model).params / 20


def test_widths_are_multiples_of_what_the_device_likes(teacher: Teacher) -> None:
    ratios = {group.name: 1.0 for group in teacher.groups}
    architecture = fit_widths(teacher, frozenset(), ratios, lambda a: costs(build(teacher, a)).params <= 70_000, 8)
    assert architecture.widths
    assert all(width % 8 == 0 for _, width in architecture.widths)


def test_a_board_is_predicted_and_the_budget_holds_for_the_prediction(teacher: Teacher, journal: Journal) -> None:
    profile = load_profile("raspberry-pi-4")
    with WarmWorker() as worker:
        meter = CostMeter(teacher, profile, [Budget("latency_ms", 0.4)], journal, worker)
        architecture = meter.fitted(frozenset(), {group.name: 1.0 for group in teacher.groups})
        found = meter.judge(architecture, build(teacher, architecture))
        assert worker.pid is None  # nothing was run here
    assert found.latency is not None
    assert found.latency.provenance == "analytic"
    assert 0.3 < found.latency.value <= 0.4
    assert not meter.excesses(found)


def test_this_host_is_timed_once_per_architecture(teacher: Teacher, journal: Journal) -> None:
    with WarmWorker() as worker:
        meter = CostMeter(teacher, load_profile("cpu"), [Budget("latency_ms", 1000.0)], journal, worker)
        first = meter.judge(teacher.full, teacher.model).latency
        pid = worker.pid
    again = meter.judge(teacher.full, teacher.model).latency
    assert pid is not None
    assert worker.pid is None  # the second figure came from the journal
    assert first is not None
    assert first.provenance == "measured"
    assert first == again


def test_a_missed_budget_is_told_in_proportion(teacher: Teacher, journal: Journal) -> None:
    with WarmWorker() as worker:
        meter = CostMeter(teacher, load_profile("raspberry-pi-4"), [Budget("params", 154_105.0)], journal, worker)
        found = meter.judge(teacher.full, teacher.model)
    assert meter.excesses(found) == {"params": pytest.approx(1.0)}
