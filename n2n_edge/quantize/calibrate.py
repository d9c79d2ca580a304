"""Ranges of activations from one pass over calibration images: min-max, percentile, entropy and squared error.

The pass keeps one histogram a value (`histograms.py`); every method reads its range from that. Entropy is the
Kullback-Leibler divergence of TensorRT's calibration (Migacz, GTC 2017), squared error that of rounding and cutting off
together, summed over the histogram.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.errors import InputError
from n2n_edge.graph.shape_run import Array, run_graph_each
from n2n_edge.quantize.histograms import Histogram
from n2n_edge.quantize.ranges import Range

__all__ = ["METHODS", "Calibration", "Method", "least_divergence"]

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

_LEVELS = 255
_ENTROPY_BINS, _ENTROPY_LEVELS = 512, 255
"""Bins that entropy is worked out over, about so many (of more it takes minutes), and those of what is quantized."""
_SMALL = 1e-4
"""What stands for an empty bin in a divergence."""
_PERCENTILE = 99.99
_FACTORS = np.linspace(1.0, 0.2, 81)
_Floats = NDArray[np.float64]


class Calibration:
    """Histograms of a network's values over calibration images, and the ranges that follow from them."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)
        self.images = 0
        self._histograms: dict[str, Histogram] = {}

    @classmethod
    def of(cls, model: ir.Model, names: Collection[str], batches: Iterable[Mapping[str, Array]]) -> "Calibration":
        """Run `model` once on every batch, inputs by name ``(N, ...)``, and take in the values of these names.

        Raises:
            InputError: ONNX Runtime can't run the model, or there is no batch.
        """
        calibration = cls(names)
        inputs = [str(value.name) for value in model.graph.inputs]
        wanted = {name for name in names if name not in inputs}
        fed = list(wanted)
        kept: list[Mapping[str, Array]] = []

        def watched() -> Iterable[Mapping[str, Array]]:
            for batch in batches:
                kept.append(batch)
                yield batch

        for seen in run_graph_each(model, watched(), wanted):
            batch = kept.pop()
            given = {name: np.asarray(batch[name], np.float32) for name in names if name in batch}
            calibration.add({**{name: seen[name] for name in fed if name in seen}, **given})
            calibration.images += len(next(iter(batch.values())))
        if not calibration.images:
            raise InputError("calibration needs images: there are none")
        return calibration

    def add(self, values: Mapping[str, Array]) -> None:
        """Take in values of further images; what isn't a finite float is left out."""
        for name, array in values.items():
            if array.dtype != np.float32 or not array.size:
                continue
            lowest, highest = float(array.min()), float(array.max())
            if not (np.isfinite(lowest) and np.isfinite(highest)):
                continue
            old = self._histograms.get(name)
            add = Histogram.of if old is None else old.with_values
            self._histograms[name] = add(array, lowest, highest)

    def updated(self, newer: "Calibration") -> "Calibration":
        """Return this calibration with what another one saw in its stead, or besides."""
        result = Calibration(dict.fromkeys([*self.names, *newer.names]))
        result.images = self.images
        result._histograms = {**self._histograms, **newer._histograms}
        return result

    def ranges(self, method: Method) -> dict[str, Range]:
        """Return the range of every value that floats were seen of; all hold nought."""
        find = _FINDERS[method]
        found = {name: find(each) for name, each in self._histograms.items()}
        return {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in found.items()}


def _percentile(histogram: Histogram) -> Range:
    """Return the range that leaves half of what is cut off on either side, as `HistogramCollector` has it."""
    edges, cut = histogram.edges, (100.0 - _PERCENTILE) / 200.0
    share = np.cumsum(histogram.counts / histogram.counts.sum())
    low, high = (float(edges[np.searchsorted(share, part)]) for part in (cut, 1.0 - cut))
    return _within((low, high), histogram)


def _entropy(histogram: Histogram) -> Range:
    return _within(least_divergence(*_coarse(histogram)), histogram)


def least_divergence(hist: Array, edges: Array) -> Range:
    """Return the range about nought in which 255 levels differ least, by Kullback-Leibler divergence, from `hist`.

    What `HistogramCollector.get_entropy_threshold` of onnxruntime.quantization returns, to the bit, in a small part of
    the time: sums alone are taken row by row, since their rounding depends on where they begin.
    """
    middle, least = len(hist) // 2, _ENTROPY_LEVELS // 2
    halves = np.arange(least, middle + 1)
    starts, ends = middle - halves, np.minimum(middle + halves + 1, len(hist))
    below = np.concatenate([[0], np.cumsum(hist)])
    single = ends - starts < 2 * _ENTROPY_LEVELS  # a bin a level, the last level having all that is left
    divergences = np.full(len(halves), np.inf)
    if single.any():
        divergences[single] = _divergences(hist, below, starts[single], ends[single])
    for place in np.flatnonzero(~single):
        divergences[place] = _divergence(hist, below, int(starts[place]), int(ends[place]))
    best = int(np.argmin(divergences))
    return float(edges[starts[best]]), float(edges[min(middle + halves[best] + 1, len(hist))])


def _divergences(hist: Array, below: Array, starts: Array, ends: Array) -> _Floats:
    """Return the divergences of ranges of bins with fewer than two bins a level, one a row."""
    rows, places = np.arange(len(starts)), np.arange(len(hist))
    inside = (places >= starts[:, None]) & (places < ends[:, None])
    cut = np.where(inside, hist, 0)
    cut[rows, starts] += below[starts]
    cut[rows, ends - 1] += below[-1] - below[ends]
    last = starts + _ENTROPY_LEVELS - 1
    levels = np.where(places < last[:, None], np.where(inside, hist, 0), 0)
    levels[rows, last] = np.where(cut[rows, last] != 0, below[ends] - below[last], 0)
    found = np.full(len(starts), np.inf)
    told = cut.any(axis=1) & levels.any(axis=1)
    wanted, given = (_smoothed(each[told], inside[told]) for each in (cut, levels))
    found[told] = _kullback_leibler(wanted, given, inside[told])
    return found


