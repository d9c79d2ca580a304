"""Labels in training follow what augmentation does to their images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.labels.values import Label, Mask, MaskFile, Points
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.importing import name_of_function
from n2n_edge.tasks.keypoints import Keypoints
from n2n_edge.tasks.maps import ClassMap
from n2n_edge.tasks.points import PointForm
from n2n_edge.tasks.segmentation import Segmentation
from n2n_edge.tasks.task import Task
from n2n_edge.tasks.values import Values
from n2n_edge.training.batches import training_batches
from n2n_edge.training.settings import DistillSettings

SIDE = 128
IMAGES = 24
SETTINGS = DistillSettings(batch_size=IMAGES, augment="standard", seed=3)


def squares() -> tuple[NDArray[np.uint8], list[tuple[int, int, int, int]]]:
    """Return images of a bright square on dark ground, with its left, top, right, bottom."""
    random = np.random.default_rng(0)
    images, boxes = np.full((IMAGES, SIDE, SIDE, 3), 10, np.uint8), []
    for image in images:
        (left, top), size = random.integers(30, 70, 2), random.integers(20, 30)
        image[top : top + size, left : left + size] = 200
        boxes.append((int(left), int(top), int(left + size), int(top + size)))
    return images, boxes


PICTURES, BOXES = squares()


def data(task: Task, labels: Sequence[Label | None], flip_index: tuple[int, ...] | None = None) -> Data:
    sizes = np.full((IMAGES, 2), SIDE)
    split = Split(PICTURES, None, None, Annotations(labels, sizes, None, [""] * IMAGES, flip_index))
    return Data(split, split, split, (), Preprocessing((SIDE, SIDE)), task)


def batch(task: Task, labels: Sequence[Label | None], settings: DistillSettings = SETTINGS, **given: Any) -> Any:
    (found,) = training_batches(data(task, labels, **given), settings, 2)
    return (found.inputs[:, 0] > 0.4).numpy(), found.labels


@pytest.mark.parametrize("augment", ["light", "standard"])
def test_masks(augment: str) -> None:
    labels = [Mask((each[..., 0] > 100).astype(np.uint8)) for each in PICTURES]
    task = Segmentation(ClassMap(1, 2), (SIDE, SIDE))
    bright, masks = batch(task, [None, *labels[1:]], replace(SETTINGS, augment=augment))
    masks = masks.numpy()
    empty = [place for place, mask in enumerate(masks) if (mask == 255).all()]
    assert len(empty) == 1
    told = masks != 255
    # the edge of a scaled square is grey, so a pixel along it may be either
    assert ((bright == (masks == 1)) | ~told).mean() > 0.99
    assert all(told[place].mean() > 0.75 for place in range(IMAGES) if place not in empty)
    assert (masks == 1).any()


@pytest.mark.parametrize("augment", ["light", "standard"])
def test_points(augment: str) -> None:
    labels = [Points(np.array([[box[0], box[1], 2], [box[2], box[1], 2]], np.float32)) for box in BOXES]
    task = Keypoints(PointForm(2), (SIDE, SIDE))
    bright, points = batch(task, labels, replace(SETTINGS, augment=augment), flip_index=(1, 0))
    seen = 0
    for image, (left, right) in zip(bright, points.numpy(), strict=True):
        columns = np.flatnonzero(image.any(axis=0))
        rows = np.flatnonzero(image.any(axis=1))
        for point, edge in ((left, columns[:1]), (right, columns[-1:] + 1)):
            if point[2]:
                seen += 1
                assert abs(point[0] - edge[0]) < 2
                assert abs(point[1] - rows[0]) < 2
    assert seen > IMAGES  # and the others were cut off


def test_points_that_cannot_be_mirrored_have_no_label_in_a_mirrored_image() -> None:
    labels = [Points(np.array([[64, 64, 2], [70, 64, 2]], np.float32)) for _ in BOXES]
    task = Keypoints(PointForm(2), (SIDE, SIDE))
    _, points = batch(task, labels)
    assert 4 < int((points[..., 2] == 0).all(dim=1).sum()) < IMAGES - 4
    _, points = batch(task, labels, replace(SETTINGS, flip=False))
    assert not int((points[..., 2] == 0).all(dim=1).sum())


def dimmed(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return images // 2


def test_where_an_augmentation_does_not_tell_labels_in_places_go() -> None:
    labels = [Mask((each[..., 0] > 100).astype(np.uint8)) for each in PICTURES]
    own = replace(SETTINGS, augment=name_of_function("augment", dimmed))
    _, masks = batch(Segmentation(ClassMap(1, 2), (SIDE, SIDE)), labels, own)
    assert bool((masks == 255).all())


def test_numbers_are_taught_on_images_as_they_are() -> None:
    split = Split(PICTURES, None, np.arange(2 * IMAGES, dtype=np.float32).reshape(IMAGES, 2))
    of_numbers = Data(split, split, split, (), Preprocessing((SIDE, SIDE)), Values())
    (first,), (second,) = (training_batches(of_numbers, SETTINGS, epoch) for epoch in (1, 2))
    assert first.labels is not None
    assert second.labels is not None
    assert sorted(first.labels[:, 0].tolist()) == list(range(0, 2 * IMAGES, 2))
    assert bool(second.labels.isnan().all())
    (plain,) = training_batches(of_numbers, replace(SETTINGS, augment="none"), 2)
    assert plain.labels is not None
    assert not bool(plain.labels.isnan().any())


def test_where_labels_count_nothing_they_are_not_read() -> None:
    labels = [MaskFile("gone.png", (SIDE, SIDE)) for _ in PICTURES]
    task = Segmentation(ClassMap(1, 2), (SIDE, SIDE))
    assert batch(task, labels, replace(SETTINGS, kd_weight=1.0))[1] is None
    with pytest.raises(FileNotFoundError):
        batch(task, labels)
