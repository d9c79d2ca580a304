"""Multilabel classification: scores of classes that are independent of each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.tasks.boxes import Floats
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, SampledMeter, Task, Tensors, arrays_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from n2n_edge.tasks.losses import Mean

__all__ = ["Multilabel", "mean_average_precision"]


@dataclass(frozen=True)
class Multilabel(Task):
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

    def loss(
        self,
        student: Tensors,
        teacher: Tensors,
        labels: "Tensor | None",
        settings: LossSettings,
        mean: "Mean | None" = None,
    ) -> "Tensor":
        """Give the tempered divergence of every class, or ``kd_weight`` of it and the labels' cross entropy.

        Images without a label count by the divergence alone.
        """
        from n2n_edge.tasks.losses import binary_kl, labels_entropy

        divergence = binary_kl(student[0], teacher[0], settings.temperature, bounded=self.bounded)
        if labels is None:
            return divergence
        told = ~labels.isnan().any(dim=1)
        share = told.float().mean()
        if not bool(told.any()):
            return divergence
        entropy = labels_entropy(student[0][told], labels[told], bounded=self.bounded) * share
        return (1.0 - (1.0 - settings.kd_weight) * share) * divergence + (1.0 - settings.kd_weight) * entropy

    def meter(self) -> Meter:
        """Return what gathers scores."""
        return _Scored(self)


class _Scored(SampledMeter):
    def __init__(self, task: Multilabel) -> None:
        super().__init__()
        self._task = task
        self._scores: list[Floats] = []
        self._aims: list[NDArray[np.bool_]] = []
        self._labels: list[NDArray[np.bool_]] = []

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        self._scores += list(_rows(outputs))
        self.seen += len(outputs[0])
        if teacher is not None:
            self._aims += list(_rows(teacher) >= (0.5 if self._task.bounded else 0.0))
        if labels is not None:
            self._labels += [np.asarray(each) > 0.5 for each in labels]

    def of(self, chosen: Sequence[int]) -> Evaluation:
        if not len(chosen):
            return Evaluation(None, None, 0)
        scores = np.stack([self._scores[place] for place in chosen])
        score, fidelity, details = None, None, {}
        if self._labels:
            score, by_class = mean_average_precision(scores, np.stack([self._labels[place] for place in chosen]))
            names = self._task.class_names
            details = {f"ap:{names[kind] if kind < len(names) else kind}": value for kind, value in by_class.items()}
        if self._aims:
            aims = np.stack([self._aims[place] for place in chosen])
            fidelity, _ = mean_average_precision(scores, aims)
            if fidelity is None:  # the teacher sees nothing anywhere
                fidelity = float((scores < (0.5 if self._task.bounded else 0.0)).mean())
        return Evaluation(score, fidelity, len(chosen), details=details)


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
