"""What a network does: how its outputs are compared, taught and scored, as one object."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.data.dataset import Data, Split
from n2n_edge.tasks.channels import ChannelErrors, ChannelScale, channel_errors, channel_scales
from n2n_edge.tasks.losses import Mean, error_of_values, tempered_kl
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.outputs import OutputKind, as_logits, output_kind

__all__ = ["Classification", "LossSettings", "Meter", "Outputs", "Task", "Values", "task_of"]

Outputs = Sequence[Tensor]
"""What a network gives for a batch: its outputs, each ``(N, ...)``."""


class LossSettings(Protocol):
    """What a loss wants to know of `DistillSettings`."""

    @property
    def temperature(self) -> float:
        """The temperature at which distributions of classes are compared."""

    @property
    def kd_weight(self) -> float:
        """What the teacher counts, the rest being the labels' share."""

    @property
    def label_smoothing(self) -> float:
        """The share of a label that goes to all classes alike."""


class Meter(ABC):
    """Adds up how good outputs are, batch by batch."""

    @abstractmethod
    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Tensor | None) -> None:
        """Take in the outputs for further images, with the teacher's and the labels where there are any."""

    @abstractmethod
    def evaluation(self) -> Evaluation:
        """Return what all images showed."""


class Task(ABC):
    """What a network does.

    `few_numbers` says that an image's outputs are few, so that the teacher's are worth keeping, and that the loss of
    many images is the mean of theirs; elsewhere a meter tells it (``Evaluation.error``).
    """

    few_numbers: ClassVar[bool] = False

    @abstractmethod
    def labels(self, split: Split) -> Tensor | None:
        """Return what outputs are compared with beside the teacher's, None where a split has no such labels."""

    @abstractmethod
    def loss(
        self,
        student: Outputs,
        teacher: Outputs,
        labels: Tensor | None,
        settings: LossSettings,
        mean: Mean | None = None,
    ) -> Tensor:
        """Give the loss of one batch, a scalar.

        Where processes share a batch, `mean` is that over all of them, and the mean of what each returns is the loss.
        """

    @abstractmethod
    def meter(self) -> Meter:
        """Return what measures outputs, with nothing in it."""

    def measured(self, teacher: Callable[[], Iterable[Outputs]]) -> "Task":
        """Return the task with what its loss wants to know of the teacher's outputs for many images."""
        return self


@dataclass(frozen=True)
class Classification(Task):
    """One output of scores of classes, in the form of `kind`."""

    few_numbers = True
    kind: OutputKind = "logits"

    def labels(self, split: Split) -> Tensor | None:
        """Return class numbers ``(N,)``."""
        return None if split.labels is None else torch.from_numpy(split.labels)

    def loss(
        self,
        student: Outputs,
        teacher: Outputs,
        labels: Tensor | None,
        settings: LossSettings,
        mean: Mean | None = None,
    ) -> Tensor:
        """Give ``kd_weight`` times the tempered KL plus the rest times the cross entropy, or the KL alone."""
        logits = as_logits(student[0], self.kind)
        divergence = tempered_kl(logits, as_logits(teacher[0], self.kind), settings.temperature)
        if labels is None:
            return divergence
        entropy = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        return settings.kd_weight * divergence + (1.0 - settings.kd_weight) * entropy

    def meter(self) -> Meter:
        """Return a count of images whose highest score is at the label, and at the teacher's."""
        return _Classified()


class _Classified(Meter):
    def __init__(self) -> None:
        self._seen = self._correct = self._agreeing = 0
        self._labelled = self._taught = False

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Tensor | None) -> None:
        chosen = outputs[0].argmax(1)
        self._seen += len(chosen)
        if labels is not None:
            self._labelled = True
            self._correct += int((chosen == labels).sum())
        if teacher is not None:
            self._taught = True
            self._agreeing += int((chosen == teacher[0].argmax(1)).sum())

    def evaluation(self) -> Evaluation:
        return Evaluation(
            self._correct / self._seen if self._labelled else None,
            self._agreeing / self._seen if self._taught else None,
            self._seen,
        )


@dataclass(frozen=True)
class Values(Task):
    """Numbers of any kind, compared by channel in units of its variance; `scales` are the teacher's on many images."""

    scales: tuple[ChannelScale, ...] | None = None

    def labels(self, split: Split) -> Tensor | None:
        """Return values ``(N, K)``."""
        return None if split.targets is None else torch.from_numpy(split.targets)

    def loss(
        self,
        student: Outputs,
        teacher: Outputs,
        labels: Tensor | None,
        settings: LossSettings,
        mean: Mean | None = None,
    ) -> Tensor:
        """Give the error of every channel in units of its variance, averaged over the outputs."""
        scales = self.scales or channel_scales([teacher])
        errors = [channel_errors(*pair, mean) for pair in zip(student, teacher, scales, strict=True)]
        return torch.stack([error_of_values(each) for each in errors]).mean()

    def meter(self) -> Meter:
        """Return sums of squared errors by channel, and of the distances from labels."""
        return _Valued()

    def measured(self, teacher: Callable[[], Iterable[Outputs]]) -> "Task":
        """Return the task with the scales of the teacher's channels."""
        return replace(self, scales=channel_scales(teacher()))


class _Valued(Meter):
    def __init__(self) -> None:
        self._errors: list[ChannelErrors] = []
        self._distance, self._numbers, self._seen = 0.0, 0, 0

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Tensor | None) -> None:
        self._seen += len(outputs[0])
        if teacher is not None:
            self._errors = self._errors or [ChannelErrors() for _ in teacher]
            for error, own, other in zip(self._errors, outputs, teacher, strict=True):
                error.add(other, own)
        if labels is not None:
            self._distance += float((outputs[0].flatten(1).double() - labels.double()).abs().sum())
            self._numbers += labels.numel()

    def evaluation(self) -> Evaluation:
        label_error = self._distance / self._numbers if self._numbers else None
        if not self._errors:
            return Evaluation(None, None, self._seen, label_error=label_error)
        shares = [error.shares() for error in self._errors]
        fidelity = sum(float((1 - share).clamp_min(0.0).mean()) for share in shares) / len(shares)
        loss = sum(float(error_of_values(share)) for share in shares) / len(shares)
        return Evaluation(None, fidelity, self._seen, loss, label_error)


def task_of(model: ir.Model, data: Data) -> Task:
    """Return what a model does, as its outputs for these data are taken."""
    kind = output_kind(model, data.outputs)
    return Values() if kind == "other" else Classification(kind)
