"""Labels of COCO: boxes, outlines, keypoints and crowds, and what is wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from n2n_edge.data.labels.reading import read_annotations
from n2n_edge.errors import InputError
from n2n_edge.metrics.notices import codes_of

WIDTH, HEIGHT = 6, 4


def make(root: Path, change=lambda document: None, name="annotations/instances_val2017.json", images="val2017") -> Path:
    """Make two images and a file with a box, a polygon and a crowd in the first."""
    document = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 9, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "categories": [{"id": 90, "name": "bus"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 1, 3, 2], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2]]},
            {
                "id": 3,
                "image_id": 7,
                "category_id": 1,
                "bbox": [0, 0, 6, 4],
                "iscrowd": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": [4, 4, 16]},
            },
        ],
    }
    change(document)
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    for image in ("a.png", "b.png"):
        (root / images).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / images / image)
    return path


def test_boxes_outlines_and_crowds(tmp_path):
    make(tmp_path)
    annotated = read_annotations(tmp_path)
    first, second = annotated.labels
    assert [Path(path).name for path in annotated.images] == ["a.png", "b.png"]
    assert annotated.names == ("person", "bus")
    assert first.boxes.tolist() == [[1, 1, 4, 3], [0, 0, 2, 2], [0, 0, 6, 4]]
    assert first.classes.tolist() == [1, 0, 0]
    assert first.crowd.tolist() == [False, False, True]
    assert first.shapes[0] is None
    assert first.shapes[1][0].tolist() == [[0, 0], [2, 0], [2, 2]]
    assert np.flatnonzero(first.shapes[2].mask().any(axis=0)).tolist() == [1]
    assert len(second) == 0
    assert second.crowd is None
    assert codes_of(annotated.notices) == ("classes-renumbered",)


def test_keypoints(tmp_path):
    def change(document):
        document["categories"][1]["keypoints"] = ["left_eye", "right_eye"]
        document["annotations"][1]["keypoints"] = [1, 1, 2, 0, 0, 0]

    annotated = read_annotations(make(tmp_path, change))
    assert annotated.keypoint_names == ("left_eye", "right_eye")
    assert annotated.flip_index == (1, 0)
    assert annotated.labels[0].keypoints.tolist() == [
        [[0, 0, 0], [0, 0, 0]],
        [[1, 1, 2], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0]],
    ]


def test_two_splits(tmp_path):
    make(tmp_path)
    make(tmp_path, name="annotations/instances_train2017.json", images="train2017")
    annotated = read_annotations(tmp_path)
    assert annotated.splits == ("train", "train", "validation", "validation")
    assert len(set(annotated.images)) == 4


def test_folders_as_roboflow_exports_them(tmp_path):
    for split in ("train", "valid", "test"):
        make(tmp_path, name=f"{split}/_annotations.coco.json", images=split)
    assert read_annotations(tmp_path).splits == ("train", "train", "validation", "validation", "test", "test")


def test_an_image_of_two_splits_stays_in_the_first(tmp_path):
    for split in ("train", "val"):
        make(tmp_path, name=f"{split}.json", images="images")
    annotated = read_annotations(tmp_path)
    assert annotated.splits == ("train", "train")
    assert "images-in-two-splits" in codes_of(annotated.notices)


def test_several_files_that_are_no_splits(tmp_path):
    make(tmp_path)
    make(tmp_path, name="annotations/captions_val2017.json")
    with pytest.raises(InputError, match=r"holds several of COCO's files: .*; give one of them"):
        read_annotations(tmp_path)


def test_images_in_a_folder_that_is_given(tmp_path):
    path = make(tmp_path, images="elsewhere")
    with pytest.raises(InputError, match=r"2 of 2 images aren't in .*, the first: 'a.png'; put them there"):
        read_annotations(path)
    assert len(read_annotations(path, tmp_path / "elsewhere")) == 2


def test_a_class_of_a_teacher_that_counts_as_coco_does(tmp_path):
    annotated = read_annotations(make(tmp_path), classes=91)
    assert annotated.labels[0].classes.tolist() == [90, 1, 1]
    assert annotated.names[90] == "bus"


def put(key, index, **values):
    """Return what changes an item of the document."""
    return lambda document: document[key][index].update(values)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda document: document.pop("annotations"), "has no 'annotations', as COCO's JSON has"),
        (lambda document: document.update(images={}), "'images' is no list of objects"),
        (lambda document: document.update(images=[]), "names no images"),
        (lambda document: document.update(categories=[]), "has no categories"),
        (put("images", 1, id=7), "images[1]: the id 7 stands there twice"),
        (put("images", 1, id="x"), "images[1]: 'id' is 'x', not a whole number"),
        (put("images", 1, file_name="a.png"), "'a.png' is named twice"),
        (put("images", 1, file_name=""), "images[1]: has no 'file_name'"),
        (put("images", 1, file_name="c.png"), "1 of 2 images aren't in"),
        (put("images", 0, width=9), "image 'a.png' is said to have 9x4 pixels, but has 6x4"),
        (put("images", 0, width=4, height=6), "but has 6x4 (it is turned by its EXIF orientation)"),
        (put("categories", 1, id=90), "categories[1]: the id 90 stands there twice"),
        (put("categories", 1, name=None), "categories[1]: has no 'name'"),
        (put("annotations", 0, image_id=8), "annotations[0]: there is no image with the id 8"),
        (put("annotations", 0, category_id=2), "annotations[0]: there is no class 2"),
        (put("annotations", 0, bbox=[1, 2, 3]), "annotations[0]: 'bbox' isn't four numbers"),
        (put("annotations", 0, bbox=[1, 2, 3, float("nan")]), "annotations[0]: nan where a finite number is needed"),
        (put("annotations", 0, bbox=[1, 1, "x", 3]), "annotations[0]: 'x' is no number"),
        (put("annotations", 0, bbox=[1, 1, -2, 3]), "annotations[0]: a box of width -2 and height 3"),
        (put("annotations", 0, bbox=[1, 1, 80, 3]), "annotations[0]: the box 1, 1 to 81, 4 lies far outside"),
        (put("annotations", 0, iscrowd=2), "annotations[0]: 'iscrowd' is '2', not 0 or 1"),
        (put("annotations", 1, segmentation=[[1, 2, 3]]), "annotations[1]: a polygon of 3 numbers"),
        (put("annotations", 1, segmentation="x"), "annotations[1]: 'segmentation' is neither polygons nor run lengths"),
        (put("annotations", 2, segmentation={"size": [9, 9], "counts": [81]}), "the outline's size is [9, 9], the"),
        (put("annotations", 2, segmentation={"size": [4, 6], "counts": [81]}), "run lengths sum to 81, not to 4 x 6"),
        (put("annotations", 2, segmentation={"size": [4, 6], "counts": "\u20ac"}), "aren't a text that COCO's"),
    ],
)  # fmt: skip
def test_files_that_are_wrong(tmp_path, change, why):
    path = make(tmp_path, change)
    with pytest.raises(InputError) as error:
        read_annotations(path)
    assert why in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, "1" * 5000, "\x00", ""])
def test_what_is_no_json(tmp_path, text):
    path = make(tmp_path)
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_annotations(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_keypoints_of_another_number(tmp_path):
    def change(document):
        document["categories"][1]["keypoints"] = ["left_eye", "right_eye"]
        document["annotations"][1]["keypoints"] = [1, 1, 2]

    with pytest.raises(InputError, match=r"annotations\[1\]: 'keypoints' has 3 numbers, its class has 2 points of 3"):
        read_annotations(make(tmp_path, change))


def test_a_name_cannot_forge_lines(tmp_path):
    path = make(tmp_path, put("images", 0, file_name="\x1b[2J\nok.png"))
    with pytest.raises(InputError) as error:
        read_annotations(path)
    assert "\x1b" not in str(error.value)
    assert "\n" not in str(error.value)
