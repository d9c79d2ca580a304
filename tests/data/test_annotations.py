"""Labels of any format, told by what lies there; and real data."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from n2n_edge.data.labels.reading import read_annotations
from n2n_edge.data.labels.values import NOT_LABELLED
from n2n_edge.errors import InputError
from n2n_edge.metrics.notices import codes_of


def fill(root: Path, *names: str) -> Path:
    """Put pictures, and files with nothing in them, into a folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("L", (4, 4)).save(path)
        else:
            path.write_text("")
    return root


@pytest.mark.parametrize("names", [(), ("a.png",), ("images/a.png",), ("notes.txt",), ("settings.yaml",)])
def test_nothing_of_the_kind(tmp_path, names):
    with pytest.raises(InputError, match=r"no labels in '.*': looked for a data.yaml or .*; give one of these"):
        read_annotations(fill(tmp_path, *names))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("images/a.png", "masks/a.png", "labels.csv"), r"masks/ \(masks\), and labels.csv \(CSV\)"),
        (("images/a.png", "labels/a.txt", "a.json"), r"labels/\*.txt \(YOLO\), and a.json \(COCO\)"),
        (
            ("JPEGImages/a.png", "SegmentationClass/a.png", "Annotations/a.xml"),
            r"Annotations/\*.xml \(Pascal VOC\), and",
        ),
    ],
)
def test_more_than_one_kind(tmp_path, names, why):
    with pytest.raises(InputError, match=why):
        read_annotations(fill(tmp_path, *names))


def test_several_tables(tmp_path):
    with pytest.raises(InputError, match=r"holds several tables: a.csv, b.csv; give one"):
        read_annotations(fill(tmp_path, "a.csv", "b.csv"))


def test_a_folder_within_a_folder(tmp_path):
    assert len(read_annotations(fill(tmp_path, "one/two/images/a.png", "one/two/masks/a.png"))) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nothing", "there is nothing; give a data.yaml"),
        ("nul\0", "there is nothing"),
        ("a.txt", "may be the labels of one image: give the folder"),
        ("a.xml", "may be the labels of one image: give the folder"),
        ("a.zip", "no labels '.*a.zip': give a data.yaml"),
    ],
)
def test_paths_that_are_no_labels(tmp_path, name, why):
    fill(tmp_path, "a.txt", "a.xml", "a.zip")
    with pytest.raises(InputError, match=why):
        read_annotations(tmp_path / name)


def test_images_that_are_no_folder(tmp_path):
    with pytest.raises(InputError, match="is no folder; give the one that the images lie in"):
        read_annotations(fill(tmp_path, "masks/a.png"), images=tmp_path / "nothing")


def test_a_pipe_is_not_waited_for(tmp_path):
    fill(tmp_path, "images/a.png", "masks/a.png")
    os.mkfifo(tmp_path / "images" / "b.png")
    os.mkfifo(tmp_path / "masks" / "b.png")
    assert len(read_annotations(tmp_path)) == 1
    os.mkfifo(tmp_path / "data.yaml")
    assert len(read_annotations(tmp_path)) == 1


@pytest.mark.parametrize("broken", [1, 3])
def test_images_that_cannot_be_read(tmp_path, broken):
    fill(tmp_path, *(f"{kind}/{index}.png" for kind in ("images", "masks") for index in range(200)))
    for index in range(broken):
        (tmp_path / "images" / f"{index}.png").write_bytes(b"no picture")
    if broken > 2:
        with pytest.raises(InputError, match=r"image '.*images/0.png' can't be read .*; so are 3 of 200 images"):
            read_annotations(tmp_path)
    else:
        annotated = read_annotations(tmp_path)
        assert len(annotated) == 199
        assert codes_of(annotated.notices) == ("unreadable-images",)


@pytest.fixture(scope="module")
def unpacked(shared_data, tmp_path_factory):
    """Unpack real data, each once."""
    folder = tmp_path_factory.mktemp("data")

    def unpack(name: str) -> Path:
        target = folder / name.split(".")[0]
        if not (shared_data / name).is_file():
            pytest.skip(f"needs the shared {name}")
        if not target.is_dir():
            with tarfile.open(shared_data / name) as archive:
                archive.extractall(folder, filter="data")
        return target

    return unpack


def test_coco128(unpacked):
    folder = unpacked("coco128.tar")
    boxes = read_annotations(folder / "object_detection" / "config.yaml", folder / "images", classes=80)
    assert boxes.summary == "YOLO: 128 training, 64 validation images; 1,390 objects of 80 classes"
    outlines = read_annotations(folder / "instance_segmentation" / "config.yaml", folder / "images", classes=80)
    assert outlines.summary.endswith("1,109 objects of 80 classes, 1,109 with outlines")
    assert outlines.names == boxes.names
    # the same objects, labelled twice: most outlines have the box of one of their class
    agree = [
        abs(box - other.boxes[other.classes == kind]).max(axis=1).min(initial=99) < 3
        for label, other in zip(outlines.labels, boxes.labels, strict=True)
        for box, kind in zip(label.boxes, label.classes, strict=True)
    ]
    assert np.mean(agree) > 0.9


def test_bccd(unpacked):
    annotated = read_annotations(unpacked("bccd.tar.xz"), classes=3)
    assert annotated.summary == "Pascal VOC: 205 training, 87 validation, 72 test images; 4,888 objects of 3 classes"
    assert annotated.names == ("Platelets", "RBC", "WBC")


def test_human_seg(unpacked):
    annotated = read_annotations(unpacked("human-seg.tar.xz"), classes=2)
    assert annotated.summary == "image and mask pairs: 290 unsplit images; masks of 2 classes"
    pixels = annotated.labels[0].read().pixels
    assert set(np.unique(pixels)) == {0, 1}


def test_lsp400(unpacked):
    annotated = read_annotations(unpacked("lsp400.tar.xz"))
    assert annotated.summary == "CSV of points: 400 unsplit images; 14 points each"
    assert annotated.flip_index == (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13)
    visible = np.mean([(label.points[:, 2] != NOT_LABELLED).mean() for label in annotated.labels])
    assert 0.8 < visible < 1
