"""Boxes of objects: detections, overlaps, and suppression of boxes that overlap a better one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Detections", "Floats", "box_iou", "joined", "suppressed"]

Floats = NDArray[np.floating[Any]]

MOST_CANDIDATES = 3000
"""Boxes of an image that are compared with each other, the best ones by score."""


_BLOCK = 128


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
    return found.take(np.array(_apart(found, iou, most), np.int64))


def _apart(found: Detections, iou: float, most: int) -> list[int]:
    """Return which detections, best first, overlap none of their class before them that stays, the first `most`.

    A block is compared with what stays of those before it at once, then within itself.
    """
    kept: list[int] = []

    def apart_from(rows: slice, others: "slice | list[int]") -> NDArray[np.bool_]:
        unlike = found.classes[rows, None] != found.classes[None, others]
        apart: NDArray[np.bool_] = unlike | (box_iou(found.boxes[rows], found.boxes[others]) <= iou)
        return apart

    for start in range(0, len(found), _BLOCK):
        block = slice(start, start + _BLOCK)
        free: NDArray[np.bool_] = np.all(apart_from(block, kept), axis=1)
        apart = apart_from(block, block)
        for row in np.flatnonzero(free).tolist():
            if not free[row]:
                continue
            kept.append(start + row)
            if len(kept) == most:
                return kept
            free &= apart[row]
    return kept


def joined(parts: Sequence[Floats]) -> Floats:
    """Return predictions of several scales as one array, along their second axis."""
    return np.concatenate(parts, axis=1)
