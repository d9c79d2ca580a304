"""Paired bootstrap: the difference of two models' scores on the same images, with its interval."""

import numpy as np
from numpy.typing import NDArray

from n2n_edge.metrics.figures import Figure
from n2n_edge.tasks.task import Meter

__all__ = ["chance_error", "paired_difference", "resampled_metrics"]

_RESAMPLES, _FEW_RESAMPLES = 1000, 50
_SEED = 0
_INTERVAL = (2.5, 97.5)


def paired_difference(before: Meter, after: Meter, resamples: int = _RESAMPLES) -> Figure | None:
    """Return the points by which `after` scores above `before`, with their 95% interval; None without labels.

    Both meters have seen the same images in the same order. The interval is between percentiles of the difference over
    samples of the images with replacement (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13), the
    same sample for both; where a meter can't be resampled there is none.
    """
    first, second = before.evaluation(), after.evaluation()
    if first.score is None or second.score is None:
        return None
    source = np.random.default_rng(_SEED)
    differences = []
    for _ in range(resamples):
        chosen = source.integers(0, second.n, second.n)
        pair = before.score_of(chosen), after.score_of(chosen)
        if pair[0] is not None and pair[1] is not None:  # a sample may lack all that a metric counts
            differences.append(100 * (pair[1] - pair[0]))
    low, high = np.percentile(differences, _INTERVAL) if differences else (None, None)
    return Figure(
        100 * (second.score - first.score),
        "points",
        "measured",
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        n=second.n,
    )


def chance_error(before: Meter, after: Meter) -> float:
    """Return by how much the difference of two metrics, in 0..1, varies with the images that happened to be looked at.

    It is the standard deviation over samples of the images with replacement, the same sample for both (as for
    `paired_difference`); 0 where a meter can't be resampled.
    """
    pairs = zip(resampled_metrics(before, _FEW_RESAMPLES), resampled_metrics(after, _FEW_RESAMPLES), strict=True)
    differences = [new - old for old, new in pairs if old is not None and new is not None]
    return float(np.std(differences)) if differences else 0.0


def resampled_metrics(meter: Meter, resamples: int) -> tuple[float | None, ...]:
    """Return a meter's metric, in 0..1, on so many samples of its images with replacement; None where it can't tell.

    The samples are the same for all meters that have seen as many images.
    """
    source = np.random.default_rng(_SEED)
    count = meter.evaluation().n
    return tuple(_metric_of(meter, source.integers(0, count, count)) for _ in range(resamples))


def _metric_of(meter: Meter, chosen: NDArray[np.intp]) -> float | None:
    """Return the score of these images where there are labels, else the fidelity."""
    if meter.evaluation().score is not None:
        return meter.score_of(chosen)
    found = meter.resampled(chosen)
    return None if found is None else found.fidelity
