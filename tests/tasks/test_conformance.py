"""What every task fulfils, and that the suite which says so can fail."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from n2n_edge.data.labels.values import Mask, Objects, Points
from n2n_edge.tasks.average_precision import average_precision
from n2n_edge.tasks.boxes import Detections
from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.conformance import check_task
from n2n_edge.tasks.detection import Detection
from n2n_edge.tasks.head import Signature
from n2n_edge.tasks.keypoints import Keypoints
from n2n_edge.tasks.maps import ClassMap
from n2n_edge.tasks.multilabel import Multilabel
from n2n_edge.tasks.points import PointForm
from n2n_edge.tasks.segmentation import Segmentation
from n2n_edge.tasks.task import Labels
from n2n_edge.tasks.values import Values

RANDOM = np.random.default_rng(0)
Arrays = Sequence[NDArray[Any]]


def logits(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(0, 2, shape).astype(np.float32)


def sigmoid(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-numbers))).astype(np.float32)


def softmax(numbers: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    powers = np.exp(numbers)
    return (powers / powers.sum(axis=axis, keepdims=True)).astype(np.float32)


def test_classification() -> None:
    labels = RANDOM.integers(0, 5, 12)
    check_task(
        Classification(),
        [logits(12, 5)],
        labels=labels,
        right=[8 * np.eye(5)[labels]],
        reference=lambda outputs, told: float(np.mean(outputs[0].argmax(axis=1) == told)),
    )
    check_task(Classification("probabilities"), [softmax(logits(12, 5), 1)], labels=labels)


def test_values() -> None:
    labels = RANDOM.normal(0, 1, (12, 3)).astype(np.float32)
    outputs = [(labels + RANDOM.normal(0, 0.3, labels.shape)).astype(np.float32)]

    def reference(found: Arrays, told: Labels) -> float:
        right = np.asarray(told, np.float64)
        residual = ((found[0] - right) ** 2).sum(axis=0)
        return float(np.mean(1 - residual / ((right - right.mean(axis=0)) ** 2).sum(axis=0)))

    check_task(Values(), outputs, labels=labels, reference=reference, right=[labels])


def naive_miou(found: NDArray[Any], masks: Sequence[Mask], classes: int) -> float:
    aim = np.stack([mask.pixels for mask in masks])
    told, values = aim != 255, []
    for kind in range(classes):
        both = ((found == kind) & (aim == kind) & told).sum()
        either = (((found == kind) | (aim == kind)) & told).sum()
        values += [both / either] if either else []
    return float(np.mean(values))


def masks(count: int, size: int, classes: int) -> list[Mask]:
    found = RANDOM.integers(0, classes, (count, size, size)).astype(np.uint8)
    found[:, 0] = 255
    found[0] = 0  # nothing but background
    found[1] = 255  # nothing told
    return [Mask(each) for each in found]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("end", ["", "Softmax"])
def test_segmentation(last: bool, end: str) -> None:
    axis = 3 if last else 1
    scores = logits(6, 8, 8, 4) if last else logits(6, 4, 8, 8)
    scores = softmax(scores, axis) if end else scores
    labels = masks(6, 8, 4)
    right = np.moveaxis(np.eye(4)[np.minimum(np.stack([each.pixels for each in labels]), 3)], 3, axis)
    check_task(
        Segmentation(ClassMap(axis, 4), (8, 8), bool(end)),
        [scores],
        labels=labels,
        right=[right if end else 8 * right],
        reference=lambda outputs, told: naive_miou(outputs[0].argmax(axis=axis), list(told), 4),
    )


def test_segmentation_of_one_class_and_a_further_output() -> None:
    labels = masks(6, 8, 2)
    right, further = np.stack([each.pixels for each in labels]) == 1, logits(6, 3)
    check_task(
        Segmentation(ClassMap(1, 2, 0.0), (8, 8)),
        [logits(6, 1, 8, 8), further],
        labels=labels,
        right=[20 * right[:, None] - 10, further],
        reference=lambda outputs, told: naive_miou(outputs[0][:, 0] >= 0, list(told), 2),
    )
    bounded = sigmoid(logits(6, 8, 8))
    check_task(
        Segmentation(ClassMap(0, 2, 0.5), (8, 8), True),
        [bounded],
        labels=labels,
        right=[right],
        reference=lambda outputs, told: naive_miou(outputs[0] >= 0.5, list(told), 2),
    )


@pytest.mark.parametrize("last", [False, True])
def test_segmentation_of_classes_that_may_overlap(last: bool) -> None:
    axis = 3 if last else 1
    scores = sigmoid(logits(6, 8, 8, 4) if last else logits(6, 4, 8, 8))
    scores[0] = 0.1  # nothing is there
    labels = masks(6, 8, 4)
    check_task(
        Segmentation(ClassMap(axis, 4, independent=True), (8, 8), bounded=True),
        [scores],
        labels=labels,
        right=[np.moveaxis(np.eye(4)[np.minimum(np.stack([each.pixels for each in labels]), 3)], 3, axis)],
        reference=lambda outputs, told: naive_miou(outputs[0].argmax(axis=axis), list(told), 4),
    )


def test_maps_smaller_than_the_masks_are_enlarged() -> None:
    scores, labels = logits(4, 3, 4, 4), masks(4, 8, 3)
    cells = np.stack([each.pixels[1::2, 1::2] for each in labels])
    check_task(
        Segmentation(ClassMap(1, 3), (8, 8)),
        [scores],
        labels=labels,
        right=[8 * np.moveaxis(np.eye(3)[np.minimum(cells, 2)], 3, 1)],
        reference=lambda outputs, told: naive_miou(
            outputs[0].argmax(axis=1).repeat(2, axis=1).repeat(2, axis=2), list(told), 3
        ),
    )


def test_images_without_a_mask_do_not_count() -> None:
    scores, (first, second) = logits(2, 3, 8, 8), masks(4, 8, 3)[2:]
    meters = [Segmentation(ClassMap(1, 3), (8, 8)).meter() for _ in range(2)]
    meters[0].add([scores], None, [first, None])
    meters[1].add([scores[:1]], None, [first])
    assert meters[0].evaluation().score == meters[1].evaluation().score
    meters[0].add([scores[1:]], None, [second])
    assert meters[0].evaluation().n == 3


def naive_likeness(found: NDArray[Any], aim: NDArray[Any], seen: NDArray[Any]) -> float:
    values = []
    for own, other, told in zip(found, aim, seen, strict=True):
        if not told.any():
            continue
        area = (np.ptp(other[told], axis=0) ** 2).sum() / 2
        distance = np.linalg.norm(own - other, axis=1)[told]
        values += list(np.exp(-(distance**2) / (2 * 0.1**2 * area)))
    return float(np.mean(values))


@pytest.mark.parametrize("shares", [True, False])
def test_keypoints_as_coordinates(shares: bool) -> None:
    scale = 1.0 if shares else 32.0
    outputs = (RANDOM.uniform(0, 1, (6, 5, 2)) * scale).astype(np.float32)
    found = outputs * (32 / scale)
    aim = (found + RANDOM.normal(0, 1, found.shape)).astype(np.float32)
    visible = RANDOM.integers(0, 3, (6, 5, 1))
    visible[0] = 0  # nothing labelled
    labels = [Points(np.concatenate([each, seen], axis=1)) for each, seen in zip(aim, visible, strict=True)]
    check_task(
        Keypoints(PointForm(5, shares=shares), (32, 32)),
        [outputs.reshape(6, -1)],
        labels=labels,
        right=[aim.reshape(6, -1) * (scale / 32)],
        reference=lambda _, told: naive_likeness(found, aim, visible[..., 0] > 0),
    )


def test_keypoints_with_a_score_each() -> None:
    outputs = RANDOM.uniform(0, 1, (6, 5, 3)).astype(np.float32)
    found = outputs[..., :2] * 32
    aim = (found + RANDOM.normal(0, 1, found.shape)).astype(np.float32)
    labels = [Points(np.concatenate([each, np.full((5, 1), 2)], axis=1)) for each in aim]
    check_task(
        Keypoints(PointForm(5, numbers=3), (32, 32)),
        [outputs.reshape(6, -1)],
        labels=labels,
        right=[np.concatenate([aim / 32, outputs[..., 2:]], axis=2).reshape(6, -1)],
        reference=lambda _, told: naive_likeness(found, aim, np.ones((6, 5), bool)),
    )


def peaks(points: NDArray[Any]) -> NDArray[np.float32]:
    """Return maps of 8 by 8 cells with a peak at each of these points of 32 by 32 pixels, on some noise."""
    cells = points.reshape(*points.shape[:-1], 3, 2) / 4
    rows, columns = np.mgrid[:8, :8] + 0.5
    squares = (columns - cells[..., 0, None, None]) ** 2 + (rows - cells[..., 1, None, None]) ** 2
    return (3 * np.exp(-squares / 2) - 5 + RANDOM.normal(0, 0.01, squares.shape)).astype(np.float32)


def test_keypoints_as_heatmaps_and_numbers_as_labels() -> None:
    task = Keypoints(PointForm(3, maps=True), (32, 32))
    labels = RANDOM.uniform(4, 28, (6, 6)).astype(np.float32)
    maps = peaks(RANDOM.uniform(4, 28, (6, 6)))
    check_task(
        task,
        [maps],
        labels=labels,
        right=[peaks(labels)],
        reference=lambda outputs, told: naive_likeness(
            task.read(outputs), np.asarray(told).reshape(6, 3, 2), np.ones((6, 3), bool)
        ),
    )


@pytest.mark.parametrize("probabilities", [True, False])
def test_independent_classes(probabilities: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores = np.round(logits(40, 4), 1)  # equal scores occur
    scores = sigmoid(scores) if probabilities else scores
    labels = RANDOM.integers(0, 2, (40, 4)).astype(np.float32)
    check_task(
        Multilabel(probabilities),
        [scores],
        labels=labels,
        right=[labels if probabilities else 20 * labels - 10],
        reference=lambda outputs, told: float(metrics.average_precision_score(told, outputs[0], average="macro")),
    )


def decode(outputs: list[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return boxes, scores and classes from ``(N, M, 6)``."""
    return outputs[0][..., :4], outputs[0][..., 4], outputs[0][..., 5]


