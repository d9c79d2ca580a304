"""Regression: numbers of any kind, compared with the teacher's by channel."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from n2n_edge.data.dataset import Split
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, Task, Tensors, arrays_of

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_edge.tasks.channels import ChannelErrors, ChannelScale
    from n2n_edge.tasks.losses import Mean

__all__ = ["Values"]


@dataclass(frozen=True)
class Values(Task):
    """Numbers of any kind, compared by channel in units of its variance; `scales` are the teacher's on many images."""

    name = "regression"
    metric = "r2"
    meter_tells_loss = True
    scales: "tuple[ChannelScale, ...] | None" = None

    def labels(self, split: Split) -> Labels | None:
        """Return values ``(N, K)``."""
        return split.targets

    def loss(
        self,
        student: Tensors,
        teacher: Tensors,
        labels: "Tensor | None",
        settings: LossSettings,
        mean: "Mean | None" = None,
    ) -> "Tensor":
        """Give the error of every channel in units of its variance, averaged over the outputs."""
        from n2n_edge.tasks.channels import channel_scales
        from n2n_edge.tasks.losses import values_loss

        return values_loss(student, teacher, self.scales or channel_scales([teacher]), mean)

    def meter(self) -> Meter:
        """Return sums of squared errors by channel, and of the distances from labels."""
        return _Valued()

    def measured(self, teacher: Callable[[], Iterable[Tensors]]) -> "Task":
        """Return the task with the scales of the teacher's channels."""
        from n2n_edge.tasks.channels import channel_scales

        return replace(self, scales=channel_scales(teacher()))


class _Valued(Meter):
    def __init__(self) -> None:
        self._errors: list[ChannelErrors] = []
        self._seen = 0
        self._labelled = _Explained()

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        self._seen += len(outputs[0])
        if teacher is not None:
            import torch

            from n2n_edge.tasks.channels import ChannelErrors

            self._errors = self._errors or [ChannelErrors() for _ in teacher]
            for error, own, other in zip(self._errors, outputs, teacher, strict=True):
                error.add(
                    *(each if isinstance(each, torch.Tensor) else torch.from_numpy(each) for each in (other, own))
                )
        if labels is not None:
            self._labelled.add(arrays_of(outputs[:1])[0], np.asarray(labels))

    def evaluation(self) -> Evaluation:
        score, label_error = self._labelled.share, self._labelled.mean_distance
        if not self._errors:
            return Evaluation(score, None, self._seen, label_error=label_error)
        from n2n_edge.tasks.losses import error_of_values

        shares = [error.shares() for error in self._errors]
        fidelity = sum(float((1 - share).clamp_min(0.0).mean()) for share in shares) / len(shares)
        loss = sum(float(error_of_values(share)) for share in shares) / len(shares)
        return Evaluation(score, fidelity, self._seen, loss, label_error)


class _Explained:
    """The part of labels' variance that values explain, R², and their mean absolute distance."""

    def __init__(self) -> None:
        self._seen = 0
        self._distance = self._numbers = 0.0
        self._first = self._sum = self._squares = self._residuals = np.zeros(0)

    def add(self, values: "np.typing.NDArray[np.floating]", labels: "np.typing.NDArray[np.floating]") -> None:
        labels = labels.reshape(len(labels), -1).astype(np.float64)
        difference = values.reshape(len(values), -1).astype(np.float64) - labels
        if not self._seen:
            self._first = labels[0].copy()
            self._sum = self._squares = self._residuals = np.zeros_like(self._first)
        self._seen += len(labels)
        self._distance += float(np.abs(difference).sum())
        self._numbers += labels.size
        shifted = labels - self._first  # sums of squares lose digits far from nought
        self._sum = self._sum + shifted.sum(axis=0)
        self._squares = self._squares + np.square(shifted).sum(axis=0)
        self._residuals = self._residuals + np.square(difference).sum(axis=0)

    @property
    def mean_distance(self) -> float | None:
        return self._distance / self._numbers if self._seen else None

    @property
    def share(self) -> float | None:
        """R², at least nought, as a mean over the numbers that vary; None without labels, and where none varies."""
        if not self._seen:
            return None
        total = self._squares - np.square(self._sum) / self._seen
        varying = total > 1e-12 * np.maximum(1.0, self._squares)
        if not varying.any():
            return None
        return float(np.maximum(1 - self._residuals[varying] / total[varying], 0.0).mean())
