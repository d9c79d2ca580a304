"""Keypoints: the places of named points, as coordinates or as the highest cells of maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import NOT_LABELLED, Points
from n2n_edge.tasks.boxes import Floats
from n2n_edge.tasks.marks import Marks
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.points import PointForm, nearness_of, point_distances, points_of
from n2n_edge.tasks.scaled import ScaledTask
from n2n_edge.tasks.task import Labels, Meter, Outputs, SampledMeter, arrays_of

__all__ = ["Keypoints"]


@dataclass(frozen=True)
class Keypoints(ScaledTask):
    """Points, read from output number `output` as `form` says, in an input of `size` (height, width).

    An object is as large as the diagonal of the box around its points over the square root of 2, the side of a square;
    distances are counted in that. Fidelity is the likeness to the teacher's points.
    """

    name = "keypoints"
    metric = "oks"
    form: PointForm
    size: tuple[int, int]
    output: int = 0

    def read(self, outputs: Outputs) -> Floats:
        """Return points ``(N, K, 2)``, x before y, in pixels of the input."""
        (values,) = arrays_of(outputs[self.output : self.output + 1])
        return points_of(values.astype(np.float32, copy=False), self.form, *self.size)

    def labels(self, split: Split) -> Labels | None:
        """Return the points of every image, in pixels of the network's input."""
        points = split.annotated(Points)
        return split.targets if points is None else points

    def meter(self) -> Meter:
        """Return what gathers distances."""
        return _Pointed(self)

    def to_json(self) -> Mapping[str, Any]:
        """Return how many points there are, which tells how numbers are read."""
        return {"task": self.name, "points": self.form.count}

    def marks(self, outputs: Outputs) -> list[Marks]:
        """Return the points."""
        return [Marks(points=tuple((float(x), float(y)) for x, y in image)) for image in self.read(outputs)]

    def labelled(self, label: object) -> Floats:
        """Return a label as points ``(K, 3)``: x, y in pixels of the input, visibility.

        Numbers ``(2 K)``, or ``(3 K)`` with visibility, are shares of the input where the outputs are, else pixels.
        """
        if isinstance(label, Points):
            return label.points
        if label is None:
            return np.zeros((self.form.count, 3), np.float32)
        points = np.asarray(label, np.float32).reshape(self.form.count, -1)
        points, seen = points[:, :2], points[:, 2] if points.shape[1] > 2 else np.full(len(points), 2, np.float32)
        if self.form.shares and not self.form.maps:
            points = points * np.array([self.size[1], self.size[0]], np.float32)
        return np.column_stack([points, seen])


class _Pointed(SampledMeter):
    """Distances by image, in units of the objects' sizes."""

    def __init__(self, task: Keypoints) -> None:
        super().__init__()
        self._task = task
        self._aims: list[Floats] = []
        self._labels: list[Floats] = []

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        own = self._task.read(outputs)
        self.seen += len(own)
        if teacher is not None:
            aim = self._task.read(teacher)
            self._aims += [_distances(*pair, None) for pair in zip(own, aim, strict=True)]
        if labels is not None:
            for points, label in zip(own, labels, strict=True):
                told = self._task.labelled(label)
                self._labels.append(_distances(points, told[:, :2], told[:, 2] != NOT_LABELLED))

    def of(self, chosen: Sequence[int]) -> Evaluation:
        score, fidelity, details = None, None, {}
        if self._labels:
            near = nearness_of(np.concatenate([self._labels[place] for place in chosen]))
            score = near.likeness
            if near.error is not None and near.within is not None:
                details = {"nme": 100 * near.error, "pck": near.within}
        if self._aims:
            fidelity = nearness_of(np.concatenate([self._aims[place] for place in chosen])).likeness
        return Evaluation(score, fidelity, len(chosen), details=details)


def _distances(own: Floats, aim: Floats, visible: NDArray[np.bool_] | None) -> Floats:
    """Return the distances of an object's points ``(K, 2)``, NaN where one isn't visible."""
    seen = np.ones(len(aim), np.bool_) if visible is None else visible
    if not seen.any():
        return np.full(len(aim), np.nan)
    corners = aim[seen].max(axis=0) - aim[seen].min(axis=0)
    size = max(1.0, float(np.linalg.norm(corners)) / np.sqrt(2))
    distances: Floats = point_distances(own[None], aim[None], seen[None], np.array([size]))[0]
    return distances
