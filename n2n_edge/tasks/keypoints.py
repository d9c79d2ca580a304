"""Keypoints: the places of named points, as coordinates or as the highest cells of maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import NOT_LABELLED, Points
from n2n_edge.tasks.boxes import Floats
from n2n_edge.tasks.marks import Marks
from n2n_edge.tasks.points import PointForm, nearness_of, point_distances, points_of
from n2n_edge.tasks.scaled import ScaledTask
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, SampledMeter, Tensors, arrays_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from n2n_edge.tasks.losses import LabelLoss, Mean

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

    def taught(self, labels: Labels | None, device: "torch.device") -> "Tensor | None":
        """Return points ``(N, K, 3)``: x, y in pixels of the input, visibility, nought where an image has none."""
        import torch

        if labels is None:
            return None
        return torch.from_numpy(np.stack([self.labelled(each) for each in labels]).astype(np.float32)).to(device)

    def moved(
        self, label: Any, matrix: Floats | None, size: tuple[int, int], flip_index: Sequence[int] | None = None
    ) -> Any:
        """Return points that followed their image, those that are labelled as numbers as well."""
        told = Points(self.labelled(label))
        return super().moved(told, matrix, size, flip_index) if len(told.points) else None

    def by_labels(
        self, student: Tensors, teacher: Tensors, labels: "Tensor", settings: LossSettings, mean: "Mean | None" = None
    ) -> "LabelLoss":
        """Give how far points are from the labels', or maps from peaks there (see `tasks.label_losses`)."""
        from n2n_edge.tasks.label_losses import heatmaps_by_labels, points_by_labels

        own, theirs = (each[self.output].float() for each in (student, teacher))
        if self.form.maps:
            own, theirs = (each.movedim(-1, 1) if self.form.channels_last else each for each in (own, theirs))
            return heatmaps_by_labels(own, theirs, labels, self.size, mean)
        points, scale = own.reshape(len(own), -1, self.form.numbers), self.scales_for(teacher)[self.output]
        return points_by_labels(points, labels, scale, self.size if self.form.shares else None, mean)

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
        numbers = None if label is None else np.asarray(label, np.float32)
        if numbers is None or not np.isfinite(numbers).all():
            return np.zeros((self.form.count, 3), np.float32)
        points = numbers.reshape(self.form.count, -1)
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

    def scored(self, chosen: Sequence[int]) -> tuple[float | None, dict[str, float]]:
        if not self._labels:
            return None, {}
        near = nearness_of(np.concatenate([self._labels[place] for place in chosen]))
        if near.error is None or near.within is None:
            return near.likeness, {}
        return near.likeness, {"nme": 100 * near.error, "pck": near.within}

    def agreement(self, chosen: Sequence[int]) -> float | None:
        if not self._aims:
            return None
        return nearness_of(np.concatenate([self._aims[place] for place in chosen])).likeness


def _distances(own: Floats, aim: Floats, visible: NDArray[np.bool_] | None) -> Floats:
    """Return the distances of an object's points ``(K, 2)``, NaN where one isn't visible."""
    seen = np.ones(len(aim), np.bool_) if visible is None else visible
    if not seen.any():
        return np.full(len(aim), np.nan)
    corners = aim[seen].max(axis=0) - aim[seen].min(axis=0)
    size = max(1.0, float(np.linalg.norm(corners)) / np.sqrt(2))
    distances: Floats = point_distances(own[None], aim[None], seen[None], np.array([size]))[0]
    return distances
