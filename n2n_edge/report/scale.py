"""Placing values along an axis, and choosing round tick values for it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles

__all__ = ["Scale", "fit_scale", "without_low_outliers"]

_LOG_FROM_RATIO = 8.0
"""An axis whose largest value is this many times its smallest is easier to read in logarithmic steps."""


_FEWEST_VALUES = 5
"""Of fewer values none is called an outlier."""


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` to `start`..`end` (SVG units), in equal or in logarithmic steps."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where `value` lies, rounded to a hundredth; values beyond the axis are put at its end."""
        low, high, value = (self._step(one) for one in (self.low, self.high, min(max(value, self.low), self.high)))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 2)

    def ticks(self) -> tuple[float, ...]:
        """Return three to seven round values within the axis."""
        return _log_ticks(self.low, self.high) if self.logarithmic else _even_ticks(self.low, self.high)

    def _step(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


def fit_scale(values: Iterable[float], start: float, end: float, *, may_be_log: bool = False) -> Scale:
    """Return a scale that holds all finite `values` with a little room at both ends.

    With `may_be_log` it is logarithmic if all values are positive and spread over a factor of eight or more.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if may_be_log and low > 0 and high / low >= _LOG_FROM_RATIO:
        room = (high / low) ** 0.04
        return Scale(low / room, high * room, start, end, logarithmic=True)
    room = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room, start, end)


def without_low_outliers(values: Sequence[float], *, keep: Iterable[float] = ()) -> list[float]:
    """Return the values that an axis should show: a few far below all others would press those into a corner.

    Left out is what lies three interquartile ranges below the first quartile, each range counted as at least 2% of the
    median; `keep` are values that have to be seen whatever they are.
    """
    if len(values) < _FEWEST_VALUES:
        return [*values, *keep]
    first, median, third = quantiles(values, n=4, method="inclusive")
    least = first - 3 * max(third - first, 0.02 * abs(median))
    return [*(value for value in values if value >= least), *keep]


def _even_ticks(low: float, high: float) -> tuple[float, ...]:
    raw = (high - low) / 6.5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(index * step for index in range(first, last + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7)):
        ticks = tuple(factor * 10.0**power for power in powers for factor in factors)
        inside = tuple(tick for tick in ticks if low <= tick <= high)
        if len(inside) >= 3:
            break
    return inside if len(inside) <= 7 else inside[:: math.ceil(len(inside) / 7)]