def test_detection() -> None:
    corners = RANDOM.uniform(0, 60, (8, 4, 2))
    rows = [corners, corners + RANDOM.uniform(10, 30, corners.shape), RANDOM.uniform(0.4, 1, (8, 4, 1))]
    outputs = np.concatenate([*rows, RANDOM.integers(0, 3, (8, 4, 1))], axis=2).astype(np.float32)
    outputs[0, :, 4] = 0.01  # finds nothing
    labels = [Objects(each[:, :4] + RANDOM.normal(0, 2, (4, 4)), each[:, 5].astype(np.int64)) for each in outputs]
    labels[1] = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))  # no object

    def reference(outputs: Arrays, told: Labels) -> float:
        found = [Detections(image[:, :4], image[:, 4], image[:, 5].astype(np.int64)) for image in outputs[0]]
        return average_precision(found, list(told)).value or 0.0

    check_task(
        Detection(Signature(100, 100, (), frozenset()), reader=f"{__name__}:decode"),
        [outputs],
        labels=labels,
        reference=reference,
    )


@dataclass(frozen=True)
class Deaf(Classification):
    """Outputs that are nothing to the loss."""

    name = "deaf"

    def loss(self, student: Any, *_: Any) -> torch.Tensor:
        return student[0].sum() * 0 + 1.0


def test_a_task_that_learns_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="gradient"):
        check_task(Deaf(), [logits(6, 3)])
    with pytest.raises(AssertionError, match="reference says"):
        check_task(Classification(), [logits(6, 3)], labels=np.zeros(6, int), reference=lambda *_: 2.0)
