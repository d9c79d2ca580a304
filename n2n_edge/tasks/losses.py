"""Distillation losses."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.tasks.channels import ChannelScale, channel_errors, channel_scales
from n2n_edge.tasks.outputs import OutputKind, as_logits

Mean = Callable[[Tensor], Tensor]
"""Gives the mean of a tensor over the parts of a batch that several processes share."""

__all__ = ["Mean", "distillation_loss", "error_of_values", "normalised_error", "tempered_kl"]


def tempered_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Mean KL divergence of the softened teacher from the softened student, times T² `(N, classes)`.

    Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2: the factor keeps the size of the
    gradients independent of the temperature.
    """
    student = F.log_softmax(student_logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def normalised_error(student: Tensor, teacher: Tensor, mean: Mean | None = None) -> Tensor:
    """Mean squared error in units of the teacher's variance: 0 is equal, 1 as bad as always giving the mean."""
    student, teacher = student.float(), teacher.float()
    squared = (student - teacher).square().mean()
    if mean is None:
        return squared / (teacher.var(correction=0) + 1e-8)
    return mean(squared) / (mean((teacher - mean(teacher.mean())).square().mean()) + 1e-8)


def error_of_values(shares: Tensor) -> Tensor:
    """Mean of ln(1 + e) over the normalised errors e of an output's channels.

    It is their mean where they are small, and beyond 1 it grows slowly: a channel that hardly varies, such as the score
    of a class that is never seen, can't drown the others.
    """
    return shares.log1p().mean()


def distillation_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    labels: Tensor | None,
    *,
    kind: OutputKind,
    temperature: float,
    kd_weight: float,
    label_smoothing: float = 0.0,
    scales: Sequence[ChannelScale] | None = None,
    mean: Mean | None = None,
) -> Tensor:
    """Give the loss of one batch of outputs.

    Classifiers: ``kd_weight`` times the tempered KL plus the rest times the cross entropy, or the KL alone without
    labels. Any other model: the error of every channel in units of its variance, averaged over the outputs; `scales`
    are the teacher's on many images, by default those of this batch. Where processes share a batch, `mean` is that over
    all of them, and the mean of what each returns is the loss of the batch.
    """
    if kind == "other":
        scales = scales or channel_scales([teacher])
        errors = [channel_errors(*pair, mean) for pair in zip(student, teacher, scales, strict=True)]
        return torch.stack([error_of_values(each) for each in errors]).mean()
    logits = as_logits(student[0], kind)
    divergence = tempered_kl(logits, as_logits(teacher[0], kind), temperature)
    if labels is None:
        return divergence
    return kd_weight * divergence + (1.0 - kd_weight) * F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
