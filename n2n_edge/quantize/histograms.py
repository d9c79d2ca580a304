"""Histograms of values about nought that grow with what they are given.

Bins are those of onnxruntime.quantization's `HistogramCollector`, whose `numpy.histogram` takes most of a calibration's
time: here indices are calculated in float32, block by block, so that a value within rounding of an edge may be counted
in the bin beside it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Histogram"]

_BINS = 2048
_WIDER = 64
"""Times by which a value may exceed what was seen before until a histogram gets wider bins instead of more."""
_BLOCK = 1 << 15
"""Values that are counted at once: few enough to stay in a processor's cache."""

_Floats = NDArray[np.float32]
_Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width from -`limit` to `limit`, and the least and the largest value that was seen."""

    counts: _Counts
    limit: float
    lowest: float
    highest: float

    @property
    def edges(self) -> _Floats:
        """The edges of the bins, one more than there are counts."""
        return np.linspace(-self.limit, self.limit, len(self.counts) + 1).astype(np.float32)

    @classmethod
    def of(cls, values: _Floats, lowest: float, highest: float) -> "Histogram":
        """Return the histogram of finite values from `lowest` to `highest`."""
        limit = max(-lowest, highest)
        return cls(_counted(values, _BINS, limit), limit, lowest, highest)

    def with_values(self, values: _Floats, lowest: float, highest: float) -> "Histogram":
        """Return the histogram of these finite values, from `lowest` to `highest`, and of those before.

        It gets more bins of the same width where they exceed it, wider ones where they do by far.
        """
        reach = max(-lowest, highest)
        old = self._widened(reach) if 0 < self.limit * _WIDER < reach else self
        bins, limit, more = len(old.counts), old.limit, 0
        if reach > limit == 0:
            limit = reach
        elif reach > limit:
            width = 2 * limit / bins
            more = int((reach - limit) // width + 1)
            bins, limit = bins + 2 * more, limit + more * width
        counts = _counted(values, bins, limit)
        counts[more : bins - more] += old.counts
        return Histogram(counts, limit, min(old.lowest, lowest), max(old.highest, highest))

    def _widened(self, limit: float) -> "Histogram":
        edges = self.edges
        centres = (edges[:-1].astype(np.float64) + edges[1:]) / 2
        wide, _ = np.histogram(centres, _BINS, range=(-limit, limit), weights=self.counts)
        return Histogram(np.rint(wide).astype(np.int64), limit, self.lowest, self.highest)


def _counted(values: _Floats, bins: int, limit: float) -> _Counts:
    """Return how many values lie in each of so many bins from -`limit` to `limit`."""
    counts = np.zeros(bins, np.int64)
    flat = values.reshape(-1)
    if not limit > 0:
        counts[bins // 2] = flat.size
        return counts
    factor, middle = np.float32(bins / (2 * limit)), np.float32(bins / 2)
    place = np.empty(_BLOCK, np.float32)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        scaled = place[: part.size]
        np.multiply(part, factor, out=scaled)
        scaled += middle
        np.clip(scaled, 0, bins - 1, out=scaled)
        counts += np.bincount(scaled.astype(np.intp), minlength=bins)
    return counts
