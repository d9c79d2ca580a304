"""Loss of detectors by labelled objects: which anchors answer for an object, and what they should say of it.

Anchors are assigned by how well the teacher's own output at them aligns with an object, its score of the class to the
power of 0.5 times its overlap to that of 6 (Feng et al., TOOD, 2021, equation 3, with the constants of Ultralytics),
among those that stand in the object's box: a teacher tells better than a cut student which ones look there. As many
answer as the overlaps of the ten best add up to (Ge et al., YOLOX, 2021, section 2), without those that overlap less
than half as far as the best. Scores are then taught by the
quality focal loss with the box's overlap as the aim, edges by their generalised overlap (Rezatofighi et al., 2019) and,
where they are distributions, by the distribution focal loss; the weights of these three are those of Li et al.,
Generalized Focal Loss, 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.data.labels.values import Objects
from n2n_edge.tasks.box_codes import like
from n2n_edge.tasks.detection_loss import by_anchor
from n2n_edge.tasks.head import Head, Role
from n2n_edge.tasks.losses import LabelLoss, Mean, told_share

__all__ = ["as_rows", "detection_by_labels"]

_BOX_WEIGHT, _DISTRIBUTION_WEIGHT = 2.0, 0.25
_SCORE_POWER, _OVERLAP_POWER = 0.5, 6.0
_MOST_ANCHORS, _NEARLY = 10, 0.5
_SEEN_SCORE, _SEEN_OVERLAP = 0.3, 0.5
"""What the teacher gives at least this score and that overlaps an object so far is no background."""
_NOTHING, _LEAST = 1e-3, 1e-7

PADDING, CROWD, NO_LABEL = -1.0, -2.0, -3.0
"""What stands in the class's place in a row that is no object."""


@dataclass(frozen=True)
class _Said:
    """What outputs say at anchors: logarithms of scores ``(N, A, C)``, boxes ``(N, A, 4)``, distributions of edges."""

    scores: Tensor
    boxes: Tensor
    edges: Tensor | None


def as_rows(labels: Sequence[Objects | None]) -> Tensor:
    """Return objects as a tensor ``(N, M, 5)``: class, left, top, right, bottom, and `NO_LABEL` where there is none."""
    most = max([1, *(len(each) for each in labels if each is not None)])
    rows = np.full((len(labels), most, 5), PADDING, np.float32)
    for row, each in zip(rows, labels, strict=True):
        if each is None:
            row[:] = NO_LABEL
            continue
        row[: len(each), 0] = each.classes
        row[: len(each), 1:] = each.boxes
        if each.crowd is not None:
            row[: len(each), 0][each.crowd.astype(bool)] = CROWD
    return torch.from_numpy(rows)


def detection_by_labels(
    student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, head: Head, mean: Mean | None = None
) -> LabelLoss:
    """Give the loss of raw outputs by objects `labels` ``(N, M, 5)`` (see `as_rows`), for each object's anchor.

    Anchors in crowds, and those that see an object others answer for, aren't background and don't count. Where
    processes share a batch, `mean` is that over all of them. Raises ValueError for a head that doesn't say how its
    boxes are coded.
    """
    if head.boxes is None:
        raise ValueError(f"head {head.name} doesn't say how its boxes are coded")
    own = _said(head, student)
    with torch.no_grad():
        theirs = _said(head, teacher)
        images, anchors, objects, counted = _assigned(head, theirs, labels)
        quality = _overlaps(own.boxes[images, anchors], labels[images, objects, 1:])
        aim = torch.zeros_like(own.scores)
        aim[images, anchors, labels[images, objects, 0].long()] = quality
    labelled = told_share(labels[:, 0, 0] != NO_LABEL, mean)
    positives = own.scores.new_tensor(float(len(images)))
    positives = (positives if mean is None else mean(positives)).clamp_min(1.0)
    total = (_quality_error(own.scores, aim).sum(2) * counted).sum()
    boxes = labels[images, objects, 1:]
    total = total + _BOX_WEIGHT * (1.0 - _generalised(own.boxes[images, anchors], boxes)).sum()
    if own.edges is not None and head.boxes.centres is not None and head.boxes.strides is not None:
        centres, strides = (like(each, boxes)[anchors] for each in (head.boxes.centres, head.boxes.strides))
        distances = torch.cat([centres - boxes[:, :2], boxes[:, 2:] - centres], 1) / strides
        total = total + _DISTRIBUTION_WEIGHT * _distribution_error(own.edges[images, anchors], distances)
    return LabelLoss(labelled * total / positives, labelled)


def _parts(head: Head, outputs: Sequence[Tensor], roles: tuple[Role, ...], *, first: bool) -> Tensor:
    """Return the channels of these roles at all anchors ``(N, A, channels)``, the first of each anchor or all."""
    found: dict[int, list[Tensor]] = {}
    for output, layout in zip(outputs, head.layouts, strict=True):
        rows, start = by_anchor(output.float(), layout), 0
        for width, role in layout.parts:
            if role in roles and not (first and layout.start in found):
                found.setdefault(layout.start, []).append(rows[..., start : start + width])
            start += width
    return torch.cat([torch.cat(parts, 2) for _, parts in sorted(found.items())], 1)


