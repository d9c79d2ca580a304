"""Ranges of activations from one pass over calibration images: min-max, percentile, entropy and squared error.

The pass keeps one histogram a value (onnxruntime.quantization's `HistogramCollector`); every method reads its range
from that. Entropy is the Kullback-Leibler divergence of TensorRT's calibration (Migacz, GTC 2017), squared error that
of rounding and cutting off together, summed over the histogram.
"""

import contextlib
import io
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.errors import InputError
from n2n_edge.graph.shape_run import Array, run_graph_each
from n2n_edge.quantize.qdq import Range

__all__ = ["METHODS", "Calibration", "Method", "least_divergence"]

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

_BINS = 2048
_LEVELS = 255
_ENTROPY_BINS, _ENTROPY_LEVELS = 512, 255
"""Bins that entropy is worked out over, about so many (of more it takes minutes), and those of what is quantized."""
_SMALL = 1e-4
"""What stands for an empty bin in a divergence."""
_PERCENTILE = 99.99
_WIDER = 64
"""Times by which a value may exceed what was seen before until its histogram starts anew, with wider bins."""
_FACTORS = np.linspace(1.0, 0.2, 81)
_Floats = NDArray[np.float64]


class Calibration:
    """Histograms of a network's values over calibration images, and the ranges that follow from them."""

    def __init__(self, names: Collection[str]) -> None:
        from onnxruntime.quantization.calibrate import HistogramCollector

        self.names = tuple(names)
        self.images = 0
        self._collector = HistogramCollector("entropy", False, _BINS, _ENTROPY_LEVELS, _PERCENTILE, "same")

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
        floats = {name: array for name, array in values.items() if array.dtype == np.float32 and array.size}
        finite = {name: array for name, array in floats.items() if np.isfinite(array).all()}
        for name, array in finite.items():
            self._widen(name, float(np.abs(array).max()))
        with contextlib.redirect_stdout(io.StringIO()):
            self._collector.collect(finite)

    def _widen(self, name: str, largest: float) -> None:
        """Merge the bins of a value that by far exceeds what was seen: the collector adds bins of the same width."""
        histograms = self._collector.histogram_dict
        if name not in histograms:
            return
        hist, edges, low, high, threshold = histograms[name]
        if not 0 < threshold * _WIDER < largest:
            return
        centres = (edges[:-1].astype(np.float64) + edges[1:]) / 2
        wide, edges = np.histogram(centres, _BINS, range=(-largest, largest), weights=hist)
        edges, threshold = edges.astype(np.float32), np.float32(largest)
        histograms[name] = (np.rint(wide).astype(np.int64), edges, low, high, threshold)

    def ranges(self, method: Method) -> dict[str, Range]:
        """Return the range of every value that floats were seen of; all hold nought."""
        histograms = self._collector.get_histogram_dict()
        if method == "minmax":
            found = {name: (float(each[2]), float(each[3])) for name, each in histograms.items()}
        elif method == "mse":
            found = {
                name: _least_squares(each[0], each[1], float(each[2]), float(each[3]))
                for name, each in histograms.items()
            }
        else:
            computed = self._percentiles() if method == "percentile" else _entropies(histograms)
            found = {name: _within(each, histograms[name]) for name, each in computed.items()}
        return {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in found.items()}

    def _percentiles(self) -> dict[str, Range]:
        with contextlib.redirect_stdout(io.StringIO()):
            computed = self._collector.compute_percentile()
        return {name: (float(each[0]), float(each[1])) for name, each in computed.items()}


def _entropies(histograms: Mapping[str, tuple[Array, ...]]) -> dict[str, Range]:
    coarse = {name: _coarse(each) for name, each in histograms.items()}
    return {name: least_divergence(each[0], each[1]) for name, each in coarse.items()}


def least_divergence(hist: Array, edges: Array) -> Range:
    """Return the range about nought in which 255 levels differ least, by Kullback-Leibler divergence, from `hist`.

    What `HistogramCollector.get_entropy_threshold` of onnxruntime.quantization returns, to the bit, in less time.
    """
    middle, least = len(hist) // 2, _ENTROPY_LEVELS // 2
    below = np.concatenate([[0], np.cumsum(hist)])
    divergences = np.full(middle - least + 1, np.inf)
    for half in range(least, middle + 1):
        start, end = middle - half, min(middle + half + 1, len(hist))
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
        if cut.any() and levels.any():
            wanted, given = _smoothed(cut), _smoothed(levels)
            divergences[half - least] = (wanted * np.log(wanted / given)).sum()
    half = least + int(np.argmin(divergences))
    return float(edges[middle - half]), float(edges[min(middle + half + 1, len(hist))])


def _smoothed(counts: Array) -> NDArray[np.float32]:
    """Return a distribution without noughts, by a little taken off what isn't nought; it sums to 1."""
    nought = counts == 0
    zeros = np.count_nonzero(nought)
    raised = -_SMALL * zeros / (len(counts) - zeros)
    smooth = counts.astype(np.float32) + np.where(nought, np.float32(_SMALL), np.float32(raised))
    result: NDArray[np.float32] = smooth / smooth.sum()
    return result


def _coarse(histogram: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return a histogram with at most `_ENTROPY_BINS`, nought between the two in the middle."""
    hist, edges, *rest = histogram
    half = len(hist) // 2
    step = max(1, -(-half // (_ENTROPY_BINS // 2)))
    extra = -half % step
    padded = np.pad(hist, (extra, extra))
    width = float(edges[1] - edges[0])
    start = float(edges[0]) - extra * width
    merged = padded.reshape(-1, step).sum(axis=1)
    return (merged, (start + width * step * np.arange(len(merged) + 1)).astype(np.float32), *rest)


def _within(found: Range, histogram: tuple[Array, ...]) -> Range:
    """Return a range cut off at what was seen; all that was seen where it is empty."""
    low, high = max(found[0], float(histogram[2])), min(found[1], float(histogram[3]))
    return (low, high) if low < high else (float(histogram[2]), float(histogram[3]))


def _least_squares(hist: Array, edges: Array, lowest: float, highest: float) -> Range:
    """Return the range of the least squared error: both ends drawn in together, then each alone."""
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
