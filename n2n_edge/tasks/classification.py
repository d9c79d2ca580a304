"""Classification: one output of scores of classes, of which the highest counts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.outputs import OutputKind
from n2n_edge.tasks.task import JoinedTask, Labels, LossSettings, Meter, Outputs, Task, Tensors, arrays_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from n2n_edge.tasks.losses import LabelLoss, Mean

__all__ = ["Classification"]


@dataclass(frozen=True)
class Classification(JoinedTask):
    """One output of scores of classes, in the form of `kind`."""

    name = "classification"
    metric = "accuracy"
    kind: OutputKind = "logits"

    def labels(self, split: Split) -> Labels | None:
        """Return class numbers ``(N,)``."""
        return split.labels

    def divergence(
        self, student: Tensors, teacher: Tensors, settings: LossSettings, mean: "Mean | None" = None
    ) -> "Tensor":
        """Give the tempered KL."""
        from n2n_edge.tasks.losses import as_logits, tempered_kl

        own, theirs = (as_logits(each[0], self.kind) for each in (student, teacher))
        return tempered_kl(own, theirs, settings.temperature)

    def by_labels(
        self, student: Tensors, teacher: Tensors, labels: "Tensor", settings: LossSettings, mean: "Mean | None" = None
    ) -> "LabelLoss":
        """Give the cross entropy; images whose label is below nought have none."""
        from n2n_edge.tasks.losses import as_logits, labels_cross_entropy

        return labels_cross_entropy(as_logits(student[0], self.kind), labels, settings.label_smoothing, mean)

    def taught(self, labels: Labels | None, device: "torch.device") -> "Tensor | None":
        """Return class numbers ``(N,)``."""
        import torch

        return None if labels is None else torch.as_tensor(labels, device=device)

    def meter(self) -> Meter:
        """Return a count of images whose highest score is at the label, and at the teacher's."""
        return _Classified()

    def meter_of(self, reader: Task) -> Meter | None:
        """Return the same: outputs are the same at every size of image."""
        return self.meter() if isinstance(reader, Classification) else None


class _Classified(Meter):
    def __init__(self) -> None:
        self._seen = 0
        self._correct: list[NDArray[np.bool_]] = []
        self._agreeing: list[NDArray[np.bool_]] = []

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        chosen = _highest(outputs)
        self._seen += len(chosen)
        if labels is not None:
            self._correct.append(chosen == np.asarray(labels))
        if teacher is not None:
            self._agreeing.append(chosen == _highest(teacher))

    def evaluation(self) -> Evaluation:
        return self.resampled(np.arange(self._seen))

    def score_of(self, chosen: NDArray[np.intp]) -> float | None:
        return _share(self._correct, chosen)

    def resampled(self, chosen: NDArray[np.intp]) -> Evaluation:
        return Evaluation(_share(self._correct, chosen), _share(self._agreeing, chosen), len(chosen))


def _share(hits: list[NDArray[np.bool_]], chosen: NDArray[np.intp]) -> float | None:
    """Return the share of hits among the chosen images, None where none were told."""
    if len(hits) > 1:
        hits[:] = [np.concatenate(hits)]
    return float(hits[0][chosen].mean()) if hits else None


def _highest(outputs: Outputs) -> NDArray[np.intp]:
    """Return the class of the highest score of every image."""
    (scores, *_) = arrays_of(outputs[:1])
    chosen: NDArray[np.intp] = scores.reshape(len(scores), -1).argmax(axis=1)
    return chosen
