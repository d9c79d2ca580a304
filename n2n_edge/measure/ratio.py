"""The ratio of two models' times: its interval from rounds in turns, and what that settles."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_ROUNDS", "LEVEL", "Comparison", "Verdict", "ratio_interval", "student_t", "verdict_of"]

LEVEL = 0.99
"""Confidence of one interval. It is looked at a few times, which a 95% interval wouldn't stand."""
LEAST_ROUNDS = 8
"""Fewer can't give such an interval without an assumption: that all rounds lie on one side of the truth happens to 8 in
0.8% of cases. None is looked at before; with fewer the time was up, and one look is all there is."""
ROUNDS_SD = 0.1
"""The least deviation of a round's log ratio that is reckoned with while rounds are few: that they agree by chance says
nothing of the spread. Processes of one model differ by 1 to 3%, see docs/measuring.md."""
RESAMPLES = 2000
_LARGEST_LOG = 700.0

Verdict = Literal["same", "slower", "faster", "inconclusive"]


@dataclass(frozen=True)
class Comparison:
    """One model against the first: the ratio of their medians with its interval at confidence `level`.

    `verdict`: ``slower`` or ``faster`` if the interval leaves out 1 and reaches beyond `threshold` (a share) to that
    side, ``same`` if all of it lies within the threshold, else ``inconclusive``.
    """

    ratio: float
    low: float
    high: float
    level: float
    rounds: int
    threshold: float
    verdict: Verdict


def ratio_interval(log_ratios: NDArray[np.float64], level: float = LEVEL, seed: int = 0) -> tuple[float, float, float]:
    """Return the ratio and its interval from logarithms `(rounds, cycles)` of ratios of block medians.

    The estimate is the median over all cycles. The interval is a bootstrap's that draws rounds, then cycles within
    them, since cycles of one round share a process; percentiles are taken further out by as much as Student's t exceeds
    the normal for so few rounds (the expanded percentile interval of Hesterberg 2015, "What Teachers Should Know About
    the Bootstrap", section 4.3). Of fewer than `LEAST_ROUNDS` rounds no percentile is that sure: theirs is Student's,
    wide enough for `ROUNDS_SD` at least, so that it settles what is plain, and nothing else.
    """
    rounds, cycles = log_ratios.shape
    estimate = float(np.median(log_ratios))
    if rounds < 2:
        return math.exp(estimate), 0.0, math.inf
    if rounds < LEAST_ROUNDS:
        of_rounds = np.median(log_ratios, axis=1)
        deviation = max(float(np.std(of_rounds, ddof=1)), ROUNDS_SD)
        half = student_t(0.5 + level / 2, rounds - 1) * deviation / math.sqrt(rounds)
        centre = float(np.mean(of_rounds))
        return math.exp(estimate), math.exp(centre - half), _exp(centre + half)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, rounds, (RESAMPLES, rounds, 1))
    within = generator.integers(0, cycles, (RESAMPLES, rounds, cycles))
    medians = np.median(log_ratios[drawn, within], axis=(1, 2))
    tail = NormalDist().cdf(-math.sqrt(rounds / (rounds - 1)) * student_t(0.5 + level / 2, rounds - 1))
    low, high = np.quantile(medians, [tail, 1 - tail])
    return math.exp(estimate), math.exp(low), math.exp(high)


def verdict_of(low: float, high: float, threshold: float) -> Verdict:
    """Return what an interval of a ratio says at a threshold; see `Comparison`."""
    if 1 / (1 + threshold) < low and high < 1 + threshold:
        return "same"
    if low > 1:
        return "slower"
    if high < 1:
        return "faster"
    return "inconclusive"


def student_t(p: float, degrees: int) -> float:
    """Return the `p` quantile of Student's t, from three degrees on by its expansion (Abramowitz and Stegun 26.7.5).

    Within 2% of the tables at the probabilities used here.
    """
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z, v = NormalDist().inv_cdf(p), degrees
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / v ** (power + 1) for power, term in enumerate(terms))


def _exp(log: float) -> float:
    return math.exp(log) if log < _LARGEST_LOG else math.inf
