"""Fitting of widths to budgets: ratios scaled until the costs fit, for many candidates at once."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from n2n_edge.graph.groups import ChannelGroup

__all__ = ["Fits", "Ratios", "Widths", "fit_widths", "widths_at"]

Widths = NDArray[np.int64]
"""(N, groups) widths of N candidates."""

Ratios = NDArray[np.float64]
"""(N, groups) wanted widths in proportion to the full ones."""

Fits = Callable[[Widths], NDArray[np.bool_]]
"""Tells of each of N candidates whether it meets the budgets."""

_SCALES = 16
_REFINEMENTS = 2
_LEAST_RATIO = 1e-3


def fit_widths(
    groups: Sequence[ChannelGroup],
    ratios: Ratios,
    fits: Fits,
    multiple: int = 1,
    largest_scale: float | None = None,
    *,
    roughly: bool = False,
) -> Widths:
    """Return, for each row of `ratios`, the widest widths in proportion to it for which `fits` holds.

    Ratios may be scaled up to `largest_scale`; None allows what brings every group to its full width.

    A common scale is found by trying sixteen at a time; what rounding to the channel multiple leaves of the budget is
    given to single groups, those furthest below their ratio first, unless `roughly`. Where not even the narrowest fits,
    that one is returned: its reward says how far off it is.
    """
    count = len(ratios)
    free = np.array([group.shrinkable for group in groups], bool)
    least = ratios[:, free].min(axis=1) if free.any() else np.ones(count)
    high = np.full(count, largest_scale) if largest_scale else 1.0 / np.maximum(least, _LEAST_RATIO)
    low = np.zeros(count)
    best = widths_at(groups, ratios, low, multiple)
    hopeless = np.zeros(count, bool)
    for attempt in range(_REFINEMENTS):
        steps = low + (high - low) * np.linspace(0.0, 1.0, _SCALES)[:, None]  # (scales, N)
        tried = widths_at(groups, np.tile(ratios, (_SCALES, 1)), steps.ravel(), multiple)
        good = fits(tried).reshape(_SCALES, count)
        if attempt == 0:
            hopeless = ~good[0]
        largest = np.where(good.any(axis=0), _SCALES - 1 - np.argmax(good[::-1], axis=0), 0)
        rows = np.arange(count)
        best = np.where(hopeless[:, None], best, tried.reshape(_SCALES, count, -1)[largest, rows])
        low, high = steps[largest, rows], steps[np.minimum(largest + 1, _SCALES - 1), rows]
    whole = low >= high
    if roughly or (hopeless | whole).all():
        return best
    return _filled(groups, best, ratios * low[:, None], fits, multiple, ~hopeless & ~whole)


def widths_at(groups: Sequence[ChannelGroup], ratios: Ratios, scale: NDArray[np.float64], multiple: int = 1) -> Widths:
    """Return the widths at `ratios` times `scale` `(N,)`, rounded to `multiple` and within 1 and full."""
    full = np.array([group.width for group in groups], np.int64)
    free = np.array([group.shrinkable for group in groups], bool)
    wanted = ratios * scale[:, None]
    rounded = np.clip(np.round(wanted * full / multiple) * multiple, multiple, full)
    small = np.clip(np.maximum(np.round(wanted * full), np.minimum(full, multiple) // 2), 1, full)
    widths: Widths = np.where(full <= multiple, small, rounded).astype(np.int64)
    return np.where((wanted >= 1) | ~free, full, widths)


def _filled(
    groups: Sequence[ChannelGroup],
    widths: Widths,
    targets: Ratios,
    fits: Fits,
    multiple: int,
    open_rows: NDArray[np.bool_],
) -> Widths:
    """Widen single groups by one multiple each as long as the budgets hold, the most short-changed first."""
    full = np.array([group.width for group in groups], np.int64)
    free = np.array([group.shrinkable for group in groups], bool)
    order = np.argsort(widths / full - targets, axis=1, kind="stable")
    rows = np.arange(len(widths))
    for rank in range(len(groups)):
        column = order[:, rank]
        wider = widths.copy()
        wider[rows, column] = np.minimum(full[column], widths[rows, column] + multiple)
        tried = open_rows & free[column] & (wider[rows, column] > widths[rows, column])
        if tried.any():
            widths = np.where((tried & fits(wider))[:, None], wider, widths)
    return widths
