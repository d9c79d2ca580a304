"""The costs of a run's candidates that are known: their names, values, limits, and where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from n2n_edge.metrics.costs import COSTS, OBJECTIVES, STATIC_COSTS, Cost
from n2n_edge.metrics.formats import PROVENANCE_WORDS
from n2n_edge.metrics.verdict import VerdictJson
from n2n_edge.report.comparison import figure_of
from n2n_edge.report.document import CandidateJson, RunReport
from n2n_edge.report.front import pareto_front
from n2n_edge.report.score import score_of

__all__ = ["KnownCost", "known_costs"]

_STATIC = sorted((row.key for row in STATIC_COSTS), key=OBJECTIVES.index)


@dataclass(frozen=True)
class KnownCost:
    """One cost of every candidate, in their order; None where it was never found out.

    `key` tells it from the others, `source` says in words where the values come from. `limit` is the budget on it; one
    that is held `by_upper_bound` counts more than the values. `predicted` values were never measured. `front` are the
    places of the candidates that no other beats in score and this cost, from the cheapest on.
    """

    key: str
    cost: str
    title: str
    unit: str
    source: str
    values: tuple[float | None, ...]
    limit: float | None
    by_upper_bound: bool
    predicted: bool
    front: tuple[int, ...]


def known_costs(document: RunReport, rows: Sequence[CandidateJson]) -> tuple[KnownCost, ...]:
    """Return every cost that any candidate has, the search's objective first, then the others in a fixed order."""
    found = [
        _static(cost, document["budgets"], rows) for cost in _STATIC if any(row.get(cost) is not None for row in rows)
    ]
    found += _latencies(document, rows)
    objective = document["search"].get("objective", "params")
    return tuple(sorted(found, key=lambda known: known.cost != objective))


def _static(cost: Cost, budgets: Sequence[VerdictJson], rows: Sequence[CandidateJson]) -> KnownCost:
    values = tuple(cast("float | None", row.get(cost)) for row in rows)
    limit = next((budget["limit"] for budget in budgets if budget["cost"] == cost), None)
    name, unit = COSTS[cost].label, COSTS[cost].unit
    return KnownCost(
        key=cost,
        cost=cost,
        title=name,
        unit=unit,
        source=PROVENANCE_WORDS["computed"],
        values=values,
        limit=limit,
        by_upper_bound=False,
        predicted=False,
        front=_front(values, rows),
    )


def _latencies(document: RunReport, rows: Sequence[CandidateJson]) -> list[KnownCost]:
    """Return the expected latency on the run's device, and on every further one."""
    own = document["device"]["name"]
    devices = dict.fromkeys([own, *(name for row in rows for name in row.get("latencies_ms", {}))])
    found = []
    for device in devices:
        values = tuple(_expected(row, device, own) for row in rows)
        if any(value is not None for value in values):
            found.append(_latency(document, rows, device, values))
    return found


def _expected(row: CandidateJson, device: str, own: str) -> float | None:
    """Return a candidate's latency on a device; in a run for several, `latency_ms` is that of any of them."""
    if "latencies_ms" in row:
        return row["latencies_ms"].get(device)
    return row["latency_ms"] if device == own else None


def _latency(
    document: RunReport, rows: Sequence[CandidateJson], device: str, values: tuple[float | None, ...]
) -> KnownCost:
    own = document["device"]["name"]
    told = document["student"]["latency_ms"].get(device)
    figure = None if told is None else figure_of(told)
    predicted = figure is None or figure.predicted
    source = "of unknown origin" if figure is None else PROVENANCE_WORDS[figure.provenance]
    if figure is not None and figure.runtime is not None:
        source += f", under {figure.runtime}"
    budget = next(
        (one for one in document["budgets"] if one["cost"] == "latency_ms" and one.get("device", own) == device), None
    )
    by_upper_bound = budget is not None and predicted and not budget.get("accept_expected", False)
    if by_upper_bound:
        source = f"expected, {source}; the budget holds its upper bound"
    return KnownCost(
        key="latency_ms" if device == own else f"latency_ms-{device}",
        cost="latency_ms",
        title=f"Latency on {device}",
        unit="ms",
        source=source,
        values=values,
        limit=None if budget is None else budget["limit"],
        by_upper_bound=by_upper_bound,
        predicted=predicted,
        front=_front(values, rows),
    )


def _front(values: Sequence[float | None], rows: Sequence[CandidateJson]) -> tuple[int, ...]:
    return pareto_front([(value, score_of(row)) for value, row in zip(values, rows, strict=True)])
