"""A task of one's own for the networks of `shapes.py` that give an ellipse: scored by how far the boxes overlap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge import Evaluation, Meter, Task

__all__ = ["Ellipse"]


@dataclass(frozen=True)
class Ellipse(Task):
    """Centre, half length and slenderness of an ellipse, ``(N, 4)``, all as shares of the image's side."""

    name = "ellipse"
    metric = "overlap"

    def labels(self, split: Any) -> Any:
        """Return the numbers of the CSV, ``(N, 4)``."""
        return split.targets

    def loss(self, student: Any, teacher: Any, labels: Any, settings: Any, mean: Any = None) -> Any:
        """Return the squared distance from the teacher's numbers."""
        return (student[0] - teacher[0]).square().mean()

    def meter(self) -> Meter:
        """Return overlaps with the labels' and with the teacher's ellipses."""
        return Overlaps()

    def to_json(self) -> dict[str, object]:
        """Return where this task is found."""
        return {"task": "ellipses:Ellipse"}


class Overlaps(Meter):
    """Intersection over union of the boxes around two ellipses, averaged over images."""

    def __init__(self) -> None:
        self.told: list[NDArray[np.float64]] = []
        self.taught: list[NDArray[np.float64]] = []
        self.seen = 0

    def add(self, outputs: Any, teacher: Any, labels: Any) -> None:
        """Compare the ellipses of some images."""
        self.seen += len(outputs[0])
        if teacher is not None:
            self.taught.append(overlaps(outputs[0], teacher[0]))
        if labels is not None:
            self.told.append(overlaps(outputs[0], labels))

    def evaluation(self) -> Evaluation:
        """Return the mean overlap of all images."""
        return self.resampled(np.arange(self.seen))

    def resampled(self, chosen: NDArray[np.integer[Any]]) -> Evaluation:
        """Return the mean overlap of some images."""
        told, taught = (
            float(np.concatenate(found)[chosen].mean()) if found else None for found in (self.told, self.taught)
        )
        return Evaluation(told, taught, len(chosen))


def overlaps(first: Any, second: Any) -> NDArray[np.float64]:
    """Return the intersection over union of the boxes around ellipses ``(N, 4)``, by image."""
    one, other = (np.asarray(each.cpu() if hasattr(each, "cpu") else each, np.float64) for each in (first, second))
    halves = [np.stack([each[:, 2], each[:, 2] * each[:, 3]], 1).clip(0) for each in (one, other)]
    low = np.maximum(one[:, :2] - halves[0], other[:, :2] - halves[1])
    high = np.minimum(one[:, :2] + halves[0], other[:, :2] + halves[1])
    shared = (high - low).clip(0).prod(1)
    areas = [4 * half.prod(1) for half in halves]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)
