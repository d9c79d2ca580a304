"""Boxes, masks and points that a function gives with its images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.data.labels.packed import packed
from n2n_edge.data.labels.values import Mask, Objects, Points
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from tests.data.datasets import items_of

HEIGHT, WIDTH, SIDE = 60, 80, 40
BOX = (20.0, 15.0, 40.0, 45.0)


def picture() -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    left, top, right, bottom = map(int, BOX)
    pixels[top:bottom, left:right] = 255
    return pixels


def load(
    monkeypatch: pytest.MonkeyPatch, targets: list[Any], classes: int | None = 3, image: Any = None, **fields: Any
) -> Data:
    spec = items_of(monkeypatch, [(picture() if image is None else image, target) for target in targets])
    preprocessing = Preprocessing((SIDE, SIDE), **fields)
    return load_data(spec, preprocessing=preprocessing, classes=None, object_classes=lambda: classes)


def seen(data: Data) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(np.asarray(data.test.images[:])[0][..., 0] > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("resize", ["squash", "letterbox", "center-crop"])
def test_labels_follow_their_image_into_the_input(monkeypatch: pytest.MonkeyPatch, resize: str) -> None:
    left, top, right, bottom = map(int, BOX)
    mask = (picture()[..., 0] > 0).astype(np.int64)
    whole = load(monkeypatch, [{"boxes": [BOX], "labels": [2]}] * 20, resize=resize)
    (label,) = whole.test.annotations[:1]  # type: ignore[index]
    assert isinstance(label, Objects)
    np.testing.assert_allclose(label.boxes[0], seen(whole), atol=1)
    assert label.classes.tolist() == [2]
    masked = load(monkeypatch, [{"mask": mask}] * 20, resize=resize)
    (area,) = masked.test.annotations[:1]  # type: ignore[index]
    assert isinstance(area, Mask)
    bright = np.asarray(masked.test.images[:])[0][..., 0] > 127
    assert (area.pixels[bright] == 1).mean() > 0.9
    pointed = load(monkeypatch, [{"points": [(left, top), (right, bottom)]}] * 20, resize=resize)
    (points,) = pointed.test.annotations[:1]  # type: ignore[index]
    assert isinstance(points, Points)
    np.testing.assert_allclose(points.points[:, :2].ravel(), seen(pointed), atol=1)
    assert whole.digest() != masked.digest() != pointed.digest()


def test_arrays_of_the_inputs_size_keep_their_labels_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    data = load(
        monkeypatch, [{"boxes": [(5, 6, 20, 30)], "labels": [0]}] * 20,
        image=image, resize="center-crop", crop_ratio=0.875,
    )  # fmt: skip
    label = data.train.annotations[0]  # type: ignore[index]
    assert isinstance(label, Objects)
    assert label.boxes.tolist() == [[5, 6, 20, 30]]


def test_tensors_crowds_and_key_points_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    target = {
        "boxes": torch.tensor([BOX, BOX]), "labels": torch.tensor([0, 1]), "iscrowd": torch.tensor([0, 1]),
        "keypoints": torch.tensor([[[25.0, 20.0, 2.0]], [[0.0, 0.0, 0.0]]]), "image_id": 7, "area": [600.0, 600.0],
    }  # fmt: skip
    data = load(monkeypatch, [target] * 20, resize="squash")
    label = data.train.annotations[0]  # type: ignore[index]
    assert isinstance(label, Objects)
    assert label.crowd is not None
    assert label.keypoints is not None
    assert label.crowd.tolist() == [False, True]
    np.testing.assert_allclose(label.keypoints[:, 0], [[12.5, 20 * SIDE / HEIGHT, 2], [0, 0, 0]])
    assert "40 objects of 3 classes" in data.counts


@pytest.mark.parametrize("form", ["picture", "tensor", "pair of dicts"])
def test_a_mask_may_be_a_picture_or_whole_numbers(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    classes[10:, 20:] = 2
    classes[0] = 255
    palette = Image.fromarray(classes, "P")
    palette.putpalette(range(256))
    target = {"picture": palette, "tensor": torch.from_numpy(classes).long(), "pair of dicts": {"mask": classes[None]}}
    data = load(monkeypatch, [target[form]] * 20, resize="squash")
    label = data.train.annotations[0]  # type: ignore[index]
    assert isinstance(label, Mask)
    assert set(np.unique(label.pixels)) == {0, 2, 255}


def test_masks_of_0_and_255_have_two_classes_and_others_ignore_255(monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    low[30:], high[30:] = 255, 1
    binary = load(monkeypatch, [low] * 20, resize="letterbox")
    assert [each.code for each in binary.warnings].count("binary-masks") == 1
    (label,) = binary.test.annotations[:1]  # type: ignore[index]
    assert isinstance(label, Mask)
    assert set(np.unique(label.pixels)) == {0, 1, 255}  # the letterbox's bars are still ignored
    assert (label.pixels == 1).mean() > 0.3
    mixed = load(monkeypatch, [low, high] * 10, resize="squash")
    kinds = [set(np.unique(each.pixels)) for each in mixed.train.annotations or () if isinstance(each, Mask)]
    assert {frozenset(kind) for kind in kinds} == {frozenset({0, 255}), frozenset({0, 1})}


def test_images_without_a_label_are_learnt_from_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(monkeypatch, [{"boxes": [BOX], "labels": [0]}] * 20 + [None] * 20, resize="squash")
    assert all(each is not None for split in (data.validation, data.test) for each in split.annotations or ())
    assert sum(each is None for each in data.train.annotations or ()) == 20


def test_a_training_and_a_test_dataset_keep_their_labels_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tuple([(picture(), {"boxes": [BOX], "labels": [kind]})] * 12 for kind in (0, 1))
    spec = items_of(monkeypatch, [])
    monkeypatch.setattr("given_items.load", lambda: parts)
    data = load_data(spec, preprocessing=Preprocessing((SIDE, SIDE)), classes=None)
    for split, kind in ((data.train, 0), (data.validation, 0), (data.test, 1)):
        assert {int(each.classes[0]) for each in split.annotations or () if isinstance(each, Objects)} == {kind}
    assert data.class_names == ("0", "1")


OTHER = {"boxes": [BOX], "labels": [0]}
MASK = np.zeros((HEIGHT, WIDTH), int)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"boxes": [(0, 0, 200, 30)], "labels": [0]}, "item 1 .* object 0: .* far outside its image of 80x60 pixels"),
        ({"boxes": [(40, 10, 20, 30)], "labels": [0]}, "object 0: a box of width -20 and height 20"),
        ({"boxes": [BOX], "labels": [3]}, "object 0 has class 3, but the teacher has 3 classes, 0 to 2"),
        ({"boxes": [BOX], "labels": [-1]}, "object 0 has class -1: number classes from 0"),
        ({"boxes": [BOX], "labels": [0.5]}, "labels that are no whole numbers"),
        ({"boxes": [BOX], "labels": [0, 1]}, "1 boxes and 2 labels"),
        ({"boxes": [BOX]}, "no 'labels'"),
        ({"boxes": [BOX[:3]], "labels": [0]}, r"boxes of shape \(1, 3\): give 'boxes' \(n, 4\)"),
        ({"boxes": [(0.1, 0.1, 0.5, 0.5)], "labels": [0]}, "boxes within 0..1: give pixels"),
        ({"boxes": ["a"], "labels": [0]}, "its boxes are no finite numbers"),
        ({"boxes": [(0, 0, float("nan"), 3)], "labels": [0]}, "its boxes are no finite numbers"),
        ({"boxes": [BOX], "labels": [0], "keypoints": [[(1, 2, 9)]]}, "the visibility 9: give 0"),
        ({"mask": MASK[1:]}, r"a mask of shape \(59, 80\), its image is 60 high and 80 wide"),
        ({"mask": MASK + 300}, "values from 300 to 300: give whole numbers"),
        ({"mask": MASK - 1}, "values from -1 to -1"),
        ({"mask": MASK + 3}, "the mask of item 1 .* holds class 3, but the teacher has 3 classes, 0 to 2"),
        ({"mask": MASK, "points": [(1, 2)]}, "a dict that holds 'mask', 'points'"),
        ({"points": [(0.1, 0.4)]}, "points within 0..1: give pixels"),
        ({"points": [1, 2, 3]}, r"points of shape \(3,\)"),
        ({"bbox": [1, 2, 3, 4], "category_id": 3}, "a dict that holds 'bbox', 'category_id' as its label: give a dict"),
        ({}, "a dict that holds nothing"),
        ({"mask": MASK}, "has mask and objects as labels: give the same kind"),
        (3, "dicts or masks as labels, and numbers"),
        (Image.fromarray(picture()[::2]), r"a mask of shape \(30, 80\)"),
        ([{"bbox": [1, 2, 3, 4]}], "no number and no row of them"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong_with_a_label(monkeypatch: pytest.MonkeyPatch, target: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        load(monkeypatch, [OTHER, target, *[OTHER] * 18], resize="squash")
    assert "\n" not in str(raised.value)


def test_boxes_in_another_form_are_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Form:
        name = "XYWH"

    boxes = torch.tensor([BOX])
    boxes.format = Form()  # type: ignore[attr-defined]  # as torchvision's BoundingBoxes
    with pytest.raises(InputError, match="boxes as XYWH: convert them to XYXY"):
        load(monkeypatch, [{"boxes": boxes, "labels": [0]}] * 20)


def test_points_of_unlike_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="labels of 1 and 2 points"):
        load(monkeypatch, [{"points": [(1, 2)]}, {"points": [(1, 2), (3, 4)]}] * 10)


def test_whole_numbers_of_another_shape_are_still_values(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(monkeypatch, [np.array([[3, 4], [5, index]]) for index in range(20)])
    assert data.train.targets is not None
    assert data.train.targets.shape[1] == 4


@pytest.mark.parametrize("kind", ["boxes", "mask", "points"])
def test_an_npz_holds_boxes_masks_and_points_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    mask = (picture()[..., 0] > 0).astype(np.uint8)
    targets: dict[str, Any] = {
        "boxes": {"boxes": [BOX, (1, 2, 30, 40)], "labels": [2, 0], "iscrowd": [0, 1],
                  "keypoints": [[(25, 20, 2)], [(0, 0, 0)]]},
        "mask": {"mask": mask},
        "points": {"points": [(20, 15), (40, 45)]},
    }  # fmt: skip
    empty = {"boxes": [], "labels": []} if kind == "boxes" else None
    given = [targets[kind]] * 20 + [empty] * 4 + [None] * 8
    as_function = load(monkeypatch, given, resize="letterbox")
    preprocessing = Preprocessing((SIDE, SIDE), resize="letterbox")
    images = np.stack([picture()] * len(given))
    labels = [None if each is None else label_of(each) for each in given]
    np.savez(tmp_path / "data.npz", images=images, **packed(labels, (HEIGHT, WIDTH)))
    as_file = load_data(str(tmp_path / "data.npz"), preprocessing=preprocessing, classes=None, object_classes=lambda: 3)
    assert as_file.digest() == as_function.digest()
    assert as_file.class_names == as_function.class_names
    assert as_file.summary == as_function.summary
    assert as_file.conversions == ""


def label_of(target: dict[str, Any]) -> Objects | Mask | Points:
    if "mask" in target:
        return Mask(target["mask"])
    if "points" in target:
        return Points(np.column_stack([np.array(target["points"], float), [2.0, 2.0]]))
    boxes = np.array(target["boxes"], float).reshape(-1, 4)
    crowd = None if "iscrowd" not in target else np.array(target["iscrowd"], bool)
    points = None if "keypoints" not in target else np.array(target["keypoints"], float)
    return Objects(boxes, np.array(target["labels"], np.int64), crowd, points)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"boxes": np.ones((3, 5))}, r"'boxes' of .* has the shape \(3, 5\): give rows of image, left"),
        ({"boxes": np.array([[20, 1, 1, 9, 9, 0]])}, "has the image 20 in row 0, but images go from 0 to 19"),
        ({"boxes": np.array([[3, 1, 1, 9, 9, 3]])}, "image 3 of 'images' .* object 0 has class 3, but the teacher"),
        ({"boxes": np.ones((2, 6)), "keypoints": np.ones((3, 2, 3))}, "'keypoints' of .* has 3 rows for 2 boxes"),
        ({"points": np.ones((4, 2, 2))}, r"'points' of .* has the shape \(4, 2, 2\) for 20 images"),
        ({"points": np.ones((20, 2, 2)) * 5, "boxes": np.ones((1, 6))}, "labels of several kinds; leave one"),
        ({"labels": np.full((20, HEIGHT, WIDTH), 7)}, "the mask of image 0 of 'images' .* holds class 7, but"),
        ({"boxes": np.array([[3, 1, 1, 9, 9, 0]]), "labelled": np.ones(3)}, "'labelled' of .* for 20 images"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong_with_labels_of_an_npz(tmp_path: Path, arrays: Any, words: str) -> None:
    np.savez(tmp_path / "data.npz", images=np.stack([picture()] * 20), **arrays)
    with pytest.raises(InputError, match=words):
        load_data(
            str(tmp_path / "data.npz"), preprocessing=Preprocessing((SIDE, SIDE)), classes=None,
            object_classes=lambda: 3,
        )  # fmt: skip
