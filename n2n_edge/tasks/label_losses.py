"""Losses by labels of masks, points and numbers."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.data.labels.values import IGNORED, NOT_LABELLED
from n2n_edge.tasks.channels import ChannelScale
from n2n_edge.tasks.losses import DICE_WEIGHT, LabelLoss, Mean, told_share

__all__ = ["heatmaps_by_labels", "maps_by_labels", "numbers_by_labels", "points_by_labels"]

_LEAST_SIGMA, _LARGEST_SIGMA = 0.5, 1 / 8


def maps_by_labels(scores: Tensor, masks: Tensor, mean: Mean | None = None, *, independent: bool = False) -> LabelLoss:
    """Give the cross entropy of every pixel plus the Dice loss of the classes that are there.

    `scores` are logits `(N, C, h, w)`, each for itself where they are `independent`, as one channel of foreground alone
    is; `masks` `(N, H, W)` hold classes, of which each cell of a map takes that at its centre. What is `IGNORED` or no
    class of the maps doesn't count. Milletari et al., V-Net, 2016, for the Dice loss, 1 - 2 |A B| / (|A| + |B|) with
    probabilities as A, over the batch.
    """
    classes = max(2, scores.shape[1])
    rows, columns = (
        ((torch.arange(own, device=masks.device) + 0.5) * whole / own).long()
        for own, whole in zip(scores.shape[2:], masks.shape[1:], strict=True)
    )
    aim = masks[:, rows[:, None], columns].long()
    told = (aim != IGNORED) & (aim < classes)
    aim = torch.where(told, aim, 0)
    there = F.one_hot(aim, classes).movedim(-1, 1).float()[:, -scores.shape[1] :]
    if independent:
        entropy = F.binary_cross_entropy_with_logits(scores, there, reduction="none").mean(1)
        shares = scores.sigmoid()
    else:
        entropy = F.cross_entropy(scores, aim, reduction="none")
        shares = scores.softmax(1)
    counts = told.sum((1, 2))
    by_image = (entropy * told).sum((1, 2)) / counts.clamp_min(1)
    shares, there = shares * told[:, None], there * told[:, None]
    sums = torch.stack([(shares * there).sum((0, 2, 3)), shares.sum((0, 2, 3)), there.sum((0, 2, 3))])
    common, given, wanted = sums if mean is None else mean(sums)
    present = wanted > 0
    dice = 1.0 - 2.0 * common[present] / (given + wanted)[present]
    labelled = told_share(counts > 0, mean)
    overlap = dice.mean() if bool(present.any()) else scores.sum() * 0.0
    return LabelLoss(by_image.mean() + DICE_WEIGHT * labelled * overlap, labelled)


def points_by_labels(
    points: Tensor,
    labels: Tensor,
    scale: ChannelScale,
    size: tuple[int, int] | None = None,
    mean: Mean | None = None,
) -> LabelLoss:
    """Give the error of points to labels, of each coordinate as that to the teacher is given (see `values_loss`).

    `points` ``(N, K, numbers)`` begin with x and y, in pixels or, where `size` (height, width) is given, in shares of
    it; `labels` ``(N, K, 3)`` are x and y in pixels, and visibility. `scale` is of the output that holds the points.
    """
    places = labels[..., :2] if size is None else labels[..., :2] / labels.new_tensor(size[::-1])
    told = (labels[..., 2:] != NOT_LABELLED).expand_as(places)
    variance = scale.variance.to(points).expand(points[0].numel() if scale.variance.dim() < 2 else scale.variance.shape)
    variance = variance.reshape(points.shape[1:])[..., :2]
    return _errors_by_labels(points[..., :2], places, told, variance, mean)


def _errors_by_labels(output: Tensor, aim: Tensor, told: Tensor, variance: Tensor, mean: Mean | None) -> LabelLoss:
    """Give ln(1 + e) of the error e of every element in units of its variance, as a mean over those that are `told`."""
    squared = torch.where(told, (output - torch.where(told, aim, 0.0)).square(), 0.0) / variance
    sums = torch.stack([squared.sum(0), told.float().sum(0)])
    errors, count = sums if mean is None else mean(sums)
    present = count > 0
    labelled = told_share(told.flatten(1).any(1), mean)
    by_element = (errors / count.clamp_min(1e-12)).log1p() * present
    return LabelLoss(labelled * by_element.sum() / present.sum().clamp_min(1), labelled)


def heatmaps_by_labels(
    maps: Tensor, teacher: Tensor, labels: Tensor, size: tuple[int, int], mean: Mean | None = None
) -> LabelLoss:
    """Give the squared error of maps ``(N, K, h, w)`` to peaks where labels say, in units of the peaks' variance.

    A peak is a Gaussian that is as high above the rest of its map, and as wide at half of that, as the `teacher`'s are
    in this batch, since networks give heatmaps of any scale. `labels` ``(N, K, 3)`` are in pixels of an input of `size`
    (height, width). Points are compared by channel as values are (see `error_of_values`).
    """
    rows, columns = maps.shape[2:]
    shared = mean or (lambda values: values)
    flat = teacher.flatten(2)
    low, high = shared(torch.stack([flat.median(2).values.mean(0), flat.amax(2).mean(0)]))
    rise = (high - low).clamp_min(1e-6)
    area = shared((flat > (low + rise / 2)[:, None]).float().sum(2).mean(0))
    sigma = (area / (2 * math.pi * math.log(2))).sqrt()
    sigma = sigma.clamp(_LEAST_SIGMA, max(_LEAST_SIGMA, _LARGEST_SIGMA * min(rows, columns)))
    told = labels[..., 2] != NOT_LABELLED
    squares = []
    for cells, place, whole in ((rows, labels[..., 1], size[0]), (columns, labels[..., 0], size[1])):
        centres = torch.arange(cells, device=maps.device) + 0.5
        squares.append((centres - (place * cells / whole)[..., None]).square())
    distances = squares[0][..., :, None] + squares[1][..., None, :]
    peaks = torch.exp(-distances / (2 * sigma.square())[:, None, None])
    aim = low[:, None, None] + rise[:, None, None] * peaks
    errors, variances = (maps - aim).square().mean((2, 3)), aim.var((2, 3), correction=0)
    sums = shared(torch.stack([(errors * told).sum(0), (variances * told).sum(0)]))
    present = sums[1] > 0
    labelled = told_share(told.any(1), mean)
    shares = sums[0] / torch.where(present, sums[1], 1.0)
    return LabelLoss(labelled * (shares.log1p() * present).sum() / present.sum().clamp_min(1), labelled)


def numbers_by_labels(output: Tensor, labels: Tensor, scale: ChannelScale, mean: Mean | None = None) -> LabelLoss:
    """Give the error of an output `(N, ...)` to labels `(N, K)`, as that to the teacher is given (see `values_loss`).

    A label that holds what isn't a number doesn't count; `(N, 1)` of these stands for a batch without any.
    """
    labels = labels.expand(-1, output[0].numel()) if not torch.isfinite(labels).any() else labels
    told = torch.isfinite(labels).all(1, keepdim=True).expand_as(labels).reshape(output.shape)
    return _errors_by_labels(output, labels.reshape(output.shape), told, scale.variance.to(output), mean)
