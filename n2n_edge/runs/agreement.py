"""When two runs of a network agree: bounds on the difference of its outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from n2n_edge.graph.shape_run import Array

__all__ = ["MAX_RELATIVE_ERROR", "Difference", "worst_difference"]

MAX_RELATIVE_ERROR = 1e-3

ABSOLUTE_FLOOR = 1e-6
"""Differences up to this are rounding, however small the output: sigmoids may be nearly nought everywhere."""


@dataclass(frozen=True)
class Difference:
    """How far two runs are apart in one output: the largest difference beyond the floor, relative to its magnitude."""

    output: int
    relative: float

    @property
    def agrees(self) -> bool:
        """Whether this is rounding."""
        return self.relative <= MAX_RELATIVE_ERROR


def worst_difference(expected: Sequence[Array], got: Sequence[Array]) -> Difference:
    """Return the output that differs most; infinitely where shapes, or what is finite, aren't the same."""
    if len(expected) != len(got):
        return Difference(0, float("inf"))
    found = [Difference(index, _apart(a, b)) for index, (a, b) in enumerate(zip(expected, got, strict=True))]
    return max(found, key=lambda difference: difference.relative, default=Difference(0, 0.0))


def _apart(expected: Array, got: Array) -> float:
    if expected.shape != got.shape:
        return float("inf")
    if not np.issubdtype(expected.dtype, np.floating):
        return float(np.mean(expected != got)) if expected.size else 0.0
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)) or not np.array_equal(
        expected[~finite], got[~finite], equal_nan=True
    ):
        return float("inf")
    a, b = expected[finite].astype(np.float64), got[finite].astype(np.float64)
    beyond = float(np.abs(a - b).max(initial=0)) - ABSOLUTE_FLOOR
    if beyond <= 0:
        return 0.0
    largest = float(np.abs(a).max(initial=0))
    return beyond / largest if largest > 0 else float("inf")
