"""Whether a model is slower than a baseline by too much: a verdict on the ratio of the two, timed in turns."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from n2n_edge.gating.regression import regression_asked
from n2n_edge.measure.ratio import LEAST_ROUNDS, Comparison
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.formats import format_value
from n2n_edge.metrics.outcome import Outcome

if TYPE_CHECKING:
    from n2n_edge.measure.comparison import Standing

__all__ = ["LEAST_NOISE", "LatencyRatio", "noise_of", "ratio_is_settled", "ratio_outcome"]

_LARGEST = 1e9
"""Stands for a ratio without an upper bound, which JSON can't hold."""

LEAST_NOISE = 0.02
"""The baseline may differ from itself by this share, or by the limit if that is more, before noise counts."""


@dataclass(frozen=True)
class LatencyRatio:
    """The latency of a model over that of the baseline, both timed in turns on one target.

    `floor` is the baseline against itself, timed in the same rounds; `limit` the growth that is allowed, a fraction.
    """

    comparison: Comparison
    floor: Comparison | None
    limit: float
    baseline: Figure
    reached: Figure
    target: str
    cost: str = "latency_ms"

    @property
    def asked(self) -> str:
        """As on the command line."""
        return regression_asked(self.cost, self.limit)

    @property
    def outcome(self) -> Outcome:
        """See `ratio_outcome`."""
        return ratio_outcome(self.comparison, self.floor, self.limit)

    @property
    def ratio(self) -> Figure:
        """The ratio with its interval; `n` counts rounds of fresh processes."""
        return self._figure(self.comparison)

    @property
    def noise_floor(self) -> Figure | None:
        """The same of the baseline against itself."""
        return None if self.floor is None else self._figure(self.floor)

    @property
    def reason(self) -> str:
        """One line: the ratio with its interval, the limit, what it rests on, and what keeps it open."""
        found = self.comparison
        reached, baseline = (format_value(figure.value, figure.unit) for figure in (self.reached, self.baseline))
        if found.rounds < LEAST_ROUNDS and self.outcome == "inconclusive":
            return (
                f"about {found.ratio:.3f} times the baseline ({reached} against {baseline}{self._under}); "
                f"budget at most {1 + self.limit:.4g} times; {found.rounds} of the {LEAST_ROUNDS} rounds that an "
                "interval takes fitted into the time: allow more (--max-time)"
            )
        text = (
            f"{found.ratio:.3f} times the baseline ({found.low:.3f} to {found.high:.3f}; {reached} against "
            f"{baseline}); budget at most {1 + self.limit:.4g} times; {found.level:.0%} interval from "
            f"{found.rounds} rounds in turns on {self.target}{self._under}"
        )
        noise = noise_of(self.floor, self.limit)
        if noise > 1 and self.floor is not None:
            text += (
                f"; noisy: the baseline against itself came to {self.floor.low:.3f} to {self.floor.high:.3f}, "
                f"so bounds were widened by {noise - 1:.1%}"
            )
        if self.outcome == "inconclusive":
            text += "; allow more time (--max-time) or quieten the machine"
        return text

    @property
    def _under(self) -> str:
        return "" if self.reached.runtime is None else f" under {self.reached.runtime}"

    def _figure(self, found: Comparison) -> Figure:
        return Figure(found.ratio, "ratio", self.reached.provenance, found.low, min(found.high, _LARGEST), found.rounds)


def ratio_outcome(found: Comparison, floor: Comparison | None, limit: float) -> Outcome:
    """Return what the interval of a ratio says of a growth of at most `limit` (a fraction).

    Fail if all of it lies above ``1 + limit``, pass if all of it lies below, else inconclusive. Where the baseline
    can't be told from itself (`noise_of`), both bounds are moved outwards by as much first.
    """
    noise = noise_of(floor, limit)
    if found.low / noise > 1 + limit:
        return "fail"
    if found.high * noise <= 1 + limit:
        return "pass"
    return "inconclusive"


def noise_of(floor: Comparison | None, limit: float) -> float:
    """Return the factor by which the baseline may differ from itself, 1 where that is within what is tolerated."""
    if floor is None:
        return 1.0
    strays = max(floor.high, 1 / floor.low if floor.low > 0 else float("inf"))
    return strays if strays > 1 + max(limit, LEAST_NOISE) else 1.0


def ratio_is_settled(standing: "Standing", limit: float) -> bool:
    """Tell whether the ratio of every model to the first is decided."""
    found = [one for one in standing.comparisons[1:] if one is not None]
    return all(ratio_outcome(one, standing.floor, limit) != "inconclusive" for one in found)