def _said(head: Head, outputs: Sequence[Tensor]) -> _Said:
    assert head.boxes is not None
    roles = {role for layout in head.layouts for _, role in layout.parts}
    numbers = _parts(head, outputs, ("score", "logit"), first=False)
    if "score" in roles:
        logarithms = numbers.clamp_min(1e-12).log()
    else:
        logarithms = numbers.log_softmax(2) if head.scores.background else F.logsigmoid(numbers)
    channel = head.scores.objectness
    if head.scores.background:
        logarithms = logarithms[..., 1:]
    elif channel is not None:
        there, classes = head.scores.powers
        rest = logarithms[..., 1:] if channel == 0 else logarithms[..., :channel]
        logarithms = there * logarithms[..., channel, None] + classes * rest
    edges = _parts(head, outputs, ("distribution",), first=True) if "distribution" in roles else None
    code = _parts(head, outputs, ("box",), first=True) if edges is None else edges
    return _Said(logarithms.clamp_max(-_LEAST), head.boxes.decode(code), edges)


def _assigned(head: Head, teacher: _Said, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return numbers of images, anchors and objects that belong together, and which anchors count ``(N, A)``."""
    classes, counted = teacher.scores.shape[2], torch.ones(teacher.scores.shape[:2], device=labels.device)
    found = []
    for image, rows in enumerate(labels):
        kinds = rows[:, 0]
        if kinds[0] == NO_LABEL:
            counted[image] = 0
            continue
        boxes = teacher.boxes[image]
        crowds = rows[kinds == CROWD, 1:]
        if len(crowds):
            counted[image][(_common(crowds[:, None], boxes[None]) > _SEEN_OVERLAP * _areas(boxes)).any(0)] = 0
        objects = torch.nonzero((kinds >= 0) & (kinds < classes))[:, 0]
        if not len(objects):
            continue
        overlaps = _overlaps(boxes[None], rows[objects, None, 1:])
        scores = teacher.scores[image][:, kinds[objects].long()].T.exp()
        within = _within(boxes if head.boxes is None or head.boxes.centres is None else None, head, rows[objects, 1:])
        within = within * (overlaps >= _NEARLY * (overlaps * within).amax(1, keepdim=True))
        fit = (scores + _NOTHING).pow(_SCORE_POWER) * (overlaps + _NOTHING).pow(_OVERLAP_POWER) * within
        best = fit.topk(min(_MOST_ANCHORS, fit.shape[1]))
        room = overlaps.gather(1, best.indices).mul(best.values > 0).sum(1).round().clamp_min(1)
        taken = (torch.arange(best.indices.shape[1], device=fit.device) < room[:, None]) & (best.values > 0)
        chosen = torch.zeros_like(fit).scatter_(1, best.indices, taken.to(fit)) * fit
        owner = chosen.argmax(0)  # an anchor answers for the object that it fits best
        anchors = torch.nonzero(chosen.amax(0) > 0)[:, 0]
        seen = ((overlaps > _SEEN_OVERLAP) & (scores > _SEEN_SCORE)).any(0)
        counted[image][seen] = 0
        counted[image][anchors] = 1
        found.append((torch.full_like(anchors, image), anchors, objects[owner[anchors]]))
    if not found:
        nothing = torch.zeros(0, dtype=torch.long, device=labels.device)
        return nothing, nothing, nothing, counted
    images, anchors, objects = (torch.cat(parts) for parts in zip(*found, strict=True))
    return images, anchors, objects, counted


def _within(boxes: Tensor | None, head: Head, objects: Tensor) -> Tensor:
    """Return which anchors stand in each object's box ``(n, A)``: by their cells, else the middles of their boxes.

    Where none does it is the nearest one.
    """
    if boxes is not None:
        places = (boxes[:, :2] + boxes[:, 2:]) / 2
    else:
        assert head.boxes is not None
        assert head.boxes.centres is not None
        places = like(head.boxes.centres, objects)
    inside = ((places > objects[:, None, :2]) & (places < objects[:, None, 2:])).all(2)
    middles = (objects[:, :2] + objects[:, 2:]) / 2
    nearest = torch.cdist(middles, places).argmin(1)
    none = ~inside.any(1)
    inside[none, nearest[none]] = True
    return inside.float()


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def _common(first: Tensor, second: Tensor) -> Tensor:
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    return (high - low).clamp_min(0).prod(-1)


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of boxes ``(..., 4)``, pair by pair."""
    common = _common(first, second)
    return common / (_areas(first) + _areas(second) - common).clamp_min(_LEAST)


def _generalised(first: Tensor, second: Tensor) -> Tensor:
    """Return the same less the share of the box around both that is in neither, -1 to 1."""
    common = _common(first, second)
    union = (_areas(first) + _areas(second) - common).clamp_min(_LEAST)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    whole = (high - low).clamp_min(0).prod(-1).clamp_min(_LEAST)
    return common / union - (whole - union) / whole


def _quality_error(logarithms: Tensor, aim: Tensor) -> Tensor:
    """Return the quality focal loss of scores, given as their logarithms below nought."""
    scores = logarithms.exp()
    entropy = -(aim * logarithms + (1 - aim) * torch.log(-torch.expm1(logarithms)))
    return (aim - scores).square() * entropy


def _distribution_error(edges: Tensor, distances: Tensor) -> Tensor:
    """Return the sum over boxes of the distribution focal loss of their edges ``(n, 4 * bins)``, as a mean of four."""
    bins = edges.reshape(len(edges), 4, edges.shape[1] // 4).log_softmax(2)
    aim = distances.clamp(0, bins.shape[2] - 1.01)
    low = aim.floor()
    share = aim - low
    pair = [bins.gather(2, place[..., None].long())[..., 0] for place in (low, low + 1)]
    return -(pair[0] * (1 - share) + pair[1] * share).mean(1).sum()
