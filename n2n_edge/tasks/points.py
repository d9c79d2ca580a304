"""Points of objects, such as joints and landmarks: reading them from outputs, and how near two sets of them are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_edge.tasks.boxes import Floats

__all__ = ["Nearness", "PointForm", "nearness_of", "point_distances", "point_form", "points_of"]

_LIKENESS = 0.1
"""At this share of an object's size a point's likeness is exp(-1/2): about what COCO allows a hip (2 k = 0.2)."""


@dataclass(frozen=True)
class PointForm:
    """How an output is read as points: `maps` `(N, K, H, W)` by their highest cell, else numbers `(N, 2K)`.

    `channels_last` are maps `(N, H, W, K)`; `shares` are numbers in 0..1 of the image instead of pixels. Of each point
    there are so many `numbers`: x and y, and perhaps a third, such as its score or visibility, `(N, 3K)`.
    """

    count: int
    maps: bool = False
    channels_last: bool = False
    shares: bool = True
    numbers: int = 2


def point_form(shape: Sequence[int], height: int, width: int, count: int | None = None) -> PointForm | None:
    """Return how an output of `shape` for one image may be read as points, None where it can't.

    `count` is how many there are, None where nobody says. Then a row that two and three numbers a point would explain
    is of two.
    """
    sizes = tuple(shape[1:])
    if len(sizes) == 1:
        forms = [PointForm(sizes[0] // each, numbers=each) for each in (2, 3) if not sizes[0] % each and sizes[0] >= 4]
        fitting = [each for each in forms if count in (None, each.count)]
        return next(iter(fitting or forms), None)
    if len(sizes) == 2 and sizes[1] in (2, 3):
        return PointForm(sizes[0], numbers=sizes[1])
    if len(sizes) == 3:
        for count, area, last in ((sizes[0], sizes[1:], False), (sizes[2], sizes[:2], True)):
            if abs(area[0] * width - area[1] * height) < max(height, width) and area[0] <= height and count > 1:
                return PointForm(count, maps=True, channels_last=last)
    return None


def points_of(output: Floats, form: PointForm, height: int, width: int) -> Floats:
    """Return points `(N, K, 2)`, x before y, in pixels of an image `height` by `width`.

    A map's point is its highest cell, moved by a quarter towards the higher neighbour (Newell et al., Stacked Hourglass
    Networks, 2016).
    """
    if not form.maps:
        points = output.reshape(len(output), -1, form.numbers)[..., :2]
        return points * np.array([width, height], np.float32) if form.shares else points
    maps = output.transpose(0, 3, 1, 2) if form.channels_last else output
    rows, columns = maps.shape[2:]
    best = maps.reshape(*maps.shape[:2], -1).argmax(axis=2)
    y, x = best // columns, best % columns
    found = np.stack([x, y], axis=-1).astype(np.float32)
    image, point = np.ogrid[: maps.shape[0], : maps.shape[1]]
    for axis, (place, size) in enumerate(((x, columns), (y, rows))):
        inner = (place > 0) & (place < size - 1)
        before, after = np.clip(place - 1, 0, size - 1), np.clip(place + 1, 0, size - 1)
        pair = [(y, before), (y, after)] if axis == 0 else [(before, x), (after, x)]
        low, high = (maps[image, point, row, column] for row, column in pair)
        found[..., axis] += np.where(inner, 0.25 * np.sign(high - low), 0)
    return (found + 0.5) * np.array([width / columns, height / rows], np.float32)


def point_distances(found: Floats, aim: Floats, visible: NDArray[np.bool_], sizes: Floats) -> Floats:
    """Return the distances of points in units of their objects' sizes, NaN where a point isn't `visible`.

    `found` and `aim` are `(N, K, 2)`, `visible` `(N, K)`, `sizes` `(N,)` in pixels.
    """
    distances = np.linalg.norm(found - aim, axis=-1) / np.maximum(sizes, 1e-6)[:, None]
    return np.where(visible, distances, np.nan)


@dataclass(frozen=True)
class Nearness:
    """What distances say: `likeness` is the mean object keypoint similarity in 0..1, `error` the mean distance.

    `within` is the share of points nearer than a tenth of the object's size. None where no point is visible.
    """

    likeness: float | None
    error: float | None
    within: float | None


def nearness_of(distances: Floats) -> Nearness:
    """Return the means over the visible points of `point_distances` `(N, K)`.

    Likeness is that of COCO's keypoint challenge, exp(-d² / (2 k²)) with one constant k for all points.
    """
    told = distances[~np.isnan(distances)]
    if not told.size:
        return Nearness(None, None, None)
    likeness = np.exp(-np.square(told.astype(np.float64)) / (2 * _LIKENESS**2))
    return Nearness(float(likeness.mean()), float(told.mean()), float((told < _LIKENESS).mean()))
