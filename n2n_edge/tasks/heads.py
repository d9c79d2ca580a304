"""Readers of detectors' raw outputs: which head a graph ends in, and what it says of an image.

A head is told by the shapes of the outputs and by the operators behind the last convolutions. The formulas are those of
the networks' own repositories: YOLOX (Megvii), YOLOv5, v8, 11 and 26 (Ultralytics), NanoDet (RangiLyu), FastestDet
(dog-qiuqiu), SCRFD (InsightFace), YuNet (libfacedetection), RetinaFace and Ultra-Light-Fast (biubug6, Linzaer).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from n2n_edge.tasks.box_codes import (
    BoxCode,
    ScoreCode,
    around,
    expected,
    exponential,
    from_centres,
    like,
    sigmoid,
    tanh,
)
from n2n_edge.tasks.boxes import Floats, joined
from n2n_edge.tasks.head import Candidates, Head, Layout, Outputs, Role, Signature

__all__ = ["HEAD_NAMES", "fitting_heads"]

_BOUNDED = frozenset({"Sigmoid", "Softmax", "HardSigmoid"})


def fitting_heads(signature: Signature) -> tuple[Head, ...]:
    """Return the heads that a graph may end in, the likeliest first."""
    return tuple(head for find in _FINDERS.values() for head in find(signature))


def _scored(signature: Signature) -> Role:
    return "score" if signature.tail & _BOUNDED else "logit"


def _levels(counts: Sequence[int], axis: int, *parts: tuple[int, Role]) -> tuple[Layout, ...]:
    """Return the layouts of outputs that have so many anchors each, one after the other."""
    ends = np.cumsum(counts).tolist()
    return tuple(
        Layout(end - count, end, axis, tuple(part for part in parts if part[0]))
        for count, end in zip(counts, ends, strict=True)
    )


def _softmax(x: Floats) -> Floats:
    grown = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Floats = grown / grown.sum(axis=-1, keepdims=True)
    return shares


def _as_scores(x: Floats, tail: frozenset[str]) -> Floats:
    """Return scores, which a graph without a Sigmoid or Softmax at its end leaves to its reader."""
    return x if tail & _BOUNDED else np.asarray(sigmoid(x))


def _cells(signature: Signature, strides: Sequence[int], middle: float = 0.5) -> Floats:
    """Return the pixel that each cell stands for, `middle` of its way along the cell, ``(cells, 2)``."""
    return np.concatenate([(signature.grid(stride) + middle) * stride for stride in strides])


def _centred(rows: Any) -> Any:
    """Return boxes from centre and size in pixels."""
    return from_centres(rows[..., :2], rows[..., 2:4])


def _yolox(signature: Signature) -> Iterator[Head]:
    """``(A, 5 + C)``: centre in the cell and logarithm of the size in strides, objectness, classes."""
    if len(signature.outputs) != 1 or len(signature.shapes[0]) != 2:
        return
    anchors, width = signature.shapes[0]
    strides = signature.strides(anchors)
    if not strides or width < 6:
        return
    grid = np.concatenate([signature.grid(stride) for stride in strides])
    scale = signature.scales(strides)
    decoded = "Exp" in signature.tail

    def boxes(rows: Any) -> Any:
        if decoded:
            return _centred(rows)
        own, by = like(grid, rows), like(scale, rows)
        return from_centres((rows[..., :2] + own) * by, exponential(rows[..., 2:4]) * by)

    def raw(outputs: Outputs) -> Candidates:
        (found,) = outputs
        scores = _as_scores(found[..., 4:], signature.tail)
        return Candidates(boxes(found[..., :4]), scores[..., :1] * scores[..., 1:])

    code = BoxCode(boxes, _cells(signature, strides), scale)
    layouts = _levels([anchors], 2, (4, "box"), (width - 4, _scored(signature)))
    yield Head("yolox", width - 5, raw, layouts=layouts, boxes=code, scores=ScoreCode(0))


def _yolov5(signature: Signature) -> Iterator[Head]:
    """``(A, 5 + C)`` of three anchors a cell, boxes as centre and size in pixels."""
    if len(signature.outputs) != 1 or len(signature.shapes[0]) != 2:
        return
    anchors, width = signature.shapes[0]
    strides = signature.strides(anchors, 3)
    if width < 6 or not strides:
        return

    def raw(outputs: Outputs) -> Candidates:
        (found,) = outputs
        return Candidates(_centred(found), found[..., 4:5] * found[..., 5:])

    centres = np.concatenate([np.tile(_cells(signature, [stride]), (3, 1)) for stride in strides])
    layouts = _levels([anchors], 2, (4, "box"), (width - 4, "score"))
    yield Head("yolov5", width - 5, raw, layouts=layouts, boxes=BoxCode(_centred, centres), scores=ScoreCode(0))


def _yolov8(signature: Signature) -> Iterator[Head]:
    """``(4 + C, A)``: boxes as centre and size in pixels, scores of classes; of YOLOv8 and YOLO11."""
    if len(signature.outputs) not in (1, 2) or len(signature.shapes[0]) != 2:
        return
    width, anchors = signature.shapes[0]
    strides = signature.strides(anchors)
    if width < 5 or not strides or anchors < width:
        return
    masks = signature.shapes[1][0] if len(signature.outputs) == 2 and len(signature.shapes[1]) == 3 else 0
    if len(signature.outputs) == 2 and not masks:
        return
    classes = width - 4 - masks

    def raw(outputs: Outputs) -> Candidates:
        found = outputs[0].transpose(0, 2, 1)
        return Candidates(_centred(found), found[..., 4 : 4 + classes])

    if classes > 0:
        parts = _levels([anchors], 1, (4, "box"), (classes, "score"), (masks, "box")) if not masks else ()
        code = BoxCode(_centred, _cells(signature, strides))
        yield Head("yolov8", classes, raw, iou=0.7, layouts=parts, boxes=code)


def _end_to_end(signature: Signature) -> Iterator[Head]:
    """``(M, 6)``: corners in pixels, score, class, nothing left to suppress; of YOLOv10 and YOLO26."""
    if len(signature.outputs) != 1 or len(signature.shapes[0]) != 2 or signature.shapes[0][1] != 6:
        return
    if signature.strides(signature.shapes[0][0]):
        return

    def raw(outputs: Outputs) -> Candidates:
        (found,) = outputs
        return Candidates(found[..., :4], _one_hot(found[..., 4], found[..., 5]))

    yield Head("end-to-end", 0, raw, iou=None)


def _one_hot(scores: Floats, classes: Floats) -> Floats:
    """Return ``(N, M, C)`` from the score and the class of every box ``(N, M)``."""
    chosen = np.maximum(classes, 0).astype(np.int64)
    rows = np.zeros((*scores.shape, int(chosen.max(initial=0)) + 1), np.float32)
    np.put_along_axis(rows, chosen[..., None], scores[..., None], axis=-1)
    return rows


def _listed(signature: Signature) -> Iterator[Head]:
    """Boxes ``(M, 4)``, scores ``(M)`` and class numbers ``(M)`` as three outputs: DETR exports, and NMS inside."""
    if len(signature.outputs) != 3:
        return
    boxes = [i for i, shape in enumerate(signature.shapes) if len(shape) == 2 and shape[1] == 4]
    if len(boxes) != 1 or any(len(shape) != 1 for i, shape in enumerate(signature.shapes) if i != boxes[0]):
        return
    others = [i for i in range(3) if i != boxes[0]]
    labels = next((i for i in others if any(w in signature.outputs[i].name.lower() for w in ("label", "class"))), None)

    def raw(outputs: Outputs) -> Candidates:
        # class numbers are whole, scores aren't
        label = others[0] if np.array_equal(outputs[others[0]], np.round(outputs[others[0]])) else others[1]
        label = label if labels is None else labels
        score = next(i for i in others if i != label)
        return Candidates(outputs[boxes[0]], _one_hot(outputs[score], outputs[label]))

    yield Head("listed", 0, raw, iou=None)


def _nanodet(signature: Signature) -> Iterator[Head]:
    """Per stride scores ``(cells, C)`` and distances of the edges as distributions ``(cells, 4 * bins)``.

    Or both joined, over all strides ``(A, C + 4 * bins)``, whose centres are corners of cells (NanoDet-Plus).
    """
    shapes = signature.shapes
    if len(shapes) == 1 and len(shapes[0]) == 2:
        strides = signature.strides(shapes[0][0])
        widths = signature.outputs[0].parts
        if not strides or len(widths) != 2 or widths[1] % 4 or widths[1] < 16 or sum(widths) != shapes[0][1]:
            return
        code = _distributed(signature, strides, 0.0)
        read = partial(_read_nanodet, signature, code, widths[0])
        parts = _levels([shapes[0][0]], 2, (widths[0], _scored(signature)), (widths[1], "distribution"))
        yield Head("nanodet", widths[0], read, iou=0.6, layouts=parts, boxes=code)
        return
    half = len(shapes) // 2
    if len(shapes) < 4 or len(shapes) % 2 or any(len(shape) != 2 for shape in shapes):
        return
    scores, distances = shapes[:half], shapes[half:]
    strides = tuple(signature.stride_of(cells) for cells, _ in scores)
    if not all(strides) or [cells for cells, _ in scores] != [cells for cells, _ in distances]:
        return
    if len({width for _, width in scores}) != 1 or {width for _, width in distances} - set(range(16, 132, 4)):
        return

    code = _distributed(signature, strides)

    def raw(outputs: Outputs) -> Candidates:
        whole = [np.concatenate(pair, axis=-1) for pair in zip(outputs[:half], outputs[half:], strict=True)]
        return _read_nanodet(signature, code, scores[0][1], [joined(whole)])

    counts = [cells for cells, _ in scores]
    layouts = _levels(counts, 2, (scores[0][1], _scored(signature)))
    layouts += _levels(counts, 2, (distances[0][1], "distribution"))
    yield Head("nanodet", scores[0][1], raw, iou=0.6, layouts=layouts, boxes=code)


def _distributed(signature: Signature, strides: Sequence[int], middle: float = 0.5) -> BoxCode:
    """Return the code of edges as distributions of their distances from cells, in strides."""
    centres, scale = _cells(signature, strides, middle), signature.scales(strides)
    return BoxCode(lambda rows: around(like(centres, rows), expected(rows) * like(scale, rows)), centres, scale)


def _read_nanodet(signature: Signature, code: BoxCode, classes: int, outputs: Outputs) -> Candidates:
    (found,) = outputs
    return Candidates(code.decode(found[..., classes:]), _as_scores(found[..., :classes], signature.tail))


def _distributed_maps(signature: Signature) -> Iterator[Head]:
    """Maps ``(4 * 16 + C + 3 * K, h, w)``, one a stride: raw heads of YOLOv8, with K points where there are."""
    shapes = signature.shapes
    if not shapes or any(len(shape) != 3 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        return
    strides = tuple(signature.stride_of(height * width) for _, height, width in shapes)
    channels, bins = shapes[0][0], 64
    if not all(strides) or channels <= bins:
        return
    parts = signature.outputs[0].parts
    if len(parts) > 1 and parts[0] != bins:
        return
    classes = parts[1] if len(parts) > 1 else channels - bins
    points = (channels - bins - classes) // 3
    if (channels - bins - classes) % 3:
        return

    code = _distributed(signature, strides)

    def raw(outputs: Outputs) -> Candidates:
        levels, marks = [level.reshape(len(level), channels, -1).transpose(0, 2, 1) for level in outputs], []
        for stride, rows in zip(strides, levels, strict=True):
            if points:
                found = rows[..., bins + classes :].reshape(*rows.shape[:2], points, 3)
                marks.append((found[..., :2] * 2 + signature.grid(stride)[:, None]) * stride)
        whole = joined(levels)
        scores = _as_scores(whole[..., bins : bins + classes], signature.tail)
        return Candidates(code.decode(whole[..., :bins]), scores, joined(marks) if marks else None)

    counts = [height * width for _, height, width in shapes]
    layouts = _levels(
        counts, 1, (bins, "distribution"), (classes, _scored(signature)), (channels - bins - classes, "box")
    )
    yield Head("yolov8-maps", classes, raw, iou=0.7, layouts=layouts, boxes=code)


def _fastestdet(signature: Signature) -> Iterator[Head]:
    """One map ``(5 + C, h, w)``: objectness, centre in the cell by tanh, size of the whole by sigmoid, classes."""
    if len(signature.outputs) != 1 or len(signature.shapes[0]) != 3:
        return
    channels, height, width = signature.shapes[0]
    parts = signature.outputs[0].parts
    stride = signature.stride_of(height * width)
    if not stride or channels < 6 or (parts and sorted(parts)[0] != 1) or "Softmax" not in signature.tail:
        return
    size = np.array([signature.width, signature.height], np.float32)

    grid = signature.grid(stride)

    def boxes(rows: Any) -> Any:
        centres = (tanh(rows[..., :2]) + like(grid, rows)) * stride
        return from_centres(centres, sigmoid(rows[..., 2:4]) * like(size, rows))

    def raw(outputs: Outputs) -> Candidates:
        rows = outputs[0].reshape(len(outputs[0]), channels, -1).transpose(0, 2, 1)
        scores = np.clip(rows[..., :1], 0, None) ** 0.6 * np.clip(rows[..., 5:], 0, None) ** 0.4
        best = np.where(scores == scores.max(axis=-1, keepdims=True), scores, 0)
        return Candidates(boxes(rows[..., 1:5]), best)

    layouts = _levels([height * width], 1, (1, "score"), (4, "box"), (channels - 5, "score"))
    code, scores = BoxCode(boxes, _cells(signature, [stride])), ScoreCode(0, (0.6, 0.4))
    yield Head("fastestdet", channels - 5, raw, iou=0.45, layouts=layouts, boxes=code, scores=scores)


def _yunet(signature: Signature) -> Iterator[Head]:
    """Per stride class, objectness, box and points: ``(cells, C)``, ``(cells, 1)``, ``(cells, 4)``, ``(cells, 2K)``."""
    shapes = signature.shapes
    if len(shapes) % 4 or not shapes or any(len(shape) != 2 for shape in shapes):
        return
    levels = len(shapes) // 4
    kinds = [shapes[levels * kind : levels * (kind + 1)] for kind in range(4)]
    strides = tuple(signature.stride_of(cells) for cells, _ in kinds[0])
    if not all(strides) or any(width != 1 for _, width in kinds[1]) or any(width != 4 for _, width in kinds[2]):
        return

    grid, scale = np.concatenate([signature.grid(stride) for stride in strides]), signature.scales(strides)

    def boxes(rows: Any) -> Any:
        own, by = like(grid, rows), like(scale, rows)
        return from_centres((rows[..., :2] + own) * by, exponential(rows[..., 2:4]) * by)

    def raw(outputs: Outputs) -> Candidates:
        classes, objects, offsets, points = (joined(outputs[levels * kind : levels * (kind + 1)]) for kind in range(4))
        scores = np.sqrt(np.clip(classes, 0, 1) * np.clip(objects, 0, 1))
        marks = (points.reshape(*points.shape[:2], -1, 2) + grid[:, None]) * scale[:, None]
        return Candidates(boxes(offsets), scores, marks)

    counts, classes = [cells for cells, _ in kinds[0]], kinds[0][0][1]
    widths: tuple[tuple[int, Role], ...] = ((classes, "score"), (1, "score"), (4, "box"), (kinds[3][0][1], "box"))
    layouts = tuple(layout for part in widths for layout in _levels(counts, 2, part))
    code = BoxCode(boxes, _cells(signature, strides), scale)
    yield Head("yunet", classes, raw, iou=0.45, layouts=layouts, boxes=code, scores=ScoreCode(-1, (0.5, 0.5)))


def _scrfd(signature: Signature) -> Iterator[Head]:
    """Per stride score, distances of the edges and points, of two anchors a cell, in strides."""
    shapes = signature.shapes
    kinds = next((n for n in (3, 2) if len(shapes) % n == 0 and len(shapes) // n > 1), 0)
    if not kinds or any(len(shape) != 2 for shape in shapes):
        return
    levels = len(shapes) // kinds
    by_kind = [shapes[levels * kind : levels * (kind + 1)] for kind in range(kinds)]
    widths = [{width for _, width in found} for found in by_kind]
    if widths[:2] != [{1}, {4}]:
        return
    for per_cell in (2, 1):
        strides = tuple(signature.stride_of(anchors, per_cell) for anchors, _ in by_kind[0])
        if all(strides):
            break
    else:
        return

    centres = np.repeat(_cells(signature, strides, 0.0), per_cell, axis=0)
    scale = np.repeat(signature.scales(strides), per_cell, axis=0)

    def boxes(rows: Any) -> Any:
        return around(like(centres, rows), rows * like(scale, rows))

    def raw(outputs: Outputs) -> Candidates:
        scores, edges, *others = (joined(outputs[levels * kind : levels * (kind + 1)]) for kind in range(kinds))
        marks = [found.reshape(*found.shape[:2], -1, 2) * scale[:, None] + centres[:, None] for found in others]
        return Candidates(boxes(edges), _as_scores(scores, signature.tail), marks[0] if marks else None)

    counts = [anchors for anchors, _ in by_kind[0]]
    kind_parts: list[tuple[int, Role]] = [(1, _scored(signature)), (4, "box")]
    kind_parts += [(by_kind[2][0][1], "box")] if kinds == 3 else []
    layouts = tuple(layout for part in kind_parts for layout in _levels(counts, 2, part))
    yield Head("scrfd", 1, raw, iou=0.4, layouts=layouts, boxes=BoxCode(boxes, centres, scale))


def _priors(signature: Signature) -> Iterator[Head]:
    """Scores ``(P, 1 + C)`` with the background first, and boxes ``(P, 4)`` as corners, both in shares of the image."""
    if len(signature.outputs) != 2 or any(len(shape) != 2 for shape in signature.shapes):
        return
    four = [i for i, shape in enumerate(signature.shapes) if shape[1] == 4]
    four = [i for i in four if any(word in signature.outputs[i].name.lower() for word in ("box", "loc"))] or four[-1:]
    if len(four) != 1 or signature.shapes[0][0] != signature.shapes[1][0]:
        return
    scores = 1 - four[0]
    if signature.shapes[scores][1] < 2:
        return
    size = np.array([signature.width, signature.height] * 2, np.float32)

    def boxes(rows: Any) -> Any:
        return rows * like(size, rows)

    def raw(outputs: Outputs) -> Candidates:
        found = outputs[scores] if "Softmax" in signature.tail else _softmax(outputs[scores])
        return Candidates(boxes(outputs[four[0]]), found[..., 1:])

    anchors, width = signature.shapes[scores]
    both: list[tuple[int, Role]] = [(4, "box")] * 2
    both[scores] = (width, "score" if "Softmax" in signature.tail else "logit")
    layouts = tuple(layout for part in both for layout in _levels([anchors], 2, part))
    code, by = BoxCode(boxes), ScoreCode(background=True)
    yield Head("ssd", width - 1, raw, iou=0.45, layouts=layouts, boxes=code, scores=by)


_FINDERS: dict[str, Callable[[Signature], Iterator[Head]]] = {
    "end-to-end": _end_to_end,
    "nanodet": _nanodet,
    "yolox": _yolox,
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "yolov8-maps": _distributed_maps,
    "fastestdet": _fastestdet,
    "yunet": _yunet,
    "scrfd": _scrfd,
    "ssd": _priors,
    "listed": _listed,
}

HEAD_NAMES = tuple(_FINDERS)