def _divergence(hist: Array, below: Array, start: int, end: int) -> float:
    """Return the divergence of one range of bins, several bins a level."""
    part = hist[start:end]
    cut = part.copy()
    cut[0] += below[start]
    cut[-1] += below[-1] - below[end]
    merged = len(part) // _ENTROPY_LEVELS
    body = merged * _ENTROPY_LEVELS
    sums = part[:body].reshape(-1, merged).sum(axis=1)
    sums[-1] += part[body:].sum()
    filled = (cut[:body] != 0).reshape(-1, merged).sum(axis=1)
    levels = np.zeros(len(part), np.int64)
    levels[:body] = np.repeat(np.where(filled > 0, sums / np.maximum(filled, 1), 0), merged)
    if not (cut.any() and levels.any()):
        return np.inf
    inside = np.ones((1, len(part)), bool)
    return float(_kullback_leibler(_smoothed(cut[None], inside), _smoothed(levels[None], inside), inside)[0])


def _smoothed(counts: Array, inside: Array) -> NDArray[np.float32]:
    """Return distributions without noughts, one a row, by a little taken off what isn't nought; each sums to 1."""
    nought = (counts == 0) & inside
    zeros = nought.sum(axis=1, keepdims=True)
    raised = -_SMALL * zeros / (inside.sum(axis=1, keepdims=True) - zeros)
    change = np.where(nought, np.float32(_SMALL), raised.astype(np.float32))
    smooth = np.where(inside, counts.astype(np.float32) + change, np.float32(0))
    return np.asarray(smooth / _sums(smooth, inside)[:, None], np.float32)


def _kullback_leibler(wanted: Array, given: Array, inside: Array) -> _Floats:
    ratio = np.divide(wanted, given, out=np.ones_like(wanted), where=inside)
    return np.asarray(_sums(wanted * np.log(ratio), inside), np.float64)


def _sums(rows: Array, inside: Array) -> NDArray[np.float32]:
    starts, counts = inside.argmax(axis=1), inside.sum(axis=1)
    parts = [row[start : start + count].sum() for row, start, count in zip(rows, starts, counts, strict=True)]
    return np.asarray(parts, np.float32)


def _coarse(histogram: Histogram) -> tuple[Array, Array]:
    """Return counts and edges of at most `_ENTROPY_BINS`, nought between the two in the middle."""
    hist, edges = histogram.counts, histogram.edges
    half = len(hist) // 2
    step = max(1, -(-half // (_ENTROPY_BINS // 2)))
    extra = -half % step
    padded = np.pad(hist, (extra, extra))
    width = float(edges[1] - edges[0])
    start = float(edges[0]) - extra * width
    merged = padded.reshape(-1, step).sum(axis=1)
    return merged, (start + width * step * np.arange(len(merged) + 1)).astype(np.float32)


def _within(found: Range, histogram: Histogram) -> Range:
    """Return a range cut off at what was seen; all that was seen where it is empty."""
    low, high = max(found[0], histogram.lowest), min(found[1], histogram.highest)
    return (low, high) if low < high else (histogram.lowest, histogram.highest)


def _least_squares(histogram: Histogram) -> Range:
    """Return the range of the least squared error: both ends drawn in together, then each alone."""
    hist, edges, lowest, highest = histogram.counts, histogram.edges, histogram.lowest, histogram.highest
    low, high = min(lowest, 0.0), max(highest, 0.0)
    if not low < high:
        return low, high
    used = hist > 0
    centres = ((edges[:-1] + edges[1:]) / 2)[used].astype(np.float64)
    weights = hist[used].astype(np.float64)
    weights[np.abs(centres) < float(edges[1] - edges[0])] = 0.0  # mostly what a Relu made nought, which is exact
    best = _FACTORS[np.argmin(_errors(centres, weights, low * _FACTORS, high * _FACTORS))]
    low, high = low * best, high * best
    grown = np.concatenate([_FACTORS, 1 / _FACTORS[1:21]])
    lows = np.maximum(low * grown, min(lowest, 0.0))
    low = float(lows[np.argmin(_errors(centres, weights, lows, np.full_like(lows, high)))])
    highs = np.minimum(high * grown, max(highest, 0.0))
    return low, float(highs[np.argmin(_errors(centres, weights, np.full_like(highs, low), highs))])


def _errors(centres: _Floats, weights: _Floats, lows: _Floats, highs: _Floats) -> _Floats:
    """Return the squared error of values at `centres`, quantized to 8 bits in each of the ranges."""
    scale = np.maximum((highs - lows) / _LEVELS, np.finfo(np.float64).tiny)[:, None]
    zero = np.rint(-lows[:, None] / scale)
    steps = np.clip(np.rint(centres / scale) + zero, 0, _LEVELS)
    within = (zero + centres / scale > 0) & (zero + centres / scale < _LEVELS)
    # errors of rounding have the variance of a uniform distribution, as bins may be wider than steps
    rounding = np.where(within, scale**2 / 12, ((steps - zero) * scale - centres) ** 2)
    errors: _Floats = rounding @ weights
    return errors


_FINDERS: Mapping[Method, Callable[[Histogram], Range]] = {
    "minmax": lambda histogram: (histogram.lowest, histogram.highest),
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _least_squares,
}
