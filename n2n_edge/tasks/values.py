"""Regression: numbers of any kind, compared with the teacher's by channel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import Floats
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.scaled import ScaledTask
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, Tensors, arrays_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from n2n_edge.tasks.channels import ChannelErrors
    from n2n_edge.tasks.losses import LabelLoss, Mean

__all__ = ["Values"]


@dataclass(frozen=True)
class Values(ScaledTask):
    """Numbers of any kind, compared by channel in units of its variance."""

    name = "regression"
    metric = "r2"
    meter_tells_loss = True

    def labels(self, split: Split) -> Labels | None:
        """Return values ``(N, K)``."""
        return split.targets

    def taught(self, labels: Labels | None, device: "torch.device") -> "Tensor | None":
        """Return values ``(N, K)``, NaN where an image has none."""
        import torch

        if labels is None:
            return None
        if not isinstance(labels, np.ndarray):
            width = max((len(each) for each in labels if each is not None), default=1)
            labels = np.array([np.full(width, np.nan) if each is None else each for each in labels])
        return torch.as_tensor(labels, dtype=torch.float32, device=device).reshape(len(labels), -1)

    def moved(
        self, label: Any, matrix: Floats | None, size: tuple[int, int], flip_index: Sequence[int] | None = None
    ) -> Any:
        """Return numbers of an image that stayed as it was: of another nobody says whether they follow."""
        return label if matrix is not None and np.array_equal(matrix, np.eye(2, 3)) else None

    def by_labels(
        self, student: Tensors, teacher: Tensors, labels: "Tensor", settings: LossSettings, mean: "Mean | None" = None
    ) -> "LabelLoss":
        """Give the error of the first output, by channel."""
        from n2n_edge.tasks.label_losses import numbers_by_labels

        return numbers_by_labels(student[0].float(), labels, self.scales_for(teacher)[0], mean)

    def meter(self) -> Meter:
        """Return sums of squared errors by channel, and of the distances from labels."""
        return _Valued()


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
        told = self._labelled.evaluation()
        if not self._errors:
            return told if told is not None else Evaluation(None, None, self._seen)
        from n2n_edge.tasks.losses import error_of_values

        shares = [error.shares() for error in self._errors]
        fidelity = sum(float((1 - share).clamp_min(0.0).mean()) for share in shares) / len(shares)
        loss = sum(float(error_of_values(share)) for share in shares) / len(shares)
        return Evaluation(
            None if told is None else told.score, fidelity, self._seen, loss, {} if told is None else told.details
        )

    def resampled(self, chosen: NDArray[np.intp]) -> Evaluation | None:
        """Return what labels say of the chosen images; fidelity isn't kept by image."""
        return self._labelled.evaluation(chosen)


class _Explained:
    """The part of labels' variance that values explain, R², and their mean absolute distance."""

    def __init__(self) -> None:
        self._labels: list[NDArray[np.float64]] = []
        self._differences: list[NDArray[np.float64]] = []

    def add(self, values: "NDArray[np.floating]", labels: "NDArray[np.floating]") -> None:
        right: NDArray[np.float64] = labels.reshape(len(labels), -1).astype(np.float64)
        self._labels.append(right)
        self._differences.append(values.reshape(len(values), -1).astype(np.float64) - right)

    def evaluation(self, chosen: "NDArray[np.intp] | slice" = slice(None)) -> Evaluation | None:
        """Return R², at least nought, as a mean over the numbers that vary, and the distance as ``mae``.

        R² is None where none varies; all is None without labels.
        """
        if not self._labels:
            return None
        if len(self._labels) > 1:
            self._labels, self._differences = [np.concatenate(self._labels)], [np.concatenate(self._differences)]
        labels, differences = self._labels[0][chosen], self._differences[0][chosen]
        told = np.isfinite(labels).all(axis=1)
        labels, differences = labels[told], differences[told]
        if not len(labels):
            return None
        residuals, varied = np.square(differences).sum(axis=0), labels - labels.mean(axis=0)
        total = np.square(varied).sum(axis=0)
        varying = total > 1e-12 * np.maximum(1.0, np.square(labels - labels[0]).sum(axis=0))
        score = float(np.maximum(1 - residuals[varying] / total[varying], 0.0).mean()) if varying.any() else None
        return Evaluation(score, None, len(labels), details={"mae": float(np.abs(differences).mean())})
