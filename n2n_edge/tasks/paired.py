"""Paired bootstrap: the difference of two models' scores on the same images, with its interval."""

import numpy as np

from n2n_edge.metrics.figures import Figure
from n2n_edge.tasks.task import Meter

__all__ = ["paired_difference"]

_RESAMPLES = 1000
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
