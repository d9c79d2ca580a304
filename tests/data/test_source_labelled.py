"""Labels of all formats through load_data: splits, unlabelled images, and where boxes come to lie."""

import csv
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from n2n_edge.data import source_folder, source_labelled
from n2n_edge.data.annotations import Annotations
from n2n_edge.data.dataset import Data, load_data
from n2n_edge.data.labels.values import Mask, Objects, Points
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.streaming import Pictures
from n2n_edge.errors import InputError
from n2n_edge.tasks.choice import choose_task, metric_name
from tests.training.small import small_cnn

WIDTH, HEIGHT = 120, 80
BOX = (30.0, 20.0, 70.0, 50.0)


def picture(path: Path, *, box: tuple[float, float, float, float] | None = BOX) -> Path:
    """Write a grey picture with a red box."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (60, 60, 60))
    if box is not None:
        left, top, right, bottom = box
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=(250, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def yolo(folder: Path, *, images: int = 12, labelled: int | None = None, splits: tuple[str, ...] = ("train",)) -> Path:
    """Write images, labels and a data.yaml; a file without labels lies there for those beyond `labelled`."""
    for split in splits:
        for index in range(images):
            picture(folder / "images" / split / f"{index:02}.png")
            text = folder / "labels" / split / f"{index:02}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            left, top, right, bottom = BOX
            row = [
                (left + right) / 2 / WIDTH,
                (top + bottom) / 2 / HEIGHT,
                (right - left) / WIDTH,
                (bottom - top) / HEIGHT,
            ]
            if labelled is None or index < labelled:
                text.write_text(" ".join([str(index % 2), *(f"{each:.6f}" for each in row)]) + "\n")
    lines = [f"path: {folder}", *(f"{split}: images/{split}" for split in splits), "names: [cat, dog]"]
    (folder / "data.yaml").write_text("\n".join(lines) + "\n")
    return folder / "data.yaml"


def loaded(spec: Path, preprocessing: Preprocessing | None = None, *, unlabelled: tuple[str, ...] = ()) -> Data:
    return load_data(
        str(spec), preprocessing=preprocessing or Preprocessing((40, 40), resize="squash"), classes=None,
        may_be_values=True, unlabelled=unlabelled,
    )  # fmt: skip


RESIZES = [
    Preprocessing((40, 60), resize="squash"),
    Preprocessing((64, 64), resize="letterbox"),
    Preprocessing((64, 64), resize="letterbox", pad_position="top-left"),
    Preprocessing((50, 50)),
    Preprocessing((40, 40), crop_ratio=0.8),
]


@pytest.mark.parametrize(
    "preprocessing", RESIZES, ids=lambda each: f"{each.resize}-{each.pad_position}-{each.crop_ratio}"
)
def test_a_box_lies_where_its_pixels_do(tmp_path: Path, preprocessing: Preprocessing) -> None:
    data = loaded(yolo(tmp_path), preprocessing)
    assert data.train.annotations is not None
    label, pixels = data.train.annotations[0], np.asarray(data.train.images[0])
    assert isinstance(label, Objects)
    red = (pixels[..., 0] > 155) & (pixels[..., 1] < 60)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    seen = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert label.boxes[0] == pytest.approx(seen, abs=1.0)


def test_splits_are_kept_and_those_that_lack_are_cut(tmp_path: Path) -> None:
    whole = loaded(yolo(tmp_path / "a", splits=("train", "val", "test"), images=5))
    assert [len(part) for part in (whole.train, whole.validation, whole.test)] == [5, 5, 5]
    cut = loaded(yolo(tmp_path / "b", images=20))
    assert [len(part) for part in (cut.train, cut.validation, cut.test)] == [16, 2, 2]
    assert cut.class_names == ("cat", "dog")
    assert "20 objects of 2 classes" in cut.counts
    alone = loaded(yolo(tmp_path / "c", splits=("train", "val"), images=10))
    assert [len(part) for part in (alone.train, alone.validation, alone.test)] == [9, 1, 10]


@pytest.mark.parametrize("at_once", [10**9, 0], ids=["arrays", "streams"])
def test_unlabelled_folders_join_the_training_images_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    for module in (source_folder, source_labelled):
        monkeypatch.setattr(module, "AT_ONCE_BYTES", at_once)
    for index in range(4):
        picture(tmp_path / "more" / "inner" / f"{index}.png", box=None)
    data = loaded(yolo(tmp_path / "few", images=10), unlabelled=(str(tmp_path / "more"),))
    assert isinstance(data.train.images, Pictures) == (at_once == 0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [7 + 4, 2, 1]
    annotations = data.train.annotations
    assert isinstance(annotations, Annotations)
    assert annotations.labelled.tolist() == [True] * 7 + [False] * 4
    assert annotations[10] is None
    images = np.asarray(data.train.images[np.arange(11)])
    assert (images[:7, ..., 0].max(axis=(1, 2)) > 200).all()
    assert (images[7:] < 70).all()


def test_unlabelled_images_of_classes_have_no_class(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for index in range(10):
            picture(tmp_path / "classes" / kind / f"{index}.png")
    picture(tmp_path / "more" / "a.png")
    data = load_data(
        str(tmp_path / "classes"), preprocessing=Preprocessing((16, 16)), classes=2, unlabelled=[str(tmp_path / "more")]
    )
    assert data.train.labels is not None
    assert data.train.labels[-1] == -1
    assert (data.train.labels[:-1] >= 0).all()
    with pytest.raises(InputError, match=r"unlabelled.*no such folder"):
        loaded(yolo(tmp_path / "y"), unlabelled=(str(tmp_path / "nowhere"),))


@pytest.mark.parametrize("kind", ["npz", "csv", "decisions", "boxes"])
def test_unlabelled_folders_go_with_numbers_and_arrays(tmp_path: Path, kind: str) -> None:
    random, size = np.random.default_rng(0), 2 if kind == "csv" else 3
    values = random.uniform(0, 9, (20, size)).astype(np.float32)
    more = tmp_path / "more"
    for index in range(20):
        picture(tmp_path / "own" / f"{index}.png")
        picture(more / f"{index}.png", box=None) if index < 5 else None
    images = random.integers(0, 255, (20, 16, 16, 3), dtype=np.uint8)
    spec = tmp_path / "data.npz"
    if kind == "csv":
        spec = tmp_path / "own" / "labels.csv"
        rows = "".join(f"{index}.png,{a},{b}\n" for index, (a, b) in enumerate(values.tolist()))
        spec.write_text("file,width,depth\n" + rows)
    elif kind == "boxes":
        np.savez(spec, images=images, boxes=[(index, 1, 2, 9, 10, index % 3) for index in range(20)])
    else:
        np.savez(spec, images=images, labels=values if kind == "npz" else np.float32([[0, 1, 1], [1, 1, 0]] * 10))
    data = load_data(
        str(spec), preprocessing=Preprocessing((16, 16)), classes=None, may_be_values=True, unlabelled=[str(more)]
    )
    assert [len(part) for part in (data.train, data.validation, data.test)] == [13 + 5, 5, 2]
    if kind == "boxes":
        assert [each is None for each in data.train.annotations or ()] == [False] * 13 + [True] * 5
        return
    assert data.train.targets is not None
    assert np.isnan(data.train.targets[13:]).all()
    for part in (data.train.targets[:13], data.validation.targets, data.test.targets):
        assert part is not None
        assert np.isfinite(part).all()
    network = small_cnn(width=4, channels=3, classes=size, end="Sigmoid" if kind == "decisions" else "")
    data, choice = choose_task(network, data, None)
    assert choice.task.name == ("multilabel" if kind == "decisions" else "regression")
    assert metric_name(network, data) == ("map" if kind == "decisions" else "r2")
    assert f", {size} numbers each" in data.counts or kind == "csv"
    assert data.digest() != replace(data, train=data.train.take(np.arange(16))).digest()


def test_points_and_numbers_of_a_table(tmp_path: Path) -> None:
    for name, header, row in (
        ("points", ["file", "nose_x", "nose_y", "tail_x", "tail_y"], [30, 20, 70, 50]),
        ("numbers", ["file", "width", "depth"], [1.5, 2.5]),
    ):
        folder = tmp_path / name
        with (picture(folder / "0.png").parent / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for index in range(10):
                picture(folder / f"{index}.png")
                writer.writerow([f"{index}.png", *row])
    data = loaded(tmp_path / "points" / "labels.csv", Preprocessing((40, 60), resize="squash"))
    assert data.test.annotations is not None
    label = data.test.annotations[0]
    assert isinstance(label, Points)
    assert label.points[:, :2].tolist() == [[15.0, 10.0], [35.0, 25.0]]
    numbers = loaded(tmp_path / "numbers")
    assert numbers.test.annotations is None
    assert numbers.test.targets is not None
    assert numbers.test.targets[0].tolist() == [1.5, 2.5]


def test_masks_are_as_large_as_the_input(tmp_path: Path) -> None:
    for index in range(10):
        picture(tmp_path / "images" / f"{index}.png")
        mask = Image.new("L", (WIDTH, HEIGHT))
        ImageDraw.Draw(mask).rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), fill=1)
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{index}.png")
    data = loaded(tmp_path, Preprocessing((40, 60), resize="squash"))
    assert data.test.annotations is not None
    label, pixels = data.test.annotations[0], np.asarray(data.test.images[0])
    assert isinstance(label, Mask)
    assert label.pixels.shape == (40, 60)
    assert ((pixels[..., 0] > 155) != (label.pixels == 1)).mean() < 0.02


def test_a_folder_of_classes_stays_one_beside_a_table_or_a_document(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for index in range(3):
            picture(tmp_path / kind / f"{index}.png")
    assert not source_labelled.holds_labels(tmp_path)
    (tmp_path / "notes.csv").write_text("file,price\ncat/0.png,3\n")
    (tmp_path / "notes.json").write_text(json.dumps({"made": "today"}))
    assert not source_labelled.holds_labels(tmp_path)
    assert source_labelled.holds_labels(yolo(tmp_path / "y"))
    assert source_labelled.holds_labels(tmp_path / "y")


def test_a_digest_knows_labels_and_a_task_s_data_survive_pickling(tmp_path: Path) -> None:
    first = loaded(yolo(tmp_path))
    assert loaded(tmp_path / "data.yaml").digest() == first.digest()
    text = tmp_path / "labels" / "train" / "03.txt"
    text.write_text(text.read_text().replace("1 0.4", "0 0.4"))
    assert loaded(tmp_path / "data.yaml").digest() != first.digest()
    again = pickle.loads(pickle.dumps(first.train.annotations))
    assert np.array_equal(again[3].boxes, first.train.annotations[3].boxes)  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda folder: (folder / "labels/train/01.txt").write_text("7 0.5 0.5 0.2 0.2\n"), "class 7"),
        (lambda folder: (folder / "labels/train/01.txt").write_text("0 0.5 0.5 2.2 0.2\n"), "01.txt"),
        (lambda folder: (folder / "labels/train/01.txt").write_text("0 0.5 0.5\n"), "01.txt"),
        (lambda folder: (folder / "data.yaml").write_text("names: [cat]\n"), "data.yaml"),
    ],
    ids=["class", "outside", "numbers", "keys"],
)
def test_labels_that_can_t_be_are_refused_in_one_line(tmp_path: Path, spoil: object, text: str) -> None:
    yolo(tmp_path)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError, match=text) as error:
        loaded(tmp_path / "data.yaml")
    assert "\n" not in str(error.value)


def test_classes_beyond_the_teacher_s_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the teacher has 1 classes"):
        load_data(str(yolo(tmp_path)), preprocessing=Preprocessing((40, 40)), classes=None, object_classes=lambda: 1)


def test_masks_of_another_size_than_their_image_are_refused(tmp_path: Path) -> None:
    for index in range(6):
        picture(tmp_path / "images" / f"{index}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.new("L", (WIDTH // 3, HEIGHT)).save(tmp_path / "masks" / f"{index}.png")
    with pytest.raises(InputError, match="mask"):
        loaded(tmp_path)
