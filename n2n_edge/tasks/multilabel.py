"""Multilabel classification: independent scores of classes, of which any number may be there."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.tasks.boxes import Floats
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, Task, Tensors, arrays_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from n2n_edge.tasks.losses import Mean

_T = TypeVar("_T", bound=np.generic)

__all__ = ["Multilabel", "ranked_precision"]


@dataclass(frozen=True)
class Multilabel(Task):
    """One output `(N, classes)` of independent scores: after a Sigmoid (`probabilities`), or before one.

    Fidelity is the mean average precision with what the teacher holds likelier than not as the labels.
    """

    name = "multilabel"
    metric = "map"
    few_numbers = True
    probabilities: bool = True
    class_names: tuple[str, ...] = ()

    def labels(self, split: Split) -> Labels | None:
        """Return rows of noughts and ones `(N, classes)`."""
        return split.targets

    def loss(
        self,
        student: Tensors,
        teacher: Tensors,
        labels: "Tensor | None",
        settings: LossSettings,
        mean: "Mean | None" = None,
    ) -> "Tensor":
        """Give ``kd_weight`` times the tempered divergence of each class plus the rest times the cross entropy."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        from n2n_edge.tasks.losses import as_binary_logits, binary_kl

        divergence = binary_kl(student[0], teacher[0], settings.temperature, probabilities=self.probabilities)
        if labels is None:
            return divergence
        logits = as_binary_logits(student[0], probabilities=self.probabilities)
        entropy = binary_cross_entropy_with_logits(logits, labels.reshape(logits.shape))
        return settings.kd_weight * divergence + (1.0 - settings.kd_weight) * entropy

    def taught(self, labels: Labels | None, device: "torch.device") -> "Tensor | None":
        """Return rows of noughts and ones."""
        import torch

        return None if labels is None else torch.as_tensor(np.asarray(labels, np.float32), device=device)

    def meter(self) -> Meter:
        """Return what gathers scores."""
        return _Scored(self)


class _Scored(Meter):
    def __init__(self, task: Multilabel) -> None:
        self._task = task
        self._own: list[Floats] = []
        self._decided: list[NDArray[np.bool_]] = []
        self._labels: list[NDArray[np.bool_]] = []

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        self._own.append(_rows(outputs))
        if teacher is not None:
            self._decided.append(_rows(teacher) >= self._threshold)
        if labels is not None:
            self._labels.append(np.asarray(labels).reshape(self._own[-1].shape) >= 0.5)

    @property
    def _threshold(self) -> float:
        return 0.5 if self._task.probabilities else 0.0

    def evaluation(self) -> Evaluation:
        return self.resampled(np.arange(sum(map(len, self._own))))

    def resampled(self, chosen: NDArray[np.intp]) -> Evaluation:
        if not len(chosen):
            return Evaluation(None, None, 0)
        scores = _joined(self._own)[chosen]
        score, details, agreement = None, {}, None
        if self._labels:
            by_class = _precisions(scores, _joined(self._labels)[chosen])
            score = float(np.mean(list(by_class.values()))) if by_class else None
            details = {f"ap:{self._name(kind)}": value for kind, value in by_class.items()}
        if self._decided:
            agreeing = _precisions(scores, _joined(self._decided)[chosen])
            agreement = float(np.mean(list(agreeing.values()))) if agreeing else self._none_there(scores)
        return Evaluation(score, agreement, len(chosen), details=details)

    def _none_there(self, scores: Floats) -> float:
        """Return the share of decisions that agree where the teacher holds nothing for there."""
        return float((scores < self._threshold).mean())

    def _name(self, kind: int) -> str:
        names = self._task.class_names
        return names[kind] if kind < len(names) else str(kind)


def ranked_precision(scores: Floats, labels: NDArray[np.bool_]) -> float:
    """Return the average precision of scores `(N,)`: precision at each threshold, weighted by the recall it adds.

    As scikit-learn's ``average_precision_score``: nothing is interpolated, and equal scores are one threshold. Nought
    where no label is set.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    if not len(hits) or not hits[-1]:
        return 0.0
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of those with one score
    recall = np.diff(hits[last] / hits[-1], prepend=0.0)
    return float((recall * hits[last] / (last + 1)).sum())


def _precisions(scores: Floats, labels: NDArray[np.bool_]) -> dict[int, float]:
    """Return the average precision of each class that is there."""
    return {
        int(kind): ranked_precision(scores[:, kind], labels[:, kind]) for kind in np.flatnonzero(labels.any(axis=0))
    }


def _rows(outputs: Outputs) -> Floats:
    (scores,) = arrays_of(outputs[:1])
    return scores.reshape(len(scores), -1)


def _joined(parts: list[NDArray[_T]]) -> NDArray[_T]:
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]
