"""Masks beside images: grey, palettes, colours by a table, and what is wrong with them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from n2n_edge.data.dataset import load_data
from n2n_edge.data.labels.reading import read_annotations
from n2n_edge.data.labels.values import Mask, MaskFile
from n2n_edge.errors import InputError
from n2n_edge.metrics.notices import codes_of

VALUES = np.array([[0, 1, 2], [2, 2, 255]], np.uint8)
COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 255: (9, 9, 9)}


def picture(values, mode="L"):
    if mode == "P":
        image = Image.fromarray(values)
        image.putpalette([part for index in range(256) for part in COLOURS.get(index, (index, 0, 0))])
        return image
    if mode in ("RGB", "RGBA"):
        return Image.fromarray(
            np.array([[COLOURS[value] for value in row] for row in values.tolist()], np.uint8)
        ).convert(mode)
    return Image.fromarray(values.astype(np.uint16) if mode == "I;16" else values)


def make(root: Path, masks: dict[str, Image.Image], names=("images", "masks")) -> Path:
    for name, mask in masks.items():
        image, path = (root / folder / f"{name}.png" for folder in names)
        for each in (image, path):
            each.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(image)
        mask.save(path)
    return root


def pixels(label):
    assert isinstance(label, MaskFile)
    mask = pickle.loads(pickle.dumps(label)).read()
    assert isinstance(mask, Mask)
    return mask.pixels


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
@pytest.mark.parametrize("names", [("images", "masks"), ("JPEGImages", "SegmentationClass"), ("images", "labels")])
def test_values_are_classes(tmp_path, mode, names):
    annotated = read_annotations(make(tmp_path, {"a": picture(VALUES, mode)}, names))
    np.testing.assert_array_equal(pixels(annotated.labels[0]), VALUES)
    assert annotated.names == ("0", "1", "2")
    assert annotated.notices == ()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labelmap.txt", "# label:color_rgb:parts:actions\nsky:0,0,0::\nroad:128,0,0::\ncar:0,128,0::\nvoid:9,9,9::\n"),
        ("class_dict.csv", "name,r,g,b\nsky,0,0,0\nroad,128,0,0\ncar,0,128,0\nVoid, 9, 9, 9\n"),
    ],
)
def test_colours_by_a_table(tmp_path, mode, name, text):
    make(tmp_path, {"a": picture(VALUES, mode)})
    (tmp_path / name).write_text(text)
    annotated = read_annotations(tmp_path)
    assert annotated.names == ("sky", "road", "car")
    np.testing.assert_array_equal(pixels(annotated.labels[0]), VALUES)
    again = read_annotations(tmp_path, classes=["car", "road", "sky", "bus"])
    np.testing.assert_array_equal(pixels(again.labels[0]), [[2, 1, 0], [0, 0, 255]])


def test_black_and_white(tmp_path):
    white = Image.fromarray(np.array([[0, 255, 255], [0, 0, 0]], np.uint8))
    annotated = read_annotations(make(tmp_path, {"a": white, "b": Image.new("1", (3, 2))}))
    assert pixels(annotated.labels[0]).tolist() == [[0, 1, 1], [0, 0, 0]]
    assert annotated.names == ("0", "1")
    assert codes_of(annotated.notices) == ("binary-masks",)


def test_an_image_without_a_mask_is_unlabelled(tmp_path):
    make(tmp_path, {"a": picture(VALUES), "b": picture(VALUES)})
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a_mask.png")
    (tmp_path / "masks" / "b.png").unlink()
    annotated = read_annotations(tmp_path)
    assert [label is None for label in annotated.labels] == [False, True]


@pytest.mark.parametrize("pattern", [("images/{}", "masks/{}"), ("{}/images", "{}/masks")])
def test_splits(tmp_path, pattern):
    for split in ("train", "val"):
        make(tmp_path, {split: picture(VALUES)}, tuple(each.format(split) for each in pattern))
    assert sorted(read_annotations(tmp_path).splits) == ["train", "validation"]


def test_classes_by_name_and_number(tmp_path):
    make(tmp_path, {"a": picture(VALUES)})
    assert read_annotations(tmp_path, classes=21).names[20] == "20"
    assert read_annotations(tmp_path, classes=["x", "y", "z"]).names == ("x", "y", "z")
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    assert read_annotations(tmp_path).names == ("sky", "road", "car")
    assert codes_of(read_annotations(tmp_path, classes=21).notices) == ("class-count",)
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(InputError, match=r"mask '.*a.png' holds class 2, but 2 classes are named, 0 to 1"):
        read_annotations(tmp_path)


def test_folders_of_any_name(tmp_path):
    make(tmp_path, {"a": picture(VALUES)}, ("photos", "truth"))
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    annotated = read_annotations(tmp_path / "truth", tmp_path / "photos")
    np.testing.assert_array_equal(pixels(annotated.labels[0]), VALUES)
    assert annotated.names == ("sky", "road", "car")


def test_a_palette_with_transparency(tmp_path):
    make(tmp_path, {"a": Image.new("L", (3, 2))})
    picture(VALUES, "P").save(tmp_path / "masks" / "a.png", transparency=b"\x00\x80")
    (tmp_path / "labelmap.txt").write_text("sky:0,0,0\nroad:128,0,0\ncar:0,128,0\nvoid:9,9,9")
    np.testing.assert_array_equal(pixels(read_annotations(tmp_path).labels[0]), VALUES)


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (Image.new("L", (4, 2)), "has 4x2 pixels, its image '.*a.png' has 3x2"),
        (picture(VALUES, "RGB"), "is in colour, and no table says which colour is which class"),
        (picture(VALUES + np.uint8(5)), "holds class 7, but the teacher has 3 classes, 0 to 2"),
        (Image.fromarray(np.full((2, 3), 300, np.uint16)), "holds the value 300"),
    ],
)
def test_masks_that_are_wrong(tmp_path, mask, why):
    with pytest.raises(InputError, match=rf"^mask '.*masks/a.png' {why}"):
        read_annotations(make(tmp_path, {"a": mask}), classes=3)


def test_masks_are_not_held_against_the_classes_of_a_detector(tmp_path):
    folder = make(tmp_path, {name: picture(VALUES) for name in "abc"})
    data = load_data(str(folder), input_shape=(3, 2, 3), classes=None, may_be_values=True, object_classes=lambda: 1)
    assert len(data.train) + len(data.validation) + len(data.test) == 3


def test_a_colour_that_is_not_in_the_table(tmp_path):
    make(tmp_path, {"a": picture(VALUES, "RGB")})
    (tmp_path / "labelmap.txt").write_text("sky:0,0,0\nroad:128,0,0\n")
    with pytest.raises(InputError, match=r"a.png' holds the colour 0,128,0, which isn't in the table"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sky:0,0,0\nroad", "line 2: 'road' isn't a name and a colour"),
        ("sky:0,0,256", "line 1: 'sky:0,0,256' isn't a name and a colour"),
        ("sky:0,0,0\nroad:0,0,0", "line 2: 'road' or its colour stands there twice"),
        ("void:0,0,0", "names 0 classes"),
    ],
)
def test_tables_that_are_wrong(tmp_path, text, why):
    make(tmp_path, {"a": picture(VALUES, "RGB")})
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(InputError, match=why):
        read_annotations(tmp_path)


def test_files_that_do_not_fit(tmp_path):
    make(tmp_path, {"a": picture(VALUES)})
    Image.new("RGB", (3, 2)).save(tmp_path / "masks" / "a.jpg")
    with pytest.raises(InputError, match=r"masks '.*a.jpg' and '.*a.png' are called alike"):
        read_annotations(tmp_path)
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(InputError, match=r"a.jpg' is a JPEG, whose values aren't exact; save masks as PNG"):
        read_annotations(tmp_path)
    (tmp_path / "masks" / "a.jpg").rename(tmp_path / "masks" / "b.jpg")
    with pytest.raises(InputError, match=r"1 of 1 masks have no image in '.*images', the first: '.*b.jpg'"):
        read_annotations(tmp_path)


def test_a_file_that_is_no_picture(tmp_path):
    make(tmp_path, {"a": picture(VALUES)})
    (tmp_path / "masks" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"mask '.*a.png' can't be read"):
        read_annotations(tmp_path)


def test_a_mask_that_changes_after_it_was_looked_at(tmp_path):
    label = read_annotations(make(tmp_path, {"a": picture(VALUES)})).labels[0]
    Image.new("L", (9, 9)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(ValueError, match="9x9 pixels now"):
        label.read()
