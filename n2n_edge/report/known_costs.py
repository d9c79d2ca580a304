"""The costs of a run's candidates that are known: their names, values, limits, and where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from n2n_edge.gate import PROVENANCE_WORDS, UNITS
from n2n_edge.report.comparison import figure_of
from n2n_edge.report.document import BudgetJson, CandidateJson, RunReport
from n2n_edge.report.front import pareto_front

__all__ = ["COST_NAMES", "KnownCost", "known_costs", "metric_name"]

COST_NAMES: dict[str, str] = {
    "size_mb": "File size",
    "params": "Params",
    "macs": "MACs",
    "memory_bound_mb": "Memory bound",
    "latency_ms": "Latency",
    "accuracy": "Accuracy",
}

_Static = Literal["params", "size_mb", "macs", "memory_bound_mb"]
_STATIC: tuple[_Static, ...] = ("params", "size_mb", "macs", "memory_bound_mb")


@dataclass(frozen=True)
class KnownCost:
    """One cost of every candidate, in their order; None where it was never found out.

    `key` tells it from the others, `limit` is the budget on it, `source` says in words where the values come from.
    `predicted` values were never measured. `front` are the places of the candidates that no other beats in accuracy
    and this cost, from the cheapest on.
    """

    key: str
    cost: str
    title: str
    unit: str
    source: str
    values: tuple[float | None, ...]
    limit: float | None
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


def metric_name(document: RunReport) -> str:
    """Return what candidates were judged by: accuracy, or fidelity to the teacher where there are no labels."""
    return "accuracy" if document["student"].get("accuracy") is not None else "fidelity"


def _static(cost: _Static, budgets: Sequence[BudgetJson], rows: Sequence[CandidateJson]) -> KnownCost:
    values = tuple(row.get(cost) for row in rows)
    limit = next((budget["limit"] for budget in budgets if budget["cost"] == cost), None)
    name, unit = COST_NAMES[cost], UNITS[cost]
    return KnownCost(cost, cost, name, unit, PROVENANCE_WORDS["computed"], values, limit, False, _front(values, rows))


def _latencies(document: RunReport, rows: Sequence[CandidateJson]) -> list[KnownCost]:
    """Return the latency that the budget was held against, and that on each further device."""
    own = document["device"]["name"]
    found = []
    devices = dict.fromkeys(name for row in rows for name in row.get("latencies_ms", {}))
    if any(row["latency_ms"] is not None for row in rows):
        devices.pop(own, None)
        held = tuple(row["latency_ms"] for row in rows)
        found.append(_latency(document, rows, own, held, upper=not _accepts_expected(document)))
    for name in devices:
        found.append(_latency(document, rows, name, tuple(row.get("latencies_ms", {}).get(name) for row in rows)))
    return found


def _latency(
    document: RunReport,
    rows: Sequence[CandidateJson],
    device: str,
    values: tuple[float | None, ...],
    *,
    upper: bool = False,
) -> KnownCost:
    own = device == document["device"]["name"]
    told = document["student"]["latency_ms"].get(device)
    figure = None if told is None else figure_of(told)
    predicted = figure is None or figure.predicted
    where = "of unknown origin" if figure is None else PROVENANCE_WORDS[figure.provenance]
    title, source = f"Latency on {device}", where
    if predicted and upper:
        title, source = f"{title}, upper bound", f"the upper bound of what is {where}: budgets are held against it"
    limit = next((budget["limit"] for budget in document["budgets"] if own and budget["cost"] == "latency_ms"), None)
    key = "latency_ms" if own else f"latency_ms-{device}"
    return KnownCost(key, "latency_ms", title, "ms", source, values, limit, predicted, _front(values, rows))


def _accepts_expected(document: RunReport) -> bool:
    accepted = any(budget.get("accept_expected", False) for budget in document["budgets"])
    return accepted or "--accept-expected" in document["command"].split()


def _front(values: Sequence[float | None], rows: Sequence[CandidateJson]) -> tuple[int, ...]:
    return pareto_front([(value, row["accuracy"]) for value, row in zip(values, rows, strict=True)])
