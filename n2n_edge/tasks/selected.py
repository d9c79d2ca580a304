"""Reading of what goes into a selection, such as suppression inside a file: which values are boxes, and which scores.

They are told by their sizes: of so many boxes one value has four numbers each, and another any number of scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from torch import Tensor

from n2n_edge.tasks.boxes import Floats
from n2n_edge.tasks.channels import ChannelScale
from n2n_edge.tasks.detection_loss import detection_loss
from n2n_edge.tasks.head import Candidates, Head, Layout, OutputForm, Outputs, Role
from n2n_edge.tasks.losses import Mean, values_loss

__all__ = ["Selected", "selected_in"]

_BOUNDED = frozenset({"Sigmoid", "Softmax", "HardSigmoid"})
_FOUR = 4


@dataclass(frozen=True)
class Selected:
    """Which of the learned values are boxes and scores, in pairs of as many anchors, and a head that weights them.

    `shapes` are those in which `head` takes them, `others` the values that are neither.
    """

    pairs: tuple[tuple[int, int], ...]
    shapes: tuple[tuple[int, ...], ...]
    head: Head
    others: tuple[int, ...]

    def loss(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        scales: Sequence[ChannelScale],
        mean: Mean | None = None,
    ) -> Tensor:
        """Give the loss at boxes and scores, weighted by the teacher's scores, and the error of other values."""
        places = [place for pair in self.pairs for place in pair]
        own, theirs = (
            [each[place].reshape(len(each[place]), *shape) for place, shape in zip(places, self.shapes, strict=True)]
            for each in (student, teacher)
        )
        total = detection_loss(own, theirs, self.head, [scales[place] for place in places], mean=mean)
        if self.others:
            first, second = ([each[place] for place in self.others] for each in (student, teacher))
            total = total + values_loss(first, second, [scales[place] for place in self.others], mean)
        return total


def selected_in(outputs: Sequence[OutputForm]) -> Selected | None:
    """Return how learned values `outputs` are read, None where none are boxes and scores."""
    sizes = [tuple(size for size in output.shape if size != 1) for output in outputs]
    taken: list[int] = []
    pairs = []
    for box, shape in enumerate(sizes):
        if len(shape) != 2 or _FOUR not in shape or box in taken:
            continue
        anchors = shape[1] if shape[0] == _FOUR else shape[0]
        scores = [
            place
            for place, other in enumerate(sizes)
            if place not in (box, *taken) and other.count(anchors) == 1 and len(other) <= 2
        ]
        if not scores or anchors == _FOUR:
            continue
        # of several it is the one that is bounded as scores are, and no box itself
        score = min(scores, key=lambda place: (_FOUR in sizes[place], not outputs[place].tail & _BOUNDED))
        pairs.append((box, score))
        taken += (box, score)
    if not pairs:
        return None
    counts = [sizes[box][1] if sizes[box][0] == _FOUR else sizes[box][0] for box, _ in pairs]
    layouts: list[Layout] = []
    shapes: list[tuple[int, ...]] = []
    for pair, (start, end) in zip(pairs, pairwise(accumulate(counts, initial=0)), strict=True):
        for place in pair:
            first = sizes[place][0] == end - start
            width = sizes[place][1 if first else 0] if len(sizes[place]) == 2 else 1
            role: Role = "box" if place == pair[0] else "score" if outputs[place].tail & _BOUNDED else "logit"
            layouts.append(Layout(start, end, 2 if first else 1, ((width, role),)))
            shapes.append((end - start, width) if first else (width, end - start))
    others = tuple(place for place in range(len(outputs)) if place not in taken)
    background = tuple("Softmax" in outputs[score].tail for _, score in pairs)
    head = Head("selected", 0, _Scores(tuple(layouts[1::2]), background), iou=None, layouts=tuple(layouts))
    return Selected(tuple(pairs), tuple(shapes), head, others)


@dataclass(frozen=True)
class _Scores:
    """Gives the best score of every anchor, from boxes and scores in turns; `softmax` says which sum to one."""

    layouts: tuple[Layout, ...]
    softmax: tuple[bool, ...]

    def __call__(self, outputs: Outputs) -> Candidates:
        best = [self._best(*each) for each in zip(outputs[1::2], self.layouts, self.softmax, strict=True)]
        scores = np.concatenate(best, axis=1)
        return Candidates(np.zeros((*scores.shape[:2], _FOUR), np.float32), scores)

    def _best(self, scores: Floats, layout: Layout, softmax: bool) -> Floats:
        rows = scores if layout.axis == 2 else scores.transpose(0, 2, 1)
        if layout.parts[0][1] == "logit":
            rows = 1 / (1 + np.exp(-np.clip(rows, -60, 60)))
        if softmax and rows.shape[2] > 1 and np.allclose(rows.sum(axis=2), 1.0, atol=1e-2):
            # one class is that nothing is there: of all anchors nearly all are that
            rows = np.delete(rows, rows.mean(axis=(0, 1)).argmax(), axis=2)
        best: Floats = rows.max(axis=2, keepdims=True)
        return best
