"""Reward of a candidate: the paper's form inside the budgets, a graded penalty outside."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.search.reward import compression_reward, infeasible_reward, violation

ratios = st.floats(0.0, 2.0)
targets = st.none() | st.floats(0.01, 1.0)
misses = st.dictionaries(st.sampled_from(["params", "size_mb", "latency_ms"]), st.floats(1e-6, 1e4), min_size=1)
progresses = st.floats(0.0, 1.0)


def test_matches_the_form_of_the_paper() -> None:
    assert compression_reward(0.9, 0.2) == pytest.approx(0.8 * 1.2 * 0.9)
    assert compression_reward(1.0, 1.0) == 0.0


def test_below_the_budget_only_accuracy_counts() -> None:
    at_target = compression_reward(0.90, 0.25, 0.25)

    assert compression_reward(0.90, 0.05, 0.25) == at_target
    assert compression_reward(0.91, 0.24, 0.25) > compression_reward(0.90, 0.05, 0.25)
    assert compression_reward(0.90, 0.05) > compression_reward(0.91, 0.24)


@given(ratios, ratios, targets, misses, progresses)
def test_every_feasible_reward_is_above_every_infeasible_one(
    accuracy: float, cost: float, target: float | None, excesses: dict[str, float], progress: float
) -> None:
    reward = compression_reward(accuracy, cost, target)
    penalty = infeasible_reward(excesses, progress)

    assert 0.0 <= reward <= 1.0
    assert -1.0 <= penalty < 0.0


@given(ratios, ratios, ratios, targets)
def test_reward_rises_with_accuracy_and_falls_with_cost(a: float, b: float, other: float, target: float | None) -> None:
    low, high = sorted((a, b))

    assert compression_reward(low, other, target) <= compression_reward(high, other, target)
    assert compression_reward(other, low, target) >= compression_reward(other, high, target)


@given(misses, st.floats(0.01, 10.0), progresses)
def test_missing_by_more_costs_more(excesses: dict[str, float], further: float, progress: float) -> None:
    for name in excesses:
        worse = {**excesses, name: excesses[name] * (1 + further) + 0.01}
        assert infeasible_reward(worse, progress) < infeasible_reward(excesses, progress)


@given(misses, progresses, progresses)
def test_the_same_miss_costs_more_later(excesses: dict[str, float], a: float, b: float) -> None:
    early, late = sorted((a, b))

    assert infeasible_reward(excesses, late) <= infeasible_reward(excesses, early)


def test_there_is_a_slope_far_from_the_budget_too() -> None:
    ten, five, two = (infeasible_reward({"params": times - 1.0}, 0.0) for times in (10.0, 5.0, 2.0))

    assert five - ten > 0.05
    assert two - five > 0.1


def test_the_smallest_and_the_largest_miss_stay_in_bounds() -> None:
    assert -1.0 < infeasible_reward({"params": 5e-324}, 0.0) < 0.0
    assert infeasible_reward({"params": math.inf}, 0.5) == -1.0


def test_violation_names_what_is_missed_and_by_how_much() -> None:
    reached = {"params": 150.0, "size_mb": 0.5, "macs": 120.0}

    missed = violation(reached, {"params": 100.0, "size_mb": 0.5, "latency_ms": 3.0, "macs": 100.0})

    assert missed == pytest.approx({"params": 0.5, "macs": 0.2})


def test_a_figure_that_is_not_a_number_never_meets_a_budget() -> None:
    assert violation({"latency_ms": math.nan}, {"latency_ms": 3.0}) == {"latency_ms": math.inf}


def test_senseless_values_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive, not 0"):
        violation({"params": 1.0}, {"params": 0.0})
    with pytest.raises(ValueError, match="at least one budget"):
        infeasible_reward({}, 0.5)
    with pytest.raises(ValueError, match="between 0 and 1, not 2"):
        infeasible_reward({"params": 1.0}, 2.0)
    with pytest.raises(ValueError, match="ratios must be finite"):
        compression_reward(math.nan, 0.5)
