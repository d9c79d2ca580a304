"""Folders of images: splits or classes, classes' order, and what lies elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from n2n_edge.data.class_names import read_class_names
from n2n_edge.data.dataset import load_data
from n2n_edge.data.folder_layout import find_layout
from n2n_edge.errors import InputError
from n2n_edge.metrics.notices import codes_of

PICTURE = Image.fromarray(np.zeros((4, 4), np.uint8))


def make(root: Path, *paths: str) -> Path:
    """Put three pictures into each folder."""
    for path in paths:
        folder = root / path
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(3):
            PICTURE.save(folder / f"{index}.png")
    return root


@pytest.mark.parametrize("other", ["train", "test", "val", "valid", "validation", "Train", "training"])
@pytest.mark.parametrize("beside", [("bus", "car"), ("bus", "car", "test", "train")])
def test_a_class_that_is_called_like_a_split(tmp_path, other, beside):
    names = sorted({other, *beside})
    layout = find_layout(make(tmp_path, *names), None)
    assert layout.class_names == tuple(names)
    assert [len(paths) for paths in layout.splits["train"].paths] == [3] * len(names)
    assert set(layout.splits) == {"train"}


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("train", "test", "test"),
        ("Train", "Test", "test"),
        ("training", "testing", "test"),
        ("TRAIN", "VALID", "validation"),
        ("training", "validation", "validation"),
        ("train", "val", "validation"),
    ],
)
def test_splits_of_classes_and_without(tmp_path, train, other, split):
    layout = find_layout(make(tmp_path / "a", f"{train}/cat", f"{train}/dog", f"{other}/cat", f"{other}/dog"), None)
    assert layout.class_names == ("cat", "dog")
    assert set(layout.splits) == {"train", split}
    layout = find_layout(make(tmp_path / "b", train, other), None)
    assert layout.class_names == ()
    assert set(layout.splits) == {"train", split}


def test_a_class_called_train_within_splits(tmp_path):
    make(tmp_path, "train/bus", "train/train", "test/bus", "test/train")
    assert find_layout(tmp_path, None).class_names == ("bus", "train")


def test_folders_without_images_beside_splits_are_passed_over(tmp_path):
    make(tmp_path, "train/a", "train/b", "test/a", "test/b")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "all.json").write_text("{}")
    layout = find_layout(tmp_path, None)
    assert set(layout.splits) == {"train", "test"}
    assert layout.passed_over["folders beside the splits"] == 1


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["test/a", "test/b"], "no train: give '.*test' itself"),
        (["val"], "no train"),
        (["train/a", "train/b", "extra/a", "extra/b"], "'train', which looks like a split, beside 'extra'"),
        (["train/a", "train/b", "bus", "car"], "looks like a split, beside 'bus'"),
        (["train/a", "train/b", "val/a", "valid/a"], "two validation splits"),
        (["train/a", "train/b", "Train/a"], "two train splits"),
        (["dataset/a", "dataset/b"], "give '.*dataset'"),
        (["train/images/a", "train/images/b"], "give '.*images'"),
        (["train/a", "train/b", "test"], "no images in its class folders"),
        (["train", "test/a"], "put images without classes there"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_what_cannot_be_told_is_refused_with_the_way_out(tmp_path, folders, words):
    with pytest.raises(InputError, match=words):
        find_layout(make(tmp_path, *folders), None)


def test_images_within_a_class_are_its_own_wherever_they_lie(tmp_path):
    make(tmp_path, "cat/indoors", "cat/outdoors/far", "dog")
    layout = find_layout(tmp_path, None)
    assert [len(paths) for paths in layout.splits["train"].paths] == [6, 3]


def test_what_lies_beside_the_classes_is_counted(tmp_path):
    make(tmp_path, "cat", "dog", ".")
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "cat" / "noise.wav").write_text("x")
    (tmp_path / "cat" / "elsewhere").symlink_to(tmp_path / "dog")
    layout = find_layout(tmp_path, None)
    found = {what: count for what, count in layout.passed_over.items() if count}
    assert found == {
        "images beside the classes": 3,
        ".csv files": 1,
        ".wav files": 1,
        "links to folders within a class": 1,
    }
    assert [len(paths) for paths in layout.splits["train"].paths] == [3, 3]


def test_a_class_that_links_to_its_own_data_is_refused(tmp_path):
    make(tmp_path, "cat", "dog")
    (tmp_path / "loop").symlink_to(".")
    with pytest.raises(InputError, match="links back"):
        find_layout(tmp_path, None)


def test_only_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds no images that can be read \(1 .heic files\)"):
        find_layout(tmp_path, None)


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    make(tmp_path, "cat", "dog")

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("n2n_edge.data.folder_layout.os.scandir", refuse)
    with pytest.raises(InputError, match=r"can't be read \(Permission denied\)"):
        load_data(str(tmp_path), input_shape=(1, 4, 4), classes=2)


NUMBERS = [str(number) for number in range(12)]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (NUMBERS, True),
        ([f"class {number}" for number in range(1, 12)], True),
        ([f"{number:02}" for number in range(12)], False),
        (["ant", "Bee", "Zebra"], False),
    ],
    ids=["numbers", "numbers within", "padded", "words"],
)
def test_an_order_that_people_would_not_expect_is_told(tmp_path, names, told):
    data = load_data(str(make(tmp_path, *names)), input_shape=(1, 4, 4), classes=len(names))
    assert data.class_names == tuple(sorted(names))
    assert ("class-order" in codes_of(data.warnings)) == told


def test_classes_in_the_order_of_a_file(tmp_path):
    make(tmp_path / "images", *NUMBERS[:-1])
    (tmp_path / "names.txt").write_text("\ufeff" + "\r\n".join(NUMBERS) + "\r\n\r\n")
    names = read_class_names(tmp_path / "names.txt")
    assert names == tuple(NUMBERS)
    layout = find_layout(tmp_path / "images", names)
    assert [len(paths) for paths in layout.splits["train"].paths] == [3] * 11 + [0]
    assert {Path(path).parent.name for path in layout.splits["train"].paths[10]} == {"10"}
    data = load_data(str(tmp_path / "images"), input_shape=(1, 4, 4), classes=12, class_names=names)
    assert data.class_names == names
    assert "class-order" not in codes_of(data.warnings)


def test_classes_of_a_file_that_do_not_fit_are_refused(tmp_path):
    make(tmp_path / "images", "a", "b")
    for names, words in ((("a", "c"), "no counterpart in classes"), (("a", "b", "c"), "3 classes.*2 outputs")):
        with pytest.raises(InputError, match=words):
            load_data(str(tmp_path / "images"), input_shape=(1, 4, 4), classes=2, class_names=names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "holds 0 lines"),
        (b"a\n", "holds 1 lines"),
        (b"a\nb\na\n", "'a' stands there twice"),
        (b"a\n\nb\n", "line 2 is empty"),
        (b"\xff\xfea\0", "isn't UTF-8"),
    ],
)
def test_a_file_of_names_that_is_none(tmp_path, text, words):
    (tmp_path / "names.txt").write_bytes(text)
    with pytest.raises(InputError, match=words):
        read_class_names(tmp_path / "names.txt")
    for path in (tmp_path / "missing.txt", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="can't be read"):
            read_class_names(path)
