"""Rises of the loss by group and width, from the few that were probed and what the groups' readers lose."""

from collections.abc import Mapping
from math import fsum

import numpy as np

__all__ = ["PROBED", "RATIOS", "average_rise", "group_rises", "scale_of_rises"]

PROBED = (0.25, 0.5)
"""Ratios at which groups are narrowed alone."""

RATIOS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Ratios at which a profile has their rises; those of `PROBED` are among them."""

_WITHOUT_PROBE = 1.0
"""The rise of the average group at the least of `RATIOS`, where nothing was probed."""

_HALF_OF_QUARTER = 0.5
"""The rise at half the width, in units of that at a quarter, where none is known."""


def group_rises(
    probed: Mapping[str, Mapping[float, float]],
    lost: Mapping[str, Mapping[float, float] | None],
    scale: float,
) -> Mapping[str, tuple[float, ...]]:
    """Return the rise of the loss of every group of `lost` at each of `RATIOS`.

    `probed` has what was measured, by group and ratio of `PROBED`; `lost` what the layers that read a group lose at
    each of `RATIOS`, None where that isn't known (see `Teacher.lost`). A group's rises are in proportion to that, by
    the nearest ratio of its own that was probed, otherwise `scale` times it (see `scale_of_rises`). Of a group without
    it, they are a line between its probes, or those of the average group.
    """
    quarters = [rises[PROBED[0]] for rises in probed.values() if PROBED[0] in rises]
    both = [rises for rises in probed.values() if len(rises) == len(PROBED)]
    whole = sum(rises[PROBED[0]] for rises in both)
    falls = sum(rises[PROBED[1]] for rises in both) / whole if whole else _HALF_OF_QUARTER
    average = sum(quarters) / len(quarters) if quarters else 0.0

    def rises_of(name: str, shares: Mapping[float, float] | None) -> tuple[float, ...]:
        own = probed.get(name, {})
        if shares is None:
            quarter = own.get(PROBED[0], average)
            points = [2 * quarter, quarter, own.get(PROBED[1], falls * quarter), 0.0]
            return tuple(np.interp(RATIOS, [0.0, *PROBED, 1.0], points).tolist())
        found = []
        for ratio in RATIOS:
            nearest = min(own, key=lambda tried: abs(tried - ratio), default=None)
            if nearest is not None and shares[nearest] > 0:
                found.append(own[nearest] * shares[ratio] / shares[nearest])
            else:
                found.append(own.get(ratio, scale * shares[ratio]))
        return tuple(found)

    return {name: rises_of(name, shares) for name, shares in lost.items()}


def scale_of_rises(
    probed: Mapping[str, Mapping[float, float]],
    lost: Mapping[str, Mapping[float, float] | None],
    layers: Mapping[str, float],
) -> float:
    """Return the rise of the loss for each unit of what readers lose.

    That is by all probes of groups together; where there is none, the average group at the least of `RATIOS` counts as
    much as one of `layers`, the rises of those taken out alone, or as 1.
    """
    pairs = [
        (rise, shares[ratio])
        for name, rises in probed.items()
        if (shares := lost.get(name)) is not None
        for ratio, rise in rises.items()
    ]
    given = fsum(share for _, share in pairs)
    if given > 0:
        return fsum(rise for rise, _ in pairs) / given
    known = [shares[RATIOS[0]] for shares in lost.values() if shares is not None]
    mean = fsum(known) / len(known) if known else 0.0
    whole = fsum(layers.values()) / len(layers) if layers else 0.0
    return (whole if whole > 0 else _WITHOUT_PROBE) / (mean if mean > 0 else 1.0)


def average_rise(rises: Mapping[str, tuple[float, ...]]) -> float:
    """Return the rise of the average group at the least of `RATIOS`; nought where there is no group."""
    return fsum(each[0] for each in rises.values()) / len(rises) if rises else 0.0
