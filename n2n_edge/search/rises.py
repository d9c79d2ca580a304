"""Rises of the loss by group and width, from the few that were probed and what the groups' readers lose."""

from collections.abc import Mapping

import numpy as np

__all__ = ["PROBED", "RATIOS", "group_rises", "rise_of_loss"]

PROBED = (0.25, 0.5)
"""Ratios at which groups are narrowed alone."""

RATIOS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Ratios at which a profile has their rises; those of `PROBED` are among them."""

_WITHOUT_PROBE = 1.0
"""The rise of a group whose readers lose all that they give, where nothing was probed."""

_HALF_OF_QUARTER = 0.5
"""The rise at half the width, in units of that at a quarter, where none is known."""


def group_rises(
    probed: Mapping[str, Mapping[float, float]],
    lost: Mapping[str, Mapping[float, float] | None],
    scale: float,
) -> Mapping[str, tuple[float, ...]]:
    """Return the rise of the loss of every group of `lost` at each of `RATIOS`.

    `probed` has what was measured, by group and ratio of `PROBED`; `lost` the error of the layers that read a group at
    each of `RATIOS`, as a share of what they give, None where that isn't known (see `Teacher.lost_shares`). A group's
    rises are in proportion to that error, by the nearest ratio of its own that was probed, otherwise `scale` times it
    (see `rise_of_loss`). Of a group without it, they are a line between its probes, or those of the average group.
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


def rise_of_loss(
    probed: Mapping[str, Mapping[float, float]],
    lost: Mapping[str, Mapping[float, float] | None],
    layers: Mapping[str, float],
) -> float:
    """Return the rise of the loss where a group's readers lose as much as one of them gives.

    That is by all probes of groups together; where there is none by the mean rise of `layers` taken out alone, or 1.
    """
    pairs = [
        (rise, shares[ratio])
        for name, rises in probed.items()
        if (shares := lost.get(name)) is not None
        for ratio, rise in rises.items()
    ]
    given, whole = sum(share for _, share in pairs), sum(layers.values())
    if given > 0:
        return sum(rise for rise, _ in pairs) / given
    return whole / len(layers) if whole > 0 else _WITHOUT_PROBE
