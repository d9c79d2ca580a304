"""Which candidates no other one beats."""

import math
from collections.abc import Sequence

__all__ = ["pareto_front"]


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> tuple[int, ...]:
    """Return the places of the points ``(cost, score)`` that no other beats, from the cheapest to the dearest.

    One point beats another if it costs no more and scores at least as high, and is better in one of the two. Of points
    that are equal in both the first stands for all. Points that lack a figure, or have one that isn't finite, take no
    part.
    """
    known = [
        (cost, -score, place)
        for place, (cost, score) in enumerate(points)
        if cost is not None and score is not None and math.isfinite(cost) and math.isfinite(score)
    ]
    front: list[int] = []
    best = math.inf
    for _, negative, place in sorted(known):
        if negative < best:
            front.append(place)
            best = negative
    return tuple(front)
