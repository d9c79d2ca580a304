"""Heads read the boxes that each network's own formulas have written into its raw outputs."""

import numpy as np
import pytest

from n2n_edge.tasks.boxes import Detections, box_iou, suppressed
from n2n_edge.tasks.head import OutputForm, Signature
from n2n_edge.tasks.heads import HEAD_NAMES, fitting_heads

HEIGHT, WIDTH, CLASSES = 96, 128, 3
STRIDES = (8, 16, 32)
BOXES = np.array([[10, 12, 40, 60], [50, 20, 90, 44], [70, 30, 120, 90]], np.float32)
KINDS = np.array([0, 2, 1])
SCORES = np.array([0.9, 0.8, 0.7], np.float32)
POINTS = np.stack([BOXES[:, :2] + 5, BOXES[:, 2:] - 5], axis=1)


def signature(*shapes, tail=("Sigmoid",), parts=((),)):
    names = [f"output{index}" for index in range(len(shapes))]
    widths = [*parts, *[()] * (len(shapes) - len(parts))]
    return Signature(HEIGHT, WIDTH, tuple(map(OutputForm, names, shapes, widths)), frozenset(tail))


def grids():
    """Give stride, columns and rows of every level."""
    for stride in STRIDES:
        rows, columns = np.mgrid[: -(-HEIGHT // stride), : -(-WIDTH // stride)]
        yield stride, columns.ravel(), rows.ravel()


def cell_of(box, level, middle=0.5):
    """Give the index of the cell whose `middle` is nearest to the box's centre, and its column and row."""
    stride, columns, rows = list(grids())[level]
    x, y = (box[:2] + box[2:]) / 2 / stride + 0.5 - middle
    index = int(np.flatnonzero((columns == int(x)) & (rows == int(y)))[0])
    return index, stride, int(x), int(y)


def anchor_of(box, level, per_cell=1):
    """Give the index of the same cell among the anchors of all levels."""
    before = sum(len(columns) for _, columns, _ in list(grids())[:level])
    return per_cell * before + cell_of(box, level)[0]


def empty(width, fill=0.0):
    return [np.full((1, len(columns), width), fill, np.float32) for _, columns, _ in grids()]


def logit(share):
    return np.log(share / (1 - share))


def yolox():
    levels = empty(5 + CLASSES)
    for place, (box, kind, score) in enumerate(zip(BOXES, KINDS, SCORES, strict=True)):
        index, stride, column, row = cell_of(box, place)
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        levels[place][0, index, :2] = centre / stride - (column, row)
        levels[place][0, index, 2:4] = np.log(size / stride)
        levels[place][0, index, 4], levels[place][0, index, 5 + kind] = 1.0, score
    whole = np.concatenate(levels, axis=1)
    return signature(whole.shape[1:]), [whole], False


def yolov5():
    cells = sum(len(columns) for _, columns, _ in grids())
    whole = np.zeros((1, 3 * cells, 5 + CLASSES), np.float32)
    for place, (box, kind, score) in enumerate(zip(BOXES, KINDS, SCORES, strict=True)):
        anchor = anchor_of(box, place, 3)
        whole[0, anchor, :4] = [*(box[:2] + box[2:]) / 2, *box[2:] - box[:2]]
        whole[0, anchor, 4], whole[0, anchor, 5 + kind] = score, 1.0
    return signature(whole.shape[1:]), [whole], False


def yolov8():
    cells = sum(len(columns) for _, columns, _ in grids())
    whole = np.zeros((1, 4 + CLASSES, cells), np.float32)
    for place, (box, kind, score) in enumerate(zip(BOXES, KINDS, SCORES, strict=True)):
        anchor = anchor_of(box, place)
        whole[0, :4, anchor] = [*(box[:2] + box[2:]) / 2, *box[2:] - box[:2]]
        whole[0, 4 + kind, anchor] = score
    return signature(whole.shape[1:]), [whole], False


def end_to_end():
    rows = np.zeros((1, 50, 6), np.float32)
    rows[0, :3] = np.column_stack([BOXES, SCORES, KINDS])
    return signature(rows.shape[1:]), [rows], False


def listed():
    return signature((3,), (3, 4), (3,)), [KINDS[None].astype(np.float32), BOXES[None], SCORES[None]], False


def distances(box, column, row, stride, middle, bins):
    """Give distributions whose means are the distances of the edges, in strides, from a cell's centre."""
    x, y = (column + middle) * stride, (row + middle) * stride
    found = np.full((4, bins), -60.0, np.float32)
    for side, value in enumerate(np.array([x - box[0], y - box[1], box[2] - x, box[3] - y]) / stride):
        low = int(value)
        found[side, low], found[side, low + 1] = np.log(1 - (value - low) + 1e-9), np.log(value - low + 1e-9)
    return found.ravel()


def nanodet():
    scores, edges = empty(CLASSES), empty(4 * 12)
    for place, (box, kind, score) in enumerate(zip(BOXES, KINDS, SCORES, strict=True)):
        index, stride, column, row = cell_of(box, place)
        scores[place][0, index, kind] = score
        edges[place][0, index] = distances(box, column, row, stride, 0.5, 12)
    outputs = [*scores, *edges]
    return signature(*[each.shape[1:] for each in outputs]), outputs, False


def nanodet_plus():
    levels = empty(CLASSES + 4 * 8)
    for place, (box, kind, score) in enumerate(zip(BOXES, KINDS, SCORES, strict=True)):
        index, stride, column, row = cell_of(box, place, middle=0.0)
        levels[place][0, index, kind] = score
        levels[place][0, index, CLASSES:] = distances(box, column, row, stride, 0.0, 8)
    whole = np.concatenate(levels, axis=1)
    return signature(whole.shape[1:], parts=((CLASSES, 32),)), [whole], False


def distributed_maps():
    levels = empty(64 + CLASSES + 6)
    for place, (box, kind, score, points) in enumerate(zip(BOXES, KINDS, SCORES, POINTS, strict=True)):
        index, stride, column, row = cell_of(box, place)
        levels[place][0, index, :64] = distances(box, column, row, stride, 0.5, 16)
        levels[place][0, index, 64 + kind] = score
        marks = np.column_stack([(points / stride - (column, row)) / 2, np.ones(2)])
        levels[place][0, index, 64 + CLASSES :] = marks.ravel()
    maps = [
        level.transpose(0, 2, 1).reshape(1, -1, -(-HEIGHT // stride), -(-WIDTH // stride))
        for level, (stride, _, _) in zip(levels, grids(), strict=True)
    ]
    return signature(*[each.shape[1:] for each in maps], parts=((64, CLASSES, 6),)), maps, True


def fastestdet():
    rows = np.zeros((1, HEIGHT // 16 * (WIDTH // 16), 5 + CLASSES), np.float32)
    for box, kind, score in zip(BOXES, KINDS, SCORES, strict=True):
        index, stride, column, row = cell_of(box, 1)
        rows[0, index, 0], rows[0, index, 5 + kind] = score, score
        rows[0, index, 1:3] = np.arctanh((box[:2] + box[2:]) / 2 / stride - (column, row))
        rows[0, index, 3:5] = logit((box[2:] - box[:2]) / (WIDTH, HEIGHT))
    found = rows.transpose(0, 2, 1).reshape(1, -1, HEIGHT // 16, WIDTH // 16)
    return signature(found.shape[1:], tail=("Softmax", "Sigmoid"), parts=((1, 4, CLASSES),)), [found], False


def yunet():
    classes, objects, offsets, marks = empty(CLASSES), empty(1), empty(4), empty(4)
    for place, (box, kind, score, points) in enumerate(zip(BOXES, KINDS, SCORES, POINTS, strict=True)):
        index, stride, column, row = cell_of(box, place)
        classes[place][0, index, kind], objects[place][0, index] = score, score
        offsets[place][0, index, :2] = (box[:2] + box[2:]) / 2 / stride - (column, row)
        offsets[place][0, index, 2:] = np.log((box[2:] - box[:2]) / stride)
        marks[place][0, index] = (points / stride - (column, row)).ravel()
    outputs = [*classes, *objects, *offsets, *marks]
    return signature(*[each.shape[1:] for each in outputs]), outputs, True


def scrfd():
    scores, edges, marks = ([np.repeat(level, 2, axis=1) for level in empty(width)] for width in (1, 4, 4))
    for place, (box, score, points) in enumerate(zip(BOXES, SCORES, POINTS, strict=True)):
        index, stride, column, row = cell_of(box, place)
        at = np.array([column, row]) * stride
        scores[place][0, 2 * index + 1] = score
        edges[place][0, 2 * index + 1] = np.concatenate([at - box[:2], box[2:] - at]) / stride
        marks[place][0, 2 * index + 1] = ((points - at) / stride).ravel()
    outputs = [*scores, *edges, *marks]
    return signature(*[each.shape[1:] for each in outputs]), outputs, True


def ssd():
    scores, boxes = np.zeros((1, 40, 1 + CLASSES), np.float32), np.zeros((1, 40, 4), np.float32)
    scores[..., 0] = 1.0
    for place, (box, kind, score) in enumerate(zip(BOXES, KINDS, SCORES, strict=True)):
        scores[0, place, 1 + kind], boxes[0, place] = score, box / (WIDTH, HEIGHT, WIDTH, HEIGHT)
    return signature((40, 1 + CLASSES), (40, 4), tail=("Softmax",)), [scores, boxes], False


WRITERS = {
    "yolox": yolox, "yolov5": yolov5, "yolov8": yolov8, "end-to-end": end_to_end, "listed": listed, "nanodet": nanodet,
    "yolov8-maps": distributed_maps, "fastestdet": fastestdet, "yunet": yunet, "scrfd": scrfd, "ssd": ssd,
}  # fmt: skip


def test_every_head_has_a_case():
    assert set(WRITERS) == set(HEAD_NAMES)


@pytest.mark.parametrize(("name", "write"), [*WRITERS.items(), ("nanodet", nanodet_plus)])
def test_boxes_are_read_as_they_were_written(name, write):
    form, outputs, has_points = write()
    heads = {head.name: head for head in fitting_heads(form)}
    assert name in heads
    both = [np.concatenate([output, np.zeros_like(output)]) for output in outputs]
    found, nothing = heads[name].read(both, least_score=0.3)
    assert len(nothing) == 0
    assert len(found) == 3
    np.testing.assert_allclose(found.boxes, BOXES, atol=0.01)
    np.testing.assert_allclose(found.scores, SCORES, atol=1e-5)
    assert found.classes.tolist() == ([0, 0, 0] if name == "scrfd" else KINDS.tolist())
    assert (found.points is not None) == has_points
    if found.points is not None:
        np.testing.assert_allclose(found.points, POINTS, atol=0.01)


@pytest.mark.parametrize("shapes", [[(10,)], [(3, 96, 128)], [(7, 5)], [(1000,), (4,)], []])
def test_other_networks_are_no_detectors(shapes):
    assert fitting_heads(signature(*shapes)) == ()


def test_a_box_that_overlaps_a_better_one_of_its_class_goes():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [20, 0, 30, 10]], np.float32)
    found = Detections(boxes, np.array([0.5, 0.9, 0.4, 0.6], np.float32), np.array([0, 0, 1, 0]))
    kept = suppressed(found, 0.5, 10)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.6, 0.4])
    assert len(suppressed(found, None, 10)) == 4
    assert suppressed(found, 0.5, 1).scores.tolist() == pytest.approx([0.9])
    assert box_iou(boxes[:1], boxes)[0].tolist() == pytest.approx([1, 90 / 110, 90 / 110, 0])


def test_classes_of_high_numbers_arent_crowded_out():
    count = 20
    left = np.arange(3 * count, dtype=np.float32) * 20
    boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1)
    classes = np.repeat([0, 1, 2], count)
    scores = np.where(classes == 2, 0.9, 0.5).astype(np.float32)
    assert suppressed(Detections(boxes, scores, classes), 0.5, 2).classes.tolist() == [2, 2]
