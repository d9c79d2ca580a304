"""Multilabel classification: scores of classes that are independent of each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.tasks.boxes import Floats
from n2n_edge.tasks.task import JoinedTask, Labels, LossSettings, Meter, Outputs, SampledMeter, Task, Tensors, arrays_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from n2n_edge.tasks.losses import LabelLoss, Mean

__all__ = ["Multilabel", "mean_average_precision"]


@dataclass(frozen=True)
class Multilabel(JoinedTask):
    """One output ``(N, K)`` of scores of independent classes, `bounded` by a sigmoid or logits.

    The score is the mean over classes of their average precision; fidelity the same, with what the teacher decides (a
    score of a half at least) in the labels' place.
    """

    name = "multilabel"
    metric = "map"
    bounded: bool = True
    class_names: tuple[str, ...] = ()

    def labels(self, split: Split) -> Labels | None:
        """Return rows of 0 and 1, ``(N, K)``."""
        return split.targets

    def taught(self, labels: Labels | None, device: "torch.device") -> "Tensor | None":
        """Return rows of 0 and 1, of NaN for an image without a label."""
        import torch

        return None if labels is None else torch.as_tensor(np.asarray(labels, np.float32), device=device)

    def divergence(
        self, student: Tensors, teacher: Tensors, settings: LossSettings, mean: "Mean | None" = None
    ) -> "Tensor":
        """Give the tempered divergence of every class."""
        from n2n_edge.tasks.losses import binary_kl

        return binary_kl(student[0], teacher[0], settings.temperature, bounded=self.bounded)

    def by_labels(
        self, student: Tensors, teacher: Tensors, labels: "Tensor", settings: LossSettings, mean: "Mean | None" = None
    ) -> "LabelLoss":
        """Give the cross entropy of every class."""
        from n2n_edge.tasks.losses import labels_entropy

        return labels_entropy(student[0], labels, bounded=self.bounded, mean=mean)

    def meter(self) -> Meter:
        """Return what gathers scores."""
        return _Scored(self)

    def meter_of(self, reader: Task) -> Meter | None:
        """Return the same: outputs are the same at every size of image."""
        return self.meter() if isinstance(reader, Multilabel) else None


class _Scored(SampledMeter):
    def __init__(self, task: Multilabel) -> None:
        super().__init__()
        self._task = task
        self._scores: list[Floats] = []
        self._aims: list[NDArray[np.bool_]] = []
        self._labels: list[Floats] = []

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        self._scores += list(_rows(outputs))
        self.seen += len(outputs[0])
        if teacher is not None:
            self._aims += list(_rows(teacher) >= (0.5 if self._task.bounded else 0.0))
        if labels is not None:
            self._labels += [np.asarray(each, np.float32) for each in labels]

    def scored(self, chosen: Sequence[int]) -> tuple[float | None, dict[str, float]]:
        if not self._labels or not len(chosen):
            return None, {}
        labels = np.stack([self._labels[place] for place in chosen])
        told = np.isfinite(labels).all(axis=1)
        score, by_class = mean_average_precision(self._stacked(chosen)[told], labels[told] > 0.5)
        names = self._task.class_names
        return score, {f"ap:{names[kind] if kind < len(names) else kind}": value for kind, value in by_class.items()}

    def agreement(self, chosen: Sequence[int]) -> float | None:
        if not self._aims or not len(chosen):
            return None
        scores = self._stacked(chosen)
        fidelity, _ = mean_average_precision(scores, np.stack([self._aims[place] for place in chosen]))
        if fidelity is None:  # the teacher sees nothing anywhere
            fidelity = float((scores < (0.5 if self._task.bounded else 0.0)).mean())
        return fidelity

    def _stacked(self, chosen: Sequence[int]) -> Floats:
        return np.stack([self._scores[place] for place in chosen])


def _rows(outputs: Outputs) -> Floats:
    (scores,) = arrays_of(outputs[:1])
    return scores.reshape(len(scores), -1)


def mean_average_precision(scores: Floats, labels: NDArray[np.bool_]) -> tuple[float | None, dict[int, float]]:
    """Return the mean over classes of average precision, and that of each class that is there; both ``(N, K)``.

    Average precision is the sum over thresholds of precision times the growth of recall; equal scores are one
    threshold (Zhu, Recall, Precision and Average Precision, 2004).
    """
    by_class = {}
    for kind in np.flatnonzero(labels.any(axis=0)):
        order = np.argsort(-scores[:, kind], kind="stable")
        hits = np.cumsum(labels[order, kind])
        last = np.append(np.flatnonzero(np.diff(scores[order, kind])), len(order) - 1)
        growth = np.diff(hits[last], prepend=0) / hits[-1]
        by_class[int(kind)] = float((growth * hits[last] / (last + 1)).sum())
    return (float(np.mean(list(by_class.values()))) if by_class else None), by_class
