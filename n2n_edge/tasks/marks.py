"""What outputs say of an image, in a form that can be drawn over it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.labels.values import IGNORED, NOT_LABELLED, Label, Mask, MaskFile, Objects, Points
from n2n_edge.tasks.boxes import Detections, Floats
from n2n_edge.tasks.maps import as_large_as

__all__ = ["Box", "Marks", "label_marks"]


@dataclass(frozen=True)
class Box:
    """An object: `edges` are left, top, right, bottom in pixels of the network's input; a label has no `score`."""

    edges: tuple[float, float, float, float]
    kind: int
    score: float | None = None


@dataclass(frozen=True)
class Marks:
    """Boxes, points ``(x, y)`` in pixels of the network's input, and the class of every pixel ``(H, W)``."""

    boxes: tuple[Box, ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    area: NDArray[np.uint8] | None = None

    @classmethod
    def of_detections(cls, found: Detections) -> "Marks":
        """Return the marks of a detector's boxes."""
        boxes = tuple(
            Box(_edges(box), int(kind), float(score))
            for box, kind, score in zip(found.boxes, found.classes, found.scores, strict=True)
        )
        return cls(boxes, () if found.points is None else _points(found.points.reshape(-1, 2)))

    def scaled(self, size: tuple[int, int], to: tuple[int, int]) -> "Marks":
        """Return marks in an image of `size`, (height, width), as they lie in the same image brought to size `to`.

        Of an area each pixel is the nearest one.
        """
        if size == to:
            return self
        down, across = to[0] / size[0], to[1] / size[1]
        boxes = tuple(
            Box((left * across, top * down, right * across, bottom * down), box.kind, box.score)
            for box in self.boxes
            for left, top, right, bottom in [box.edges]
        )
        points = tuple((x * across, y * down) for x, y in self.points)
        return Marks(boxes, points, None if self.area is None else as_large_as(self.area, to))


def label_marks(label: Label | None) -> Marks | None:
    """Return the marks of a label in pixels of the network's input, None where it can't be drawn."""
    match label:
        case Objects():
            boxes = tuple(Box(_edges(box), int(kind)) for box, kind in zip(label.boxes, label.classes, strict=True))
            seen = None if label.keypoints is None else label.keypoints.reshape(-1, 3)
            return Marks(boxes, () if seen is None else _visible(seen))
        case Points():
            return Marks(points=_visible(label.points))
        case Mask():
            return Marks(area=np.where(label.pixels == IGNORED, np.uint8(0), label.pixels))
        case MaskFile():
            return label_marks(label.read())
    return None


def _edges(box: Floats) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(edge) for edge in box)
    return left, top, right, bottom


def _visible(points: Floats) -> tuple[tuple[float, float], ...]:
    return _points(points[points[:, 2] != NOT_LABELLED][:, :2])


def _points(points: Sequence[Floats] | Floats) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in points)
