"""Verdicts as a JSON document."""

from collections.abc import Sequence
from typing import TypedDict

from n2n_edge.figures import SCHEMA_VERSION, FigureJson
from n2n_edge.gate.regression import Regression
from n2n_edge.gate.verdict import Verdict

__all__ = ["GateJson", "RegressionJson", "VerdictJson", "gate_document", "verdict_json"]


class VerdictJson(TypedDict):
    """One budget and what was reached; `margin` is the room left as a fraction of the limit."""

    cost: str
    option: str
    limit: float
    reached: FigureJson
    met: bool
    margin: float
    reason: str


class RegressionJson(TypedDict):
    """One cost beside the baseline's; `change` and `limit` are fractions of the baseline's cost."""

    cost: str
    baseline: FigureJson
    reached: FigureJson
    change: float | None
    limit: float
    met: bool
    reason: str


class GateJson(TypedDict):
    """What `n2n-edge gate --json` prints."""

    schema_version: int
    model: str
    passed: bool
    budgets: list[VerdictJson]
    regressions: list[RegressionJson]


def verdict_json(verdict: Verdict) -> VerdictJson:
    """Return one verdict as JSON."""
    return {
        "cost": verdict.budget.cost,
        "option": verdict.budget.option,
        "limit": verdict.budget.limit,
        "reached": verdict.reached.to_json(),
        "met": verdict.met,
        "margin": verdict.margin,
        "reason": verdict.reason,
    }


def gate_document(model: str, verdicts: Sequence[Verdict], regressions: Sequence[Regression] = ()) -> GateJson:
    """Return the whole document; `passed` says whether every budget and every comparison is met."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "passed": all(verdict.met for verdict in verdicts) and all(one.met for one in regressions),
        "budgets": [verdict_json(verdict) for verdict in verdicts],
        "regressions": [_regression_json(regression) for regression in regressions],
    }


def _regression_json(regression: Regression) -> RegressionJson:
    return {
        "cost": regression.cost,
        "baseline": regression.baseline.to_json(),
        "reached": regression.reached.to_json(),
        # JSON has no infinity: growth from nothing has no ratio.
        "change": regression.change if regression.change != float("inf") else None,
        "limit": regression.limit,
        "met": regression.met,
        "reason": regression.reason,
    }
