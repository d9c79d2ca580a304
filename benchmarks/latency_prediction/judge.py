"""How good a prediction is: errors, rank correlation, and how often an interval holds."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_edge.calibration.fitting import interval

__all__ = ["Judgement", "judge", "rank_correlation"]


@dataclass(frozen=True)
class Judgement:
    """Errors as fractions of what was measured; `coverage` of a 90% interval made from the other models' errors."""

    models: int
    median_error: float
    p90_error: float
    within_10: float
    within_20: float
    rank_correlation: float
    coverage: float

    def to_json(self) -> dict[str, float]:
        """Return the figures, rounded."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def judge(
    logarithms: NDArray[np.float64], measured: NDArray[np.float64], usual: NDArray[np.bool_] | None = None
) -> Judgement:
    """Return the figures for predicted over measured values, given as logarithms `(models,)`.

    The coverage is of models that are `usual`: all, unless given.
    """
    errors = np.abs(np.exp(logarithms) - 1)
    told = logarithms if usual is None else logarithms[usual]
    bounds = [np.log(interval(np.delete(told, i))) for i in range(len(told))]
    covered = [low <= -error <= high for error, (low, high) in zip(told, bounds, strict=True)]
    return Judgement(
        len(errors),
        float(np.median(errors)),
        float(np.quantile(errors, 0.9)),
        float(np.mean(errors <= 0.1)),
        float(np.mean(errors <= 0.2)),
        rank_correlation(measured, measured * np.exp(logarithms)),
        float(np.mean(covered)),
    )


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation."""
    ranks = [np.argsort(np.argsort(each)).astype(float) for each in (x, y)]
    found = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    return found if math.isfinite(found) else 0.0
