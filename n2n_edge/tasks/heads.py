"""Readers of detectors' raw outputs: which head a graph ends in, and what it says of an image.

A head is told by the shapes of the outputs and by the operators behind the last convolutions. The formulas are those of
the networks' own repositories: YOLOX (Megvii), YOLOv5, v8, 11 and 26 (Ultralytics), NanoDet (RangiLyu), FastestDet
(dog-qiuqiu), SCRFD (InsightFace), YuNet (libfacedetection), RetinaFace and Ultra-Light-Fast (biubug6, Linzaer).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from n2n_edge.tasks.boxes import Floats, from_centres, joined
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


def _sigmoid(x: Floats) -> Floats:
    grown: Floats = 1 / (1 + np.exp(-np.clip(x, -60, 60)))
    return grown


def _softmax(x: Floats) -> Floats:
    grown = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Floats = grown / grown.sum(axis=-1, keepdims=True)
    return shares


def _as_scores(x: Floats, tail: frozenset[str]) -> Floats:
    """Return scores, which a graph without a Sigmoid or Softmax at its end leaves to its reader."""
    return x if tail & _BOUNDED else _sigmoid(x)


def _expected(distributions: Floats) -> Floats:
    """Return the mean of four discrete distributions ``(..., 4 * bins)``: generalised focal loss, Li et al. 2020."""
    four = distributions.reshape(*distributions.shape[:-1], 4, -1)
    means: Floats = _softmax(four) @ np.arange(four.shape[-1], dtype=np.float32)
    return means


def _around(centres: Floats, distances: Floats) -> Floats:
    """Return boxes from centres and the distances of their left, top, right and bottom edges."""
    return np.concatenate([centres - distances[..., :2], centres + distances[..., 2:]], axis=-1)


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

    def raw(outputs: Outputs) -> Candidates:
        (found,) = outputs
        centres, sizes = found[..., :2], found[..., 2:4]
        if not decoded:
            centres, sizes = (centres + grid) * scale, np.exp(np.clip(sizes, -20, 20)) * scale
        scores = _as_scores(found[..., 4:], signature.tail)
        return Candidates(from_centres(centres, sizes), scores[..., :1] * scores[..., 1:])

    yield Head("yolox", width - 5, raw, layouts=_levels([anchors], 2, (4, "box"), (width - 4, _scored(signature))))


def _yolov5(signature: Signature) -> Iterator[Head]:
    """``(A, 5 + C)`` of three anchors a cell, boxes as centre and size in pixels."""
    if len(signature.outputs) != 1 or len(signature.shapes[0]) != 2:
        return
    anchors, width = signature.shapes[0]
    if width < 6 or not signature.strides(anchors, 3):
        return

    def raw(outputs: Outputs) -> Candidates:
        (found,) = outputs
        return Candidates(from_centres(found[..., :2], found[..., 2:4]), found[..., 4:5] * found[..., 5:])

    yield Head("yolov5", width - 5, raw, layouts=_levels([anchors], 2, (4, "box"), (width - 4, "score")))


def _yolov8(signature: Signature) -> Iterator[Head]:
    """``(4 + C, A)``: boxes as centre and size in pixels, scores of classes; of YOLOv8 and YOLO11."""
    if len(signature.outputs) not in (1, 2) or len(signature.shapes[0]) != 2:
        return
    width, anchors = signature.shapes[0]
    if width < 5 or not signature.strides(anchors) or anchors < width:
        return
    masks = signature.shapes[1][0] if len(signature.outputs) == 2 and len(signature.shapes[1]) == 3 else 0
    if len(signature.outputs) == 2 and not masks:
        return
    classes = width - 4 - masks

    def raw(outputs: Outputs) -> Candidates:
        found = outputs[0].transpose(0, 2, 1)
        return Candidates(from_centres(found[..., :2], found[..., 2:4]), found[..., 4 : 4 + classes])

    if classes > 0:
        parts = _levels([anchors], 1, (4, "box"), (classes, "score"), (masks, "box")) if not masks else ()
        yield Head("yolov8", classes, raw, iou=0.7, layouts=parts)


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
        read = partial(_read_nanodet, signature, strides, widths[0], 0.0)
        parts = _levels([shapes[0][0]], 2, (widths[0], _scored(signature)), (widths[1], "distribution"))
        yield Head("nanodet", widths[0], read, iou=0.6, layouts=parts)
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

    def raw(outputs: Outputs) -> Candidates:
        whole = [np.concatenate(pair, axis=-1) for pair in zip(outputs[:half], outputs[half:], strict=True)]
        return _read_nanodet(signature, strides, scores[0][1], 0.5, [joined(whole)])

    counts = [cells for cells, _ in scores]
    layouts = _levels(counts, 2, (scores[0][1], _scored(signature)))
    layouts += _levels(counts, 2, (distances[0][1], "distribution"))
    yield Head("nanodet", scores[0][1], raw, iou=0.6, layouts=layouts)


def _read_nanodet(
    signature: Signature, strides: Sequence[int], classes: int, middle: float, outputs: Outputs
) -> Candidates:
    (found,) = outputs
    centres = np.concatenate([(signature.grid(stride) + middle) * stride for stride in strides])
    scale = signature.scales(strides)
    boxes = _around(centres, _expected(found[..., classes:]) * scale)
    return Candidates(boxes, _as_scores(found[..., :classes], signature.tail))


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

    def raw(outputs: Outputs) -> Candidates:
        boxes, scores, marks = [], [], []
        for stride, level in zip(strides, outputs, strict=True):
            rows = level.reshape(len(level), channels, -1).transpose(0, 2, 1)
            grid = signature.grid(stride)
            boxes.append(_around((grid + 0.5) * stride, _expected(rows[..., :bins]) * stride))
            scores.append(_as_scores(rows[..., bins : bins + classes], signature.tail))
            if points:
                found = rows[..., bins + classes :].reshape(*rows.shape[:2], points, 3)
                marks.append((found[..., :2] * 2 + grid[:, None]) * stride)
        return Candidates(joined(boxes), joined(scores), joined(marks) if marks else None)

    counts = [height * width for _, height, width in shapes]
    layouts = _levels(
        counts, 1, (bins, "distribution"), (classes, _scored(signature)), (channels - bins - classes, "box")
    )
    yield Head("yolov8-maps", classes, raw, iou=0.7, layouts=layouts)


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

    def raw(outputs: Outputs) -> Candidates:
        rows = outputs[0].reshape(len(outputs[0]), channels, -1).transpose(0, 2, 1)
        centres = (np.tanh(rows[..., 1:3]) + signature.grid(stride)) * stride
        scores = np.clip(rows[..., :1], 0, None) ** 0.6 * np.clip(rows[..., 5:], 0, None) ** 0.4
        best = np.where(scores == scores.max(axis=-1, keepdims=True), scores, 0)
        return Candidates(from_centres(centres, _sigmoid(rows[..., 3:5]) * size), best)

    layouts = _levels([height * width], 1, (1, "score"), (4, "box"), (channels - 5, "score"))
    yield Head("fastestdet", channels - 5, raw, iou=0.45, layouts=layouts)


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

    def raw(outputs: Outputs) -> Candidates:
        boxes, scores, marks = [], [], []
        for level, stride in enumerate(strides):
            classes, objects, offsets, points = (outputs[levels * kind + level] for kind in range(4))
            grid = signature.grid(stride)
            sizes = np.exp(np.clip(offsets[..., 2:], -20, 20)) * stride
            boxes.append(from_centres((offsets[..., :2] + grid) * stride, sizes))
            scores.append(np.sqrt(np.clip(classes, 0, 1) * np.clip(objects, 0, 1)))
            marks.append((points.reshape(*points.shape[:2], -1, 2) + grid[:, None]) * stride)
        return Candidates(joined(boxes), joined(scores), joined(marks))

    counts, classes = [cells for cells, _ in kinds[0]], kinds[0][0][1]
    widths: tuple[tuple[int, Role], ...] = ((classes, "score"), (1, "score"), (4, "box"), (kinds[3][0][1], "box"))
    layouts = tuple(layout for part in widths for layout in _levels(counts, 2, part))
    yield Head("yunet", classes, raw, iou=0.45, layouts=layouts)


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

    def raw(outputs: Outputs) -> Candidates:
        boxes, scores, marks = [], [], []
        for level, stride in enumerate(strides):
            centres = np.repeat(signature.grid(stride) * stride, per_cell, axis=0)
            boxes.append(_around(centres, outputs[levels + level] * stride))
            scores.append(_as_scores(outputs[level], signature.tail))
            if kinds == 3:
                found = outputs[2 * levels + level]
                marks.append(found.reshape(*found.shape[:2], -1, 2) * stride + centres[:, None])
        return Candidates(joined(boxes), joined(scores), joined(marks) if marks else None)

    counts = [anchors for anchors, _ in by_kind[0]]
    kind_parts: list[tuple[int, Role]] = [(1, _scored(signature)), (4, "box")]
    kind_parts += [(by_kind[2][0][1], "box")] if kinds == 3 else []
    layouts = tuple(layout for part in kind_parts for layout in _levels(counts, 2, part))
    yield Head("scrfd", 1, raw, iou=0.4, layouts=layouts)


def _priors(signature: Signature) -> Iterator[Head]:
    """Scores ``(P, 1 + C)`` with the background first, and boxes ``(P, 4)`` as corners, both in shares of the image."""
    if len(signature.outputs) != 2 or any(len(shape) != 2 for shape in signature.shapes):
        return
    boxes = [i for i, shape in enumerate(signature.shapes) if shape[1] == 4]
    boxes = [i for i in boxes if any(word in signature.outputs[i].name.lower() for word in ("box", "loc"))] or boxes[
        -1:
    ]
    if len(boxes) != 1 or signature.shapes[0][0] != signature.shapes[1][0]:
        return
    scores = 1 - boxes[0]
    if signature.shapes[scores][1] < 2:
        return
    size = np.array([signature.width, signature.height] * 2, np.float32)

    def raw(outputs: Outputs) -> Candidates:
        found = outputs[scores] if "Softmax" in signature.tail else _softmax(outputs[scores])
        return Candidates(outputs[boxes[0]] * size, found[..., 1:])

    anchors, width = signature.shapes[scores]
    both: list[tuple[int, Role]] = [(4, "box")] * 2
    both[scores] = (width, "score" if "Softmax" in signature.tail else "logit")
    layouts = tuple(layout for part in both for layout in _levels([anchors], 2, part))
    yield Head("ssd", width - 1, raw, iou=0.45, layouts=layouts)


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
