"""Labels of YOLO: data.yaml, text files of boxes, polygons and points, and what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from n2n_edge.data.labels.reading import read_annotations
from n2n_edge.data.labels.values import Objects
from n2n_edge.errors import InputError
from n2n_edge.metrics.notices import codes_of

WIDTH, HEIGHT = 40, 20
YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"


def make(root: Path, labels: dict[str, str | None], yaml: str | None = YAML) -> Path:
    """Make an image for each label, called like "train/a"."""
    for name, text in labels.items():
        image = (root / "images" / name).with_suffix(".png")
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(image)
        if text is not None:
            label = (root / "labels" / name).with_suffix(".txt")
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(text)
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)
    return root


def objects_of(annotated, name) -> Objects:
    label = next(
        label for path, label in zip(annotated.images, annotated.labels, strict=True) if Path(path).stem == name
    )
    assert isinstance(label, Objects)
    return label


def test_boxes_of_two_splits(tmp_path):
    make(
        tmp_path,
        {"train/a": "1 0.5 0.5 0.25 0.5\n0 0.25 0.5 0.5 1\n", "train/b": "", "val/c": None, "val/d": "1 .5 .5 1 1"},
    )
    annotated = read_annotations(tmp_path)
    assert annotated.names == ("cat", "dog")
    assert annotated.splits == ("train", "train", "validation", "validation")
    assert objects_of(annotated, "a").boxes.tolist() == [[15, 5, 25, 15], [0, 0, 20, 20]]
    assert objects_of(annotated, "a").classes.tolist() == [1, 0]
    assert len(objects_of(annotated, "b")) == len(objects_of(annotated, "c")) == 0
    assert objects_of(annotated, "d").boxes.tolist() == [[0, 0, 40, 20]]
    assert codes_of(annotated.notices) == ("no-label-file",)
    assert annotated.summary == "YOLO: 2 training, 2 validation images; 3 objects of 2 classes"


def test_polygons(tmp_path):
    make(tmp_path, {"train/a": "0 0.25 0.5 0.75 0.5 0.5 1", "val/b": ""})
    found = objects_of(read_annotations(tmp_path), "a")
    assert found.boxes.tolist() == [[10, 10, 30, 20]]
    np.testing.assert_array_equal(found.shapes[0][0], [[10, 10], [30, 10], [20, 20]])


@pytest.mark.parametrize(("width", "row"), [(3, "0.5 0.5 2 0.25 0.5 0"), (2, "0.5 0.5 0 0")])
def test_points(tmp_path, width, row):
    yaml = f"{YAML}kpt_shape: [2, {width}]\nflip_idx: [1, 0]\n"
    make(tmp_path, {"train/a": f"0 .5 .5 1 1 {row}", "val/b": ""}, yaml)
    annotated = read_annotations(tmp_path / "data.yaml")
    assert annotated.flip_index == (1, 0)
    points = objects_of(annotated, "a").keypoints
    assert points.shape == (1, 2, 3)
    assert points[0, 0].tolist() == [20, 10, 2]
    assert points[0, 1, 2] == 0


def test_names_of_points_say_what_is_mirrored(tmp_path):
    yaml = f"{YAML}kpt_shape: [2, 3]\nkpt_names:\n  0: [left_eye, right_eye]\n"
    annotated = read_annotations(make(tmp_path, {"train/a": "0 .5 .5 1 1 0 0 0 0 0 0", "val/b": ""}, yaml))
    assert annotated.keypoint_names == ("left_eye", "right_eye")
    assert annotated.flip_index == (1, 0)


def test_text_files_of_images(tmp_path):
    make(
        tmp_path,
        {"all/a": "0 .5 .5 1 1", "all/b": "1 .5 .5 1 1", "all/c": ""},
        "train: train.txt\nval: [val.txt]\nnames: [x, y]",
    )
    (tmp_path / "train.txt").write_text("./images/all/a.png\n\nimages/all/b.png\n")
    (tmp_path / "val.txt").write_text(f"{tmp_path}/images/all/c.png\n")
    annotated = read_annotations(tmp_path)
    assert annotated.splits == ("train", "train", "validation")
    (tmp_path / "val.txt").write_text("images/all/nobody.png")
    with pytest.raises(InputError, match=r"val.txt, line 1: there is no image 'images/all/nobody.png'"):
        read_annotations(tmp_path)


def test_a_split_that_is_the_training_images_is_none(tmp_path):
    make(tmp_path, {"train/a": "0 .5 .5 1 1", "train/b": ""}, YAML.replace("images/val", "images/train"))
    annotated = read_annotations(tmp_path)
    assert annotated.splits == ("train", "train")
    assert codes_of(annotated.notices) == ("images-in-two-splits",)


def test_paths_of_another_machine_and_of_roboflow(tmp_path):
    for split in ("train", "valid"):
        make(tmp_path / split, {"a": "0 .5 .5 1 1"}, None)
    (tmp_path / "data.yaml").write_text(
        "path: /content/data\ntrain: ../train/images\nval: ../valid/images\nnames: [x]\nnc: 1"
    )
    annotated = read_annotations(tmp_path)
    assert annotated.splits == ("train", "validation")
    assert codes_of(annotated.notices) == ("moved-data",)


def test_images_that_lie_elsewhere(tmp_path):
    make(tmp_path / "labels", {"train/a": "1 .5 .5 1 1", "val/b": ""})
    (tmp_path / "labels" / "images").rename(tmp_path / "pictures")
    annotated = read_annotations(tmp_path / "labels" / "data.yaml", tmp_path / "pictures")
    assert objects_of(annotated, "a").classes.tolist() == [1]


def test_a_split_without_any_label_is_unlabelled(tmp_path):
    annotated = read_annotations(make(tmp_path, {"train/a": None, "train/b": None, "val/c": "0 .5 .5 1 1"}))
    assert annotated.labels[:2] == (None, None)
    assert annotated.summary.startswith("YOLO: 2 training, 1 validation images, 2 of them unlabelled")


@pytest.mark.parametrize("names", [None, "cat\ndog\nbus\n"])
def test_a_folder_without_data_yaml(tmp_path, names):
    make(tmp_path, {"train/a": "2 .5 .5 1 1", "val/b": ""}, None)
    if names:
        (tmp_path / "classes.txt").write_text(names)
    annotated = read_annotations(tmp_path)
    assert annotated.names == (("cat", "dog", "bus") if names else ("0", "1", "2"))
    assert annotated.splits == ("train", "validation")


@pytest.mark.parametrize(
    ("classes", "names", "index"),
    [
        (None, ("person", "bus"), 1),
        (2, ("person", "bus"), 1),
        (91, ("0", "person", "2", "3", "4", "bus"), 5),
        (["bus", "tram", "person"], ("bus", "tram", "person"), 0),
    ],
)
def test_numbers_with_gaps(tmp_path, classes, names, index):
    yaml = "train: images/train\nnames: {1: person, 5: bus}"
    annotated = read_annotations(make(tmp_path, {"train/a": "5 .5 .5 1 1"}, yaml), classes=classes)
    assert annotated.names == names
    assert objects_of(annotated, "a").classes.tolist() == [index]


def test_rows_that_say_the_same_count_once(tmp_path):
    annotated = read_annotations(make(tmp_path, {"train/a": "0 .5 .5 1 1\n0 .5 .5 1 1\n1 .5 .5 1 1", "val/b": ""}))
    assert len(objects_of(annotated, "a")) == 2
    assert codes_of(annotated.notices) == ("duplicate-objects",)


def test_boxes_slightly_outside_are_cut(tmp_path):
    annotated = read_annotations(make(tmp_path, {"train/a": "0 0.95 0.5 0.2 1", "val/b": ""}))
    np.testing.assert_allclose(objects_of(annotated, "a").boxes, [[34, 0, 40, 20]])
    assert codes_of(annotated.notices) == ("clipped-boxes",)
    assert "labels/train/a.txt, line 1" in str(annotated.notices[0])


def test_many_boxes_outside_are_refused(tmp_path):
    make(tmp_path, {f"train/{index}": "0 0.95 0.5 0.2 1" for index in range(11)} | {"val/b": ""})
    with pytest.raises(
        InputError, match=r"11 of 11 boxes reach out of their images, the first: .*0.txt, line 1; coord"
    ):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("2 .5 .5 1 1", "line 2: there is no class 2, the names are of 2 classes (0 to 1)"),
        ("-1 .5 .5 1 1", "there is no class -1"),
        ("0.5 .5 .5 1 1", "the class is 0.5, not a whole number"),
        ("1e300 .5 .5 1 1", "the class is 1e+300"),
        ("0 20 10 12 8", "far outside its image of 40x20 pixels; coordinates are shares of the image, from 0 to 1"),
        ("0 .5 .5 -.5 1", "a box of width -20"),
        ("0 .5 .5 1", "4 numbers, where a class and a box have 5"),
        ("0 .5 .5 .1 .1 .2", "6 numbers"),
        ("0 .5 .5 nan 1", "nan where a finite number is needed"),
        ("0 .5 .5 inf 1", "inf where a finite number is needed"),
        ("cat .5 .5 1 1", "'cat' is no number"),
        ("0 .5 .5 1\x1b[2J 1", r"'1\x1b[2J' is no number"),
    ],
)
def test_rows_that_are_wrong(tmp_path, row, why):
    make(tmp_path, {"train/a": f"0 .5 .5 1 1\n{row}\n", "val/b": ""})
    with pytest.raises(InputError) as error:
        read_annotations(tmp_path)
    assert why in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/labels/train/a.txt, line 2: ")
    assert "\n" not in str(error.value)


def test_classes_above_the_teachers(tmp_path):
    make(tmp_path, {"train/a": "1 .5 .5 1 1", "val/b": ""})
    with pytest.raises(InputError, match=r"a.txt, line 1: class 1 \('dog'\), but the teacher has 1 classes, 0 to 0"):
        read_annotations(tmp_path, classes=1)
    with pytest.raises(InputError, match=r"a.txt, line 1: class 'dog' isn't among those of classes"):
        read_annotations(tmp_path, classes=["cat", "cow"])
    assert codes_of(read_annotations(tmp_path, classes=80).notices) == ("class-count",)


@pytest.mark.parametrize(
    ("yaml", "why"),
    [
        ("train: images/train", "has no 'names'"),
        ("names: [cat, dog]", "has no 'train' and no 'val'"),
        ("train: images/nothing\nnames: [a, b]", "'train' is 'images/nothing', and there is no '"),
        ("train: labels\nnames: [a, b]", "holds no images"),
        ("train: 7\nnames: [a, b]", "'train' is int, not a path"),
        ("path: [1]\ntrain: images/train\nnames: [a, b]", "'path' is list"),
        ("train: images/train\nnames: [a, b]\nnc: 3", "'nc' is 3, but 'names' has 2 names"),
        ("train: images/train\nnames: [a, a]", "'names' has 'a' 2 times"),
        ("train: images/train\nnames: {0: a, 0: b}", "'0' stands there twice"),
        ("train: images/train\ntrain: images/val\nnames: [a]", "'train' stands there twice"),
        ("train: images/train\nnames: [yes, no]", "the name of class 0 is bool; write it in quotes"),
        ("train: images/train\nnames: {cat: 0}", "'names' has the key 'cat'"),
        ("train: images/train\nnames: cat", "'names' is no list of names"),
        ("train: images/train\nnames: [a, b]\nkpt_shape: [17]", "'kpt_shape' must be [points, 2]"),
        (
            "train: images/train\nnames: [a, b]\nkpt_shape: [2, 3]\nflip_idx: [0, 2]",
            "'flip_idx' must hold each of 0 to 1",
        ),
        ("train: images/train\nnames: [a, b]\nkpt_shape: [9, 3]", "5 numbers, where a box and 9 points of 3 have 32"),
        ("a: &a [x, x]\ntrain: [*a, *a]\nnames: [a]", "aliases (*name) aren't read"),
        ("train: [unclosed", "can't be read as YAML"),
        ("!!python/object/apply:os.system ['true']", "can't be read as YAML"),
        ("[" * 5000, "can't be read as YAML"),
        ("just text", "holds no keys"),
        ("", "holds no keys"),
    ],
)
def test_data_yaml_that_is_wrong(tmp_path, yaml, why):
    make(tmp_path, {"train/a": "0 .5 .5 1 1", "val/b": ""}, yaml)
    with pytest.raises(InputError) as error:
        read_annotations(tmp_path / "data.yaml")
    assert why in str(error.value)
    assert "data.yaml" in str(error.value) or ".txt, line 1" in str(error.value)
    assert "\n" not in str(error.value)


def test_no_label_at_all(tmp_path):
    make(tmp_path, {"train/a": None})
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [a, b]")
    with pytest.raises(InputError, match=r"none of 1 images has a label file, '.*labels/train/a.txt' for"):
        read_annotations(tmp_path)


def test_an_image_is_measured_upright(tmp_path):
    make(tmp_path, {"train/a": "0 0.25 0.25 0.5 0.5"}, "train: images/train\nnames: [a, b]")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images/train/a.png", exif=exif)
    assert objects_of(read_annotations(tmp_path), "a").boxes.tolist() == [[0, 0, 10, 20]]


def test_files_that_do_not_pair(tmp_path):
    make(tmp_path, {"train/a": "0 .5 .5 1 1", "val/b": ""})
    (tmp_path / "labels" / "train" / "c.txt").write_text("0 .5 .5 1 1")
    annotated = read_annotations(tmp_path)
    assert codes_of(annotated.notices) == ("labels-without-image",)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "train" / "a.jpg")
    with pytest.raises(InputError, match=r"'.*labels/train/a.txt' may be of '.*a.jpg' or '.*a.png'; leave one"):
        read_annotations(tmp_path)
