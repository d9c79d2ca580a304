"""Reading of what goes into a selection, such as suppression inside a file: which values are boxes, and which scores.

They are told by their sizes: of so many boxes one value has four numbers each, and another any number of scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from n2n_edge.tasks.box_codes import BoxCode, ScoreCode, from_centres, like, sigmoid
from n2n_edge.tasks.boxes import Detections, Floats
from n2n_edge.tasks.head import Candidates, Head, Layout, OutputForm, Outputs, Role

__all__ = ["Selected", "selected_in"]

_BOUNDED = frozenset({"Sigmoid", "Softmax", "HardSigmoid"})
_FOUR = 4

_BACKGROUND = " background"
_CODES = tuple(
    f"{form} {unit}{first}"
    for form in ("corners", "centres", "rows")
    for unit in ("pixels", "shares")
    for first in ("", _BACKGROUND)
)
"""How boxes may be written: as corners, as centres and sizes, or as corners with the row first; in pixels or shares of
the input; and whether the first class is that nothing is there."""

_SURE, _LEAST_FOUND, _FITTING, _NEAR = 0.1, 5, 0.9, 0.01


@dataclass(frozen=True)
class Selected:
    """Which of the learned values are boxes and scores, in pairs of as many anchors, and a head that weights them.

    `shapes` are those in which `head` takes them, `others` the values that are neither.
    """

    pairs: tuple[tuple[int, int], ...]
    shapes: tuple[tuple[int, ...], ...]
    head: Head
    others: tuple[int, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """The values that are boxes and scores, in the order in which `head` takes them."""
        return tuple(place for pair in self.pairs for place in pair)

    def taken(self, outputs: Sequence[Any]) -> list[Any]:
        """Return what `head` takes of the learned values, of arrays or tensors."""
        picked = [outputs[place] for place in self.places]
        return [each.reshape(len(each), *shape) for each, shape in zip(picked, self.shapes, strict=True)]

    def coded(self, code: str, size: tuple[int, int]) -> Head:
        """Return the head with boxes written as `code` says, in an input of `size` (height, width)."""
        form, _, unit = code.removesuffix(_BACKGROUND).partition(" ")
        height, width = size if unit == "shares" else (1, 1)
        scale = np.array([width, height] * 2, np.float32)

        def decode(rows: Any) -> Any:
            if form == "rows":
                rows = rows[..., [1, 0, 3, 2]]
            rows = rows * like(scale, rows)
            return from_centres(rows[..., :2], rows[..., 2:]) if form == "centres" else rows

        scores = ScoreCode(background=code.endswith(_BACKGROUND))
        return replace(self.head, boxes=BoxCode(decode), scores=scores)

    def code_of(self, outputs: Sequence[Floats], found: Sequence[Detections], size: tuple[int, int]) -> str | None:
        """Return how boxes and scores are written, by what was `found` behind them; None where nothing fits.

        `outputs` are the learned values of the same images. A code fits where nearly all detections have their box
        among the boxes, with their score as that of their class.
        """
        picked = self.taken(outputs)
        for code in _CODES:
            hits = total = 0
            head = self.coded(code, size)
            assert head.boxes is not None
            boxes = head.boxes.decode(np.concatenate([_rows(*each) for each in self._parts(picked, 0)], axis=1))
            scores = np.concatenate([_rows(*each) for each in self._parts(picked, 1)], axis=1)
            for image, each in enumerate(found):
                sure = each.above(_SURE)
                total += len(sure)
                kinds = sure.classes + head.scores.background
                if not len(sure) or kinds.max() >= scores.shape[2]:
                    continue
                frame = np.array([size[1], size[0]] * 2, np.float32)
                apart = np.abs(np.clip(boxes[image], 0, frame)[None] - sure.boxes[:, None]).max(axis=2)
                unlike = np.abs(scores[image][:, kinds].T - sure.scores[:, None])
                hits += int(((apart < _NEAR * max(size)) & (unlike < _NEAR)).any(axis=1).sum())
            if total >= _LEAST_FOUND and hits >= _FITTING * total:
                return code
        return None

    def _parts(self, picked: Sequence[Floats], which: int) -> list[tuple[Floats, Layout]]:
        return list(zip(picked[which::2], self.head.layouts[which::2], strict=True))


def _rows(output: Floats, layout: Layout) -> Floats:
    """Return a value as ``(N, anchors, channels)``, scores as shares."""
    rows = output if layout.axis == 2 else output.transpose(0, 2, 1)
    return np.asarray(sigmoid(rows)) if layout.parts[0][1] == "logit" else rows


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
        rows = _rows(scores, layout)
        if softmax and rows.shape[2] > 1 and np.allclose(rows.sum(axis=2), 1.0, atol=1e-2):
            # one class is that nothing is there: of all anchors nearly all are that
            rows = np.delete(rows, rows.mean(axis=(0, 1)).argmax(), axis=2)
        best: Floats = rows.max(axis=2, keepdims=True)
        return best
