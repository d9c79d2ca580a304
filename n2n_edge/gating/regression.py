"""Whether a model costs more than a baseline model, or scores less, by too much."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from n2n_edge.errors import InputError
from n2n_edge.metrics.costs import COSTS
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.formats import format_value
from n2n_edge.metrics.outcome import Outcome
from n2n_edge.metrics.scores import metric_label

__all__ = ["Regression", "compare", "parse_percent", "regression_asked"]


@dataclass(frozen=True)
class Regression:
    """One cost of a model beside that of the baseline.

    `change` is the growth as a fraction of the baseline's cost, of a score a negative one where it fell; `limit` is
    the largest growth, of a score the largest loss, that is allowed. `metric` is what a score is in.
    """

    cost: str
    baseline: Figure
    reached: Figure
    change: float
    limit: float
    met: bool
    metric: str | None = None

    @property
    def asked(self) -> str:
        """As on the command line: ``--max-regression macs=5%``."""
        return regression_asked(self.cost, self.limit)

    @property
    def outcome(self) -> Outcome:
        """Pass or fail: these figures leave nothing open."""
        return "pass" if self.met else "fail"

    @property
    def reason(self) -> str:
        """One line: both values, the change, and the largest change allowed."""
        reached, baseline = (format_value(figure.value, figure.unit) for figure in (self.reached, self.baseline))
        bound = (
            f"at least {-100 * self.limit:+.4g}%"
            if COSTS[self.cost].direction == "min"
            else f"at most {100 * self.limit:+.4g}%"
        )
        metric = "" if self.metric is None else f"{metric_label(self.metric)} "
        return f"{metric}{reached} against the baseline's {baseline}, {self.change:+.2%}; budget {bound}"


def compare(
    figures: Mapping[str, Figure],
    baseline: Mapping[str, Figure],
    allowed: Callable[[str], float],
    metric: str | None = None,
) -> tuple[Regression, ...]:
    """Compare every cost that both models have; ``allowed(cost)`` is the growth that is, or for a score the loss.

    Meant for what follows from the file, and for scores on the same images. Timings of two models need a paired
    measurement instead.
    """
    return tuple(
        _compare_one(cost, baseline[cost], figures[cost], allowed(cost), metric) for cost in baseline if cost in figures
    )


def regression_asked(cost: str, limit: float) -> str:
    """Return how a growth of at most `limit` (a fraction) is asked for on the command line."""
    return f"--max-regression {cost}={100 * limit:.4g}%"


def parse_percent(text: str, option: str) -> float:
    """Return the fraction that a percentage such as ``5%`` names; raises `InputError` without a percent sign."""
    number = text.strip().removesuffix("%")
    try:
        fraction = float(number) / 100
    except ValueError:
        fraction = math.nan
    if not text.strip().endswith("%") or not math.isfinite(fraction) or fraction < 0:
        raise InputError(f"{option} {text}: not a percentage of at least 0; write it as in 5%")
    return fraction


def _compare_one(cost: str, baseline: Figure, reached: Figure, limit: float, metric: str | None) -> Regression:
    # Held as a product, a growth of exactly the limit passes whatever the division below rounds to.
    if COSTS[cost].direction == "min":
        met = reached.value >= baseline.value * (1 - limit)
    else:
        met = reached.value <= baseline.value * (1 + limit)
    return Regression(cost, baseline, reached, _growth(baseline.value, reached.value), limit, met, metric)


def _growth(before: float, after: float) -> float:
    if before == 0:
        return 0.0 if after == 0 else math.inf
    return after / before - 1
