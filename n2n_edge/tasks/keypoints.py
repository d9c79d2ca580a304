"""Keypoints: points of one object in an image, as coordinates or as heatmaps."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import NOT_LABELLED, Points
from n2n_edge.errors import InputError
from n2n_edge.tasks.boxes import Floats
from n2n_edge.tasks.marks import Marks
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.points import PointForm, nearness_of, point_distances, points_of
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, Task, Tensors, arrays_of

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_edge.tasks.channels import ChannelScale
    from n2n_edge.tasks.losses import Mean

__all__ = ["Keypoints"]


@dataclass(frozen=True)
class Keypoints(Task):
    """Points read from the first output by `form`, in an input of `height` by `width` pixels.

    Labels are `Points`, or numbers `(N, 2K)`: pixels of the input, or with `label_shares` shares of it. The score is
    the mean object keypoint similarity, where an object's size is the root of the area that its labelled points extend
    over, or of the image's where that is nothing. Fidelity is the same with the teacher's points as labels.
    """

    name = "keypoints"
    metric = "oks"
    form: PointForm
    height: int
    width: int
    label_shares: bool = False
    scales: "tuple[ChannelScale, ...] | None" = field(default=None, compare=False)

    def labels(self, split: Split) -> Labels | None:
        """Return `Points` by image, or numbers `(N, 2K)`."""
        annotations = split.annotations
        if annotations is not None and any(isinstance(each, Points) for each in annotations):
            return annotations
        return split.targets

    def loss(
        self,
        student: Tensors,
        teacher: Tensors,
        labels: "Tensor | None",
        settings: LossSettings,
        mean: "Mean | None" = None,
    ) -> "Tensor":
        """Give the squared error of every number, or of every heatmap, in units of its variance."""
        from n2n_edge.tasks.channels import channel_scales
        from n2n_edge.tasks.losses import values_loss

        return values_loss(student, teacher, self.scales or channel_scales([teacher]), mean)

    def meter(self) -> Meter:
        """Return what gathers distances of points."""
        return _Pointed(self)

    def measured(self, teacher: Callable[[], Iterable[Tensors]]) -> "Task":
        """Return the task with the scales of the teacher's channels."""
        from n2n_edge.tasks.channels import channel_scales

        return replace(self, scales=channel_scales(teacher()))

    def read(self, outputs: Outputs) -> Floats:
        """Return points `(N, K, 2)` in pixels of the network's input."""
        return points_of(arrays_of(outputs[:1])[0].astype(np.float32, copy=False), self.form, self.height, self.width)

    def told(self, labels: Labels) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the labels' points `(N, K, 2)` in pixels, and which of them are labelled `(N, K)`.

        Raises:
            InputError: they are of another number of points.
        """
        points = np.zeros((len(labels), self.form.count, 2), np.float32)
        visible = np.zeros(points.shape[:2], np.bool_)
        for image, label in enumerate(labels):
            if label is None:
                continue
            if isinstance(label, Points):
                rows, seen = label.points[:, :2], label.points[:, 2] != NOT_LABELLED
            else:
                rows = np.asarray(label, np.float32).reshape(-1, 2)
                rows = rows * np.array([self.width, self.height], np.float32) if self.label_shares else rows
                seen = np.isfinite(rows).all(axis=1)
            if len(rows) != self.form.count:
                raise InputError(f"an image is labelled with {len(rows)} points, but the model gives {self.form.count}")
            points[image], visible[image] = np.where(seen[:, None], rows, 0), seen
        return points, visible

    def sizes(self, points: Floats, visible: NDArray[np.bool_]) -> Floats:
        """Return the objects' sizes in pixels `(N,)`."""
        low = np.where(visible[..., None], points, np.inf).min(axis=1)
        high = np.where(visible[..., None], points, -np.inf).max(axis=1)
        area = np.where(visible.any(axis=1), np.prod(np.maximum(high - low, 0), axis=1), 0)
        return np.sqrt(np.where(area >= 1, area, self.height * self.width)).astype(np.float32)

    def marks(self, outputs: Outputs) -> list[Marks]:
        """Return the points."""
        return [Marks(points=tuple((float(x), float(y)) for x, y in each)) for each in self.read(outputs)]

    def to_json(self) -> Mapping[str, Any]:
        """Return how outputs and labels are read, which files alone don't say."""
        form = {"points": self.form.count, "shares": self.form.shares, "numbers": self.form.numbers}
        return {"task": self.name, **form, "label_shares": self.label_shares}


class _Pointed(Meter):
    def __init__(self, task: Keypoints) -> None:
        self._task, self._seen = task, 0
        self._labelled: list[Floats] = []
        self._agreeing: list[Floats] = []

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        task, found = self._task, self._task.read(outputs)
        self._seen += len(found)
        if teacher is not None:
            aim = task.read(teacher)
            every = np.ones(aim.shape[:2], np.bool_)
            self._agreeing.append(point_distances(found, aim, every, task.sizes(aim, every)))
        if labels is not None:
            aim, visible = task.told(labels)
            self._labelled.append(point_distances(found, aim, visible, task.sizes(aim, visible)))

    def evaluation(self) -> Evaluation:
        return self.resampled(np.arange(self._seen))

    def resampled(self, chosen: NDArray[np.intp]) -> Evaluation:
        score, details, agreement = None, {}, None
        if self._labelled:
            told = nearness_of(np.concatenate(self._labelled)[chosen])
            score = told.likeness
            if told.error is not None and told.within is not None:
                details = {"nme": 100 * told.error, "within_a_tenth": told.within}
        if self._agreeing:
            agreement = nearness_of(np.concatenate(self._agreeing)[chosen]).likeness
        return Evaluation(score, agreement, len(chosen), details=details)
