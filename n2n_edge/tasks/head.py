"""A detector's head: what its raw outputs look like, where they hold what, and how detections are read from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.op import op_of
from n2n_edge.tasks.box_codes import BoxCode, ScoreCode
from n2n_edge.tasks.boxes import Detections, Floats, suppressed

__all__ = ["Candidates", "Head", "Layout", "OutputForm", "Outputs", "Role", "Signature", "signature_of"]

Outputs = Sequence[Floats]
Raw = Callable[[Outputs], "Candidates"]

Role = Literal["score", "logit", "box", "distribution"]
"""What some channels of an output are: scores in 0..1, scores before a sigmoid, edges and points, or the logarithms of
distributions of the edges' distances."""

_USUAL = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32), (8, 16))
_POWERS = (4, 8, 16, 32, 64, 128)
_RUNS = tuple(_POWERS[start:end] for start in range(len(_POWERS)) for end in range(start + 1, len(_POWERS) + 1))
_STRIDES = tuple(dict.fromkeys((*_USUAL, *_RUNS)))
"""Strides of a head's grids: the usual ones first, then any that double from one to the next."""

_LEAST_SCORE = 0.001


@dataclass(frozen=True)
class OutputForm:
    """One output: its shape without the images' axis, and how wide each part is that a final Concat joins.

    `tail` are the operators between it and the last convolutions.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[int, ...] = ()
    tail: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Signature:
    """What tells a head: size of the input, outputs, and the operators between them and the last convolutions."""

    height: int
    width: int
    outputs: tuple[OutputForm, ...]
    tail: frozenset[str]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The outputs' shapes."""
        return tuple(output.shape for output in self.outputs)

    def cells(self, stride: int) -> int:
        """Return the cells of the grid at a stride."""
        return -(-self.height // stride) * -(-self.width // stride)

    def grid(self, stride: int) -> Floats:
        """Return column and row of every cell at a stride, ``(cells, 2)``, row by row."""
        rows, columns = np.mgrid[: -(-self.height // stride), : -(-self.width // stride)]
        return np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(np.float32)

    def scales(self, strides: Sequence[int]) -> Floats:
        """Return the stride of every anchor of these grids, one after the other, ``(anchors, 1)``."""
        return np.concatenate([np.full((self.cells(stride), 1), stride, np.float32) for stride in strides])

    def strides(self, anchors: int, per_cell: int = 1) -> tuple[int, ...]:
        """Return the strides whose grids have so many anchors together, () where there are none."""
        fitting = (each for each in _STRIDES if per_cell * sum(map(self.cells, each)) == anchors)
        return next(fitting, ())

    def stride_of(self, cells: int, per_cell: int = 1) -> int:
        """Return the stride of the one grid with so many anchors, nought where there is none."""
        return next((s for s in (4, 8, 16, 32, 64, 128) if per_cell * self.cells(s) == cells), 0)


@dataclass(frozen=True)
class Candidates:
    """Boxes before suppression: `boxes` ``(N, A, 4)`` in pixels, `scores` ``(N, A, classes)``, `points` or None."""

    boxes: Floats
    scores: Floats
    points: Floats | None = None


@dataclass(frozen=True)
class Layout:
    """Where an output says what: of the anchors from `start` to `stop`, along `axis`, so many channels in each role."""

    start: int
    stop: int
    axis: int
    parts: tuple[tuple[int, Role], ...]


@dataclass(frozen=True)
class Head:
    """A reader of raw outputs.

    `layouts` say where each output holds what, () where a head selects among its anchors; `boxes` and `scores` how that
    is coded, which `raw` follows. `iou` is the overlap that suppression allows, None where a head suppresses itself.
    """

    name: str
    classes: int
    raw: Raw
    iou: float | None = 0.65
    layouts: tuple[Layout, ...] = ()
    boxes: BoxCode | None = None
    scores: ScoreCode = field(default_factory=ScoreCode)

    def read(self, outputs: Outputs, least_score: float = _LEAST_SCORE, most: int = 100) -> list[Detections]:
        """Return the detections of every image from the outputs of a batch, best first, `most` an image at most."""
        found = self.raw([np.asarray(output, np.float32) for output in outputs])
        images = []
        for index in range(len(found.boxes)):
            anchors, classes = np.nonzero(found.scores[index] >= least_score)
            points = None if found.points is None else found.points[index][anchors]
            scores = found.scores[index][anchors, classes]
            each = Detections(found.boxes[index][anchors], scores, classes.astype(np.int64), points)
            images.append(suppressed(each, self.iou, most))
        return images


def signature_of(model: ir.Model, height: int, width: int, shapes: Sequence[Sequence[int]]) -> Signature:
    """Return the signature of a graph whose outputs have these `shapes` for one image, the images' axis included."""
    outputs, tail = [], set()
    for value, shape in zip(model.graph.outputs, shapes, strict=True):
        ops, joins = _behind(value)
        tail.update(ops)
        outputs.append(OutputForm(str(value.name), tuple(shape[1:]), joins, frozenset(ops)))
    return Signature(height, width, tuple(outputs), frozenset(tail))


def _behind(output: ir.Value) -> tuple[set[str], tuple[int, ...]]:
    """Return the operators behind the last convolutions of an output, and the widths that its last Concat joins."""
    ops: set[str] = set()
    seen: set[ir.Node] = set()
    waiting = [output.producer()]
    joins: tuple[int, ...] = ()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or op_of(node).convolves:
            continue
        seen.add(node)
        ops.add(node.op_type)
        if node.op_type == "Concat" and not joins:
            axis = node.attributes.get_int("axis", 0)
            sizes = [None if value is None or value.shape is None else value.shape[axis] for value in node.inputs]
            joins = tuple(size for size in sizes if isinstance(size, int)) if axis in (1, 2, -1) else ()
        waiting += [None if value is None else value.producer() for value in node.inputs]
    return ops, joins
