"""The distribution of a sample of times, as counts."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Histogram", "histogram_of"]


@dataclass(frozen=True)
class Histogram:
    """How many times fell into each of some bins of equal width from `low_ms` on; `beyond` came after the last."""

    low_ms: float
    bin_ms: float
    counts: tuple[int, ...]
    beyond: int


def histogram_of(samples_ms: Sequence[float], bins: int) -> Histogram:
    """Return the distribution of a sample; times beyond three times the middle half's width aren't spread out."""
    samples = sorted(samples_ms)
    low, top = samples[0], samples[-1]
    quarter, three = samples[len(samples) // 4], samples[3 * len(samples) // 4]
    edge = min(top, max(three + 3 * (three - quarter), low * 1.001))
    width = (edge - low) / bins or 1e-9
    counts = [0] * bins
    beyond = 0
    for sample in samples:
        if sample > edge:
            beyond += 1
        else:
            counts[min(bins - 1, int((sample - low) / width))] += 1
    return Histogram(low, width, tuple(counts), beyond)
