"""Which candidates no other one beats."""

import math
from collections.abc import Sequence

__all__ = ["pareto_front"]


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> tuple[int, ...]:
    """Return the places of the points ``(cost, accuracy)`` that no other beats, from the cheapest to the dearest.

    One point beats another if it costs no more and is at least as accurate, and is better in one of the two. Of points
    that are equal in both the first stands for all. Points that lack a figure, or have one that isn't finite, take no
    part.
    """
    known = [
        (cost, -accuracy, place)
        for place, (cost, accuracy) in enumerate(points)
        if cost is not None and accuracy is not None and math.isfinite(cost) and math.isfinite(accuracy)
    ]
    front: list[int] = []
    best = math.inf
    for _, negative, place in sorted(known):
        if negative < best:
            front.append(place)
            best = negative
    return tuple(front)
