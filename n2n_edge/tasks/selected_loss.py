"""Losses of detectors at what goes into a selection, where boxes and scores are told."""

from collections.abc import Sequence

from torch import Tensor

from n2n_edge.tasks.channels import ChannelScale
from n2n_edge.tasks.detection_labels import detection_by_labels
from n2n_edge.tasks.detection_loss import detection_loss
from n2n_edge.tasks.head import Head
from n2n_edge.tasks.losses import LabelLoss, Mean, values_loss
from n2n_edge.tasks.selected import Selected

__all__ = ["selected_by_labels", "selected_loss"]


def selected_loss(
    selected: Selected,
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    scales: Sequence[ChannelScale],
    mean: Mean | None = None,
) -> Tensor:
    """Give the loss at boxes and scores, weighted by the teacher's scores, and the error of other values."""
    chosen = [scales[place] for place in selected.places]
    total = detection_loss(selected.taken(student), selected.taken(teacher), selected.head, chosen, mean=mean)
    if selected.others:
        first, second = ([each[place] for place in selected.others] for each in (student, teacher))
        total = total + values_loss(first, second, [scales[place] for place in selected.others], mean)
    return total


def selected_by_labels(
    selected: Selected,
    head: Head,
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    labels: Tensor,
    mean: Mean | None = None,
) -> LabelLoss:
    """Give the loss by labelled objects at boxes and scores that `head` decodes (see `Selected.coded`)."""
    return detection_by_labels(selected.taken(student), selected.taken(teacher), labels, head, mean)
