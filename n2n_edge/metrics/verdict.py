"""Verdicts: figures held against budgets."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from n2n_edge.errors import UnsuitableEnvironmentError, setting
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import COSTS
from n2n_edge.metrics.figures import Figure, FigureJson
from n2n_edge.metrics.formats import format_figure, format_provenance, format_value
from n2n_edge.metrics.outcome import Outcome
from n2n_edge.metrics.scores import metric_label

__all__ = ["Verdict", "VerdictJson", "verdicts_on"]


class VerdictJson(TypedDict):
    """One budget and what was reached, in `report.json` and `gate --json`; reports of older versions tell less."""

    cost: str
    option: str
    limit: float
    reached: FigureJson
    met: bool
    """Whether it is met for certain."""
    outcome: NotRequired[Outcome]
    margin: NotRequired[float | None]
    """The room that is left as a fraction of the limit; None beyond all bounds."""
    reason: NotRequired[str]
    accept_expected: NotRequired[bool]
    """Whether a prediction was held to the limit by its expected value instead of its upper bound."""
    device: NotRequired[str]
    """Of a latency, the device that it is predicted for or the target that it was timed on."""
    metric: NotRequired[str]
    """Of a score or drop, the metric that it is in: ``accuracy``, ``map``, ..., ``fidelity``."""


_LEAST_SHOWN = 0.0005


@dataclass(frozen=True)
class Verdict:
    """One budget held against the figure that was reached.

    `margin` is the room that is left as a fraction of the limit: 0.1 is 10% inside the budget, -0.1 is 10% outside.
    `device` names the device of a latency, or the target that it was timed on, where that is to be told; `metric` is
    what a score or drop is in.
    """

    budget: Budget
    reached: Figure
    margin: float
    accept_expected: bool = False
    device: str | None = None
    metric: str | None = None

    @property
    def cost(self) -> str:
        """The cost that was limited."""
        return self.budget.cost

    @property
    def asked(self) -> str:
        """As on the command line: ``--max-mb 0.5``."""
        return f"{self.budget.option} {self.budget.limit:.10g}"

    @property
    def outcome(self) -> Outcome:
        """Pass or fail; of a measured figure by its interval, and inconclusive where that holds the limit."""
        low, high, limit = self.reached.low, self.reached.high, self.budget.limit
        if self.reached.predicted or low is None or high is None:
            return "pass" if self.margin >= 0 else "fail"
        if self.budget.direction == "min":
            return "fail" if high < limit else "pass" if low >= limit else "inconclusive"
        return "fail" if low > limit else "pass" if high <= limit else "inconclusive"

    @property
    def met(self) -> bool:
        """Whether the budget is met for certain."""
        return self.outcome == "pass"

    @property
    def reason(self) -> str:
        """One line: what was reached, where the number comes from, and how it stands to the limit."""
        limit = format_value(self.budget.limit, self.budget.unit)
        bound = "at most" if self.budget.direction == "max" else "at least"
        side = "inside" if self.margin >= 0 else "outside"
        place = f" on {self.device}" if self.device is not None else ""
        if self.reached.runtime is not None:
            place += f" under {self.reached.runtime}"
        metric = "" if self.metric is None else f"{metric_label(self.metric)} "
        text = (
            f"{metric}{self._reached_words}{place}, {format_provenance(self.reached.provenance)}; "
            f"budget {bound} {limit}, {self._room} {side}"
        )
        if self.outcome == "inconclusive":
            text += "; its interval holds the limit: measure for longer, or quieten the machine"
        if self.reached.predicted:
            text += "; a prediction, nothing was run on the device"
            if self.accept_expected:
                text += ", judged by its expected value"
            elif self.reached.high is not None and self.budget.direction == "max":
                text += f", judged by its upper bound {format_value(self.reached.high, self.budget.unit)}"
        return text

    @property
    def _room(self) -> str:
        if self.cost == "drop":  # a share of few points says nothing
            return format_value(abs(self.budget.limit - self.reached.value), self.budget.unit)
        return "less than 0.1%" if 0 < abs(self.margin) < _LEAST_SHOWN else f"{abs(self.margin):.1%}"

    @property
    def _reached_words(self) -> str:
        if self.cost != "drop":
            value, limit, unit = self.reached.value, self.budget.limit, self.reached.unit
            words = format_figure(self.reached)
            if value != limit and format_value(value, unit) == format_value(limit, unit):
                words += f", exactly {value:.10g}"
            return words
        side = "lower" if self.reached.value >= 0 else "higher"
        return f"{format_value(abs(self.reached.value), self.reached.unit)} {side}"

    def to_json(self) -> VerdictJson:
        """Return the verdict as documents hold it."""
        document: VerdictJson = {
            "cost": self.cost,
            "option": self.budget.option,
            "limit": self.budget.limit,
            "reached": self.reached.to_json(),
            "met": self.met,
            "outcome": self.outcome,
            "margin": self.margin if math.isfinite(self.margin) else None,
            "reason": self.reason,
            "accept_expected": self.accept_expected,
        }
        if self.device is not None:
            document["device"] = self.device
        if self.metric is not None:
            document["metric"] = self.metric
        return document


def verdicts_on(
    figures: Mapping[str, Figure],
    budgets: Iterable[Budget],
    *,
    accept_expected: bool = False,
    device: str | None = None,
    metric: str | None = None,
) -> tuple[Verdict, ...]:
    """Hold each budget against the figure of its cost; a value equal to the limit meets it.

    A predicted figure is judged by its upper bound, or by its value with `accept_expected`; the verdict's reason says
    so. `device` is named in verdicts on latency, `metric` in those on scores. Raises `UnsuitableEnvironmentError` if
    there is no figure for a budget's cost.
    """
    return tuple(_judge_one(figures, budget, accept_expected, device, metric) for budget in budgets)


def _judge_one(
    figures: Mapping[str, Figure], budget: Budget, accept_expected: bool, device: str | None, metric: str | None
) -> Verdict:
    if budget.cost not in figures:
        raise UnsuitableEnvironmentError(
            f"{setting(budget.option)} {budget.limit:g}: {budget.cost} is not known here, only "
            f"{', '.join(sorted(figures))}; "
            "leave the budget out or run where it can be told"
        )
    reached = figures[budget.cost]
    value = reached.held(accept_expected=accept_expected) if budget.direction == "max" else reached.value
    excess = value - budget.limit
    margin = (excess if budget.direction == "min" else -excess) / budget.limit
    return Verdict(
        budget=budget,
        reached=reached,
        margin=margin,
        accept_expected=accept_expected,
        device=device if budget.cost == "latency_ms" else None,
        metric=metric if COSTS[budget.cost].quality else None,
    )
