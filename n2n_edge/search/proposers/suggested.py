"""Widths that a sensitivity profile suggests: where the rise of the loss and the price of the costs balance."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from n2n_edge.graph.groups import ChannelGroup
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.fitting import widths_at
from n2n_edge.search.precision import Base

__all__ = ["balanced_ratios"]

Matrix = NDArray[np.float64]

_RATIOS = np.linspace(0.1, 1.0, 37)
"""Width ratios among which each group's is chosen."""

_PRICES = 10.0 ** np.linspace(-4.0, 4.0, 49)
"""Prices of cost in loss that are tried, around what a group suffers and costs on average."""


def balanced_ratios(meter: CostMeter, base: Base, rise: Callable[[ChannelGroup, float], float]) -> Matrix:
    """Return rows of width ratios, in the order of the base graph's groups, that about meet the budgets.

    Each group gets the ratio at which ``rise(group, ratio)`` and the price of what it costs, of the budgets that are
    exceeded, are least together; the price is the lowest at which the budgets are met, and in the last row the one
    before it (Lagrange's multiplier of a separable problem: Everett, Operations Research 11(3), 1963). A group costs in
    proportion to its width what half of it saves of the whole network: costs are products of widths, but looking at
    them again near the ratios found lets neighbours take turns at being narrow, and finds worse ones. There is no row
    where no budget asks for anything.
    """
    groups = meter.teacher.base_graph(*base.depth).groups
    free = [index for index, group in enumerate(groups) if group.shrinkable]
    slopes = _slopes(meter, base, groups, free)
    if not slopes.any():
        return np.ones((0, len(groups)))
    rises = np.array([[rise(groups[index], ratio) for ratio in _RATIOS] for index in free])
    unit = max(float(rises.mean()), 1e-9) / float(slopes.mean())
    table = np.ones((len(_PRICES), len(groups)))
    for row, price in enumerate(_PRICES):
        table[row, free] = _RATIOS[np.argmin(rises + price * unit * slopes[:, None] * _RATIOS, axis=1)]
    costs = meter.predicted(base, widths_at(groups, table, np.ones(len(table)), meter.multiple))
    met = meter.predicted_excesses(costs) <= 0
    row = int(np.argmax(met)) if met.any() else len(table) - 1
    return table[[row, max(row - 1, 0)]]


def _slopes(meter: CostMeter, base: Base, groups: Sequence[ChannelGroup], free: Sequence[int]) -> Matrix:
    """Return what each free group costs for its whole width, in units of the limits that are exceeded."""
    full = np.array([group.width for group in groups], np.int64)
    table = np.repeat(full[None], len(free) + 1, axis=0)
    for row, index in enumerate(free):
        table[row, index] = max(1, table[row, index] // 2)
    costs = meter.predicted(base, table)
    slopes = np.zeros(len(free))
    for cost, limit in meter.limits.items():
        if costs[cost][-1] > meter.limit_to_use(cost):
            slopes += np.maximum(costs[cost][-1] - costs[cost][:-1], 0.0) / limit
    return slopes
