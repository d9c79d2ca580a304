"""Boxes of objects: detections, overlaps, and suppression of boxes that overlap a better one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Detections", "Floats", "box_iou", "from_centres", "joined", "suppressed"]

Floats = NDArray[np.floating[Any]]

MOST_CANDIDATES = 3000
"""Boxes of an image that are compared with each other, the best ones by score."""


@dataclass(frozen=True)
class Detections:
    """Objects in one image.

    `boxes` are ``(n, 4)``: left, top, right, bottom in pixels of the network's input; `scores` ``(n,)`` lie in 0..1,
    `classes` ``(n,)`` count from 0. `points` are ``(n, K, 2)`` in pixels, of detectors that find points as well.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]
    points: Floats | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: NDArray[Any]) -> "Detections":
        """Return some of the detections, by index or mask."""
        points = None if self.points is None else self.points[chosen]
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen], points)

    def above(self, threshold: float) -> "Detections":
        """Return those whose score is at least `threshold`."""
        return self.take(self.scores >= threshold)


def from_centres(centres: Floats, sizes: Floats) -> Floats:
    """Return boxes ``(..., 4)`` from their centres ``(..., 2)`` and sizes ``(..., 2)``."""
    half = sizes / 2
    return np.concatenate([centres - half, centres + half], axis=-1)


def box_iou(first: Floats, second: Floats) -> Floats:
    """Return the intersection over union of all pairs of boxes ``(n, 4)`` and ``(m, 4)``, as ``(n, m)``."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    union = _areas(first)[:, None] + _areas(second)[None] - common
    overlap: Floats = common / np.maximum(union, 1e-9)
    return overlap


def _areas(boxes: Floats) -> Floats:
    areas: Floats = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    return areas


def suppressed(found: Detections, iou: float | None, most: int) -> Detections:
    """Return the best detections, `most` at most, none of which overlaps a better one of its class by over `iou`.

    The usual greedy suppression; `iou` None keeps overlapping ones, as detectors want that give each object once.
    """
    order = np.argsort(-found.scores, kind="stable")[: MOST_CANDIDATES if iou is not None else most]
    found = found.take(order)
    if iou is None or not len(found):
        return found
    kept: list[int] = []
    for each in np.unique(found.classes):
        left = np.flatnonzero(found.classes == each)
        for _ in range(most):
            if not left.size:
                break
            best, left = left[0], left[1:]
            kept.append(int(best))
            left = left[box_iou(found.boxes[best : best + 1], found.boxes[left])[0] <= iou]
    return found.take(np.array(sorted(kept)[:most], np.int64))


def joined(parts: Sequence[Floats]) -> Floats:
    """Return predictions of several scales as one array, along their second axis."""
    return np.concatenate(parts, axis=1)
