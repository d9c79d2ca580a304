"""Distillation loss of detectors, at their heads' raw outputs and weighted by what the teacher sees.

Most anchors see background, and boxes there mean nothing: their errors count by the teacher's best score, and errors of
scores by how wrong they are, so that background doesn't drown objects. Scores follow the quality focal loss of Li et
al., Generalized Focal Loss, 2020 (equation 6, with the teacher's score as the aim and an exponent of 2), distributions
of edges the Kullback-Leibler divergence of Zheng et al., Localization Distillation, 2022.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.tasks.channels import ChannelScale
from n2n_edge.tasks.head import Head, Layout
from n2n_edge.tasks.losses import Mean

__all__ = ["anchor_weights", "by_anchor", "detection_loss"]

_LEAST_WEIGHT = 1e-3
"""What the boxes of an anchor count that sees nothing at all."""

_FOUR = 4


def by_anchor(output: Tensor, layout: Layout) -> Tensor:
    """Return an output as ``(N, anchors, channels)``."""
    return output.flatten(2).transpose(1, 2) if layout.axis == 1 else output


def anchor_weights(head: Head, teacher: Sequence[Tensor]) -> Tensor:
    """Return what each anchor's box counts, ``(N, anchors)``: the best score that the teacher gives it."""
    raw = head.raw([output.detach().float().cpu().numpy() for output in teacher])
    best = torch.from_numpy(raw.scores).amax(dim=2)
    return best.clamp_min(_LEAST_WEIGHT).to(teacher[0].device)


def detection_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    head: Head,
    scales: Sequence[ChannelScale],
    weights: Tensor | None = None,
    mean: Mean | None = None,
) -> Tensor:
    """Give the loss of one batch of raw outputs: a scalar, nought where they equal the teacher's.

    `scales` are the teacher's channels (`channel_scales`), in units of whose variance edges and points are compared;
    `weights` are those of `anchor_weights`, by default this batch's. Where processes share a batch, `mean` is that over
    all of them. Raises ValueError for a head without layouts.
    """
    if len(head.layouts) != len(student):
        raise ValueError(f"head {head.name} doesn't say where its {len(student)} outputs hold what")
    weights = anchor_weights(head, teacher) if weights is None else weights
    seen = weights.sum() if mean is None else mean(weights.sum())
    seen = seen.clamp_min(1.0)
    total = student[0].new_zeros((), dtype=torch.float32)
    for own, aim, layout, scale in zip(student, teacher, head.layouts, scales, strict=True):
        mine, theirs = by_anchor(own.float(), layout), by_anchor(aim.float(), layout)
        weight = weights[:, layout.start : layout.stop]
        deviation = _deviation(scale, own, layout)
        start = 0
        for width, role in layout.parts:
            part = slice(start, start + width)
            start += width
            first, second = mine[..., part], theirs[..., part]
            if role in ("score", "logit"):
                total = total + _score_error(first, second, logits=role == "logit").sum() / seen
            elif role == "distribution":
                total = total + (_divergence(first, second) * weight).sum() / seen
            else:
                spread = deviation if deviation.dim() == 0 else deviation[..., part]
                error = F.smooth_l1_loss(first / spread, second / spread, reduction="none").mean(dim=2)
                total = total + (error * weight).sum() / seen
    return total


def _deviation(scale: ChannelScale, output: Tensor, layout: Layout) -> Tensor:
    """Return the standard deviation of each channel ``(channels,)``, or one where they lie along another axis."""
    variance = scale.variance.to(output.device, torch.float32)
    own = layout.axis - 1
    if scale.axis == own and variance.numel() == output.shape[layout.axis]:
        return variance.flatten().sqrt()
    return variance.mean().sqrt()


def _score_error(own: Tensor, aim: Tensor, *, logits: bool) -> Tensor:
    """Return the quality focal loss of every score."""
    if logits:
        aim = aim.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(own, aim, reduction="none")
        own = own.sigmoid()
    else:
        own, aim = own.clamp(1e-6, 1 - 1e-6), aim.clamp(0.0, 1.0)
        entropy = F.binary_cross_entropy(own, aim, reduction="none")
    return (own - aim).square() * entropy


def _divergence(own: Tensor, aim: Tensor) -> Tensor:
    """Return the mean over the four edges of the divergence of their distributions, ``(N, anchors)``."""
    first, second = (each.reshape(*each.shape[:-1], _FOUR, -1).log_softmax(-1) for each in (own, aim))
    return F.kl_div(first, second, reduction="none", log_target=True).sum(-1).mean(-1)
