"""Whether a model costs more than a baseline model by too much."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from n2n_edge.errors import InputError
from n2n_edge.figures import Figure
from n2n_edge.gate.wording import format_value

__all__ = ["Regression", "compare", "parse_percent"]


@dataclass(frozen=True)
class Regression:
    """One cost of a model beside that of the baseline; `change` is the growth as a fraction of the baseline's cost."""

    cost: str
    baseline: Figure
    reached: Figure
    change: float
    limit: float
    met: bool

    @property
    def reason(self) -> str:
        """One line: both values, the change, and the largest change allowed."""
        reached, baseline = (format_value(figure.value, figure.unit) for figure in (self.reached, self.baseline))
        return (
            f"{reached} against the baseline's {baseline}, {self.change:+.2%}; budget at most {100 * self.limit:+.4g}%"
        )


def compare(
    figures: Mapping[str, Figure], baseline: Mapping[str, Figure], max_regression: float
) -> tuple[Regression, ...]:
    """Compare every cost that both models have; a growth of up to `max_regression` (a fraction) is allowed.

    Meant for costs that follow from the file. Timings of two models need a paired measurement instead.
    """
    return tuple(
        _compare_one(cost, baseline[cost], figures[cost], max_regression) for cost in baseline if cost in figures
    )


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


def _compare_one(cost: str, baseline: Figure, reached: Figure, limit: float) -> Regression:
    # Held as a product, a growth of exactly the limit passes whatever the division below rounds to.
    met = reached.value <= baseline.value * (1 + limit)
    return Regression(cost, baseline, reached, _growth(baseline.value, reached.value), limit, met)


def _growth(before: float, after: float) -> float:
    if before == 0:
        return 0.0 if after == 0 else math.inf
    return after / before - 1
