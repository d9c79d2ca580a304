"""A gate as a JSON document (`docs/schemas/gate.json`)."""

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from n2n_edge.gating.check import Gated, exit_code_of
from n2n_edge.gating.latency_ratio import LatencyRatio
from n2n_edge.gating.operators import Operators
from n2n_edge.gating.regression import Regression
from n2n_edge.gating.unanswered import Unanswered
from n2n_edge.metrics.figures import SCHEMA_VERSION, FigureJson
from n2n_edge.metrics.notices import codes_of, texts_of
from n2n_edge.metrics.outcome import Outcome, worst
from n2n_edge.metrics.verdict import Verdict, VerdictJson

__all__ = ["GateJson", "GatesJson", "RegressionJson", "gates_document"]


class RegressionJson(TypedDict):
    """One cost beside the baseline's; `change` and `limit` are fractions of the baseline's cost.

    A score names the `metric` that it is in.
    Of a latency there are the `ratio` with its interval, and the baseline against itself, timed in the same rounds.
    """

    cost: str
    baseline: FigureJson
    reached: FigureJson
    change: float | None
    limit: float
    met: bool
    outcome: Outcome
    reason: str
    metric: NotRequired[str]
    ratio: NotRequired[FigureJson]
    noise_floor: NotRequired[FigureJson | None]


class OperatorsJson(TypedDict):
    """The operators that are allowed, and how often each other one occurs."""

    allowed: list[str]
    others: dict[str, int]
    met: bool
    outcome: Outcome
    reason: str


class UnansweredJson(TypedDict):
    """What was asked and couldn't be found out here."""

    cost: str
    asked: str
    outcome: Outcome
    reason: str


class GateJson(TypedDict):
    """What `n2n-edge gate --json` prints of one model."""

    schema_version: int
    kind: str
    model: str
    baseline: str | None
    passed: bool
    outcome: Outcome
    exit_code: int
    budgets: list[VerdictJson]
    regressions: list[RegressionJson]
    operators: OperatorsJson | None
    unanswered: list[UnansweredJson]
    warnings: list[str]
    warning_codes: list[str]
    notes: list[str]
    note_codes: list[str]


class GatesJson(TypedDict):
    """What it prints of several models."""

    schema_version: int
    kind: str
    passed: bool
    outcome: Outcome
    exit_code: int
    models: list[GateJson]


def gates_document(found: Sequence[Gated]) -> GateJson | GatesJson:
    """Return the document of one model, or of several."""
    if len(found) == 1:
        return _gate_document(found[0])
    outcome = worst(one.outcome for one in found)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "gates",
        "passed": outcome == "pass",
        "outcome": outcome,
        "exit_code": exit_code_of(found),
        "models": [_gate_document(one) for one in found],
    }


def _gate_document(gated: Gated) -> GateJson:
    """Return the document of one model; `passed` says whether all that was asked is met for certain."""
    checks = gated.checks
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "gate",
        "model": str(gated.model),
        "baseline": None if gated.baseline is None else str(gated.baseline),
        "passed": gated.outcome == "pass",
        "outcome": gated.outcome,
        "exit_code": exit_code_of([gated]),
        "budgets": [check.to_json() for check in checks if isinstance(check, Verdict)],
        "regressions": [
            _ratio_json(check) if isinstance(check, LatencyRatio) else _regression_json(check)
            for check in checks
            if isinstance(check, LatencyRatio | Regression)
        ],
        "operators": next((_operators_json(check) for check in checks if isinstance(check, Operators)), None),
        "unanswered": [
            {"cost": check.cost, "asked": check.asked, "outcome": check.outcome, "reason": check.reason}
            for check in checks
            if isinstance(check, Unanswered)
        ],
        "warnings": list(texts_of(gated.warnings)),
        "warning_codes": list(codes_of(gated.warnings)),
        "notes": list(texts_of(gated.notes)),
        "note_codes": list(codes_of(gated.notes)),
    }


def _regression_json(regression: Regression) -> RegressionJson:
    document: RegressionJson = {
        "cost": regression.cost,
        "baseline": regression.baseline.to_json(),
        "reached": regression.reached.to_json(),
        # JSON has no infinity: growth from nothing has no ratio.
        "change": regression.change if math.isfinite(regression.change) else None,
        "limit": regression.limit,
        "met": regression.met,
        "outcome": regression.outcome,
        "reason": regression.reason,
    }
    if regression.metric is not None:
        document["metric"] = regression.metric
    return document


def _ratio_json(found: LatencyRatio) -> RegressionJson:
    return {
        "cost": found.cost,
        "baseline": found.baseline.to_json(),
        "reached": found.reached.to_json(),
        "change": found.comparison.ratio - 1,
        "limit": found.limit,
        "met": found.outcome == "pass",
        "outcome": found.outcome,
        "reason": found.reason,
        "ratio": found.ratio.to_json(),
        "noise_floor": None if found.noise_floor is None else found.noise_floor.to_json(),
    }


def _operators_json(found: Operators) -> OperatorsJson:
    return {
        "allowed": list(found.allowed),
        "others": dict(found.others),
        "met": found.outcome == "pass",
        "outcome": found.outcome,
        "reason": found.reason,
    }
