import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.formats import format_value
from n2n_edge.metrics.verdict import verdicts_on

SIZE = Figure(0.5, "MB", "computed")
PREDICTED = Figure(1.9, "ms", "analytic", low=1.4, high=2.5)

positive = st.floats(min_value=1e-6, max_value=1e12)


@given(limit=positive, value=positive)
def test_a_maximum_is_met_up_to_the_limit_and_not_beyond(limit, value):
    (verdict,) = verdicts_on({"params": Figure(value, "params", "computed")}, [Budget("params", limit)])
    assert verdict.met == (value <= limit)
    assert (verdict.margin >= 0) == verdict.met


def test_a_minimum_is_met_from_the_limit_on():
    figures = {"score": Figure(0.9, "fraction", "measured", n=1000)}
    assert [verdicts_on(figures, [Budget("score", limit)])[0].met for limit in (0.89, 0.9, 0.91)] == [
        True,
        True,
        False,
    ]


def test_a_figure_that_is_not_a_number_meets_nothing():
    (verdict,) = verdicts_on({"size_mb": Figure(float("nan"), "MB", "computed")}, [Budget("size_mb", 1)])
    assert not verdict.met


def test_a_prediction_is_judged_by_its_upper_bound_and_called_a_prediction():
    (verdict,) = verdicts_on({"latency_ms": PREDICTED}, [Budget("latency_ms", 2)])
    assert not verdict.met
    assert verdict.margin == pytest.approx(-0.25)
    assert "prediction" in verdict.reason
    assert "1.4 to 2.5 ms" in verdict.reason
    assert "judged by its upper bound 2.5 ms" in verdict.reason
    (verdict,) = verdicts_on({"latency_ms": PREDICTED}, [Budget("latency_ms", 2.5)])
    assert verdict.met


def test_the_expected_value_is_enough_where_somebody_says_so():
    (verdict,) = verdicts_on({"latency_ms": PREDICTED}, [Budget("latency_ms", 2)], accept_expected=True)
    assert verdict.met
    assert "prediction" in verdict.reason
    assert "judged by its expected value" in verdict.reason


def test_a_measured_interval_is_not_a_prediction():
    (verdict,) = verdicts_on({"latency_ms": Figure(1.9, "ms", "measured", 1.8, 2.6, 9)}, [Budget("latency_ms", 2)])
    assert (verdict.outcome, verdict.met) == ("inconclusive", False)


def test_a_measured_figure_is_not_called_a_prediction():
    (verdict,) = verdicts_on({"latency_ms": Figure(1.9, "ms", "measured", 1.8, 2.0, 50)}, [Budget("latency_ms", 2)])
    assert "measured" in verdict.reason
    assert "predict" not in verdict.reason


def test_verdicts_keep_the_order_of_the_budgets():
    figures = {"size_mb": SIZE, "latency_ms": PREDICTED}
    verdicts = verdicts_on(figures, [Budget("latency_ms", 1), Budget("size_mb", 1)])
    assert [(verdict.budget.cost, verdict.met) for verdict in verdicts] == [("latency_ms", False), ("size_mb", True)]
    assert verdicts[0].margin == pytest.approx(-1.5)


def test_a_budget_without_a_figure_is_not_passed_over():
    with pytest.raises(UnsuitableEnvironmentError, match=r"max_latency_ms 2: latency_ms is not known"):
        verdicts_on({"size_mb": SIZE}, [Budget("latency_ms", 2)])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (308_210, "params", "308,210 params"),
        (11_020_480, "MACs", "11 M MACs"),
        (1.238, "MB", "1.24 MB"),
        (0.9889, "fraction", "98.9%"),
        (12_345.6, "ms", "12,346 ms"),
    ],
)
def test_values_read_as_people_write_them(value, unit, text):
    assert format_value(value, unit) == text


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(1.0, 3.0, "pass"), (3.0, 5.0, "inconclusive"), (4.5, 5.0, "fail")]
)
def test_a_measured_latency_is_met_only_where_its_whole_interval_is(low, high, outcome):
    figure = Figure((low + high) / 2, "ms", "measured", low=low, high=high)
    (verdict,) = verdicts_on({"latency_ms": figure}, [Budget("latency_ms", 4.0)])

    assert (verdict.outcome, verdict.met) == (outcome, outcome == "pass")


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(0.5, 0.6, "fail"), (0.5, 0.9, "inconclusive"), (0.8, 0.9, "pass")]
)
def test_a_lower_limit_is_met_only_where_the_whole_interval_is(low, high, outcome):
    figure = Figure((low + high) / 2, "fraction", "measured", low=low, high=high)
    (verdict,) = verdicts_on({"score": figure}, [Budget("score", 0.7)])

    assert verdict.outcome == outcome
    assert (verdict.to_json()["met"], verdict.to_json()["outcome"]) == (verdict.met, outcome)


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.300122, "exactly 0.300122; "), (0.299999, "exactly 0.299999"), (0.3, "0.3 MB, computed"), (0.31, "0.31 MB, ")],
)
def test_a_figure_that_looks_like_its_limit_is_told_exactly(value, told):
    (verdict,) = verdicts_on({"size_mb": Figure(value, "MB", "computed")}, [Budget("size_mb", 0.3)])
    assert told.rstrip("; ") in verdict.reason
    assert "0.0% outside" not in verdict.reason
    assert ("exactly" in verdict.reason) == told.startswith("exactly")
