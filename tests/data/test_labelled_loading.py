"""Labelled images through `load_data`: their labels lie where the loaded pixels do, and are split as they should be."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.data.labels.values import Objects
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError

WIDTH, HEIGHT = 96, 64
LEFT, TOP, RIGHT, BOTTOM = 36, 20, 60, 44


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[TOP:BOTTOM, LEFT:RIGHT] = (255, 0, 0)
    Image.fromarray(pixels).save(path)


def _yolo(folder: Path, count: int = 12, labelled: int = 12, kind: int = 0) -> Path:
    x, y = (LEFT + RIGHT) / 2 / WIDTH, (TOP + BOTTOM) / 2 / HEIGHT
    line = f"{kind} {x} {y} {(RIGHT - LEFT) / WIDTH} {(BOTTOM - TOP) / HEIGHT}\n"
    for index in range(count):
        _picture(folder / "images" / f"{index:03}.png")
        if index < labelled:
            (folder / "labels").mkdir(exist_ok=True)
            (folder / "labels" / f"{index:03}.txt").write_text(line)
    return folder


def _load(spec: Path, unlabelled: tuple[str, ...] = (), **fields: object) -> Data:
    preprocessing = Preprocessing((48, 48), **fields)  # type: ignore[arg-type]
    return load_data(
        str(spec), preprocessing=preprocessing, classes=None, object_classes=lambda: 2, unlabelled=unlabelled
    )


@pytest.mark.parametrize("resize", ["squash", "center-crop", "letterbox"])
def test_a_box_lies_where_its_pixels_do(tmp_path: Path, resize: str) -> None:
    split = _load(_yolo(tmp_path / "data"), resize=resize).test
    assert split.annotations is not None
    label = split.annotations[0]
    assert isinstance(label, Objects)
    rows, columns = np.nonzero(split.images[np.arange(1)][0][..., 0] > 128)
    seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(label.boxes[0], seen, atol=1)


def test_an_image_without_a_label_file_holds_no_object_where_others_have_one(tmp_path: Path) -> None:
    data = _load(_yolo(tmp_path / "data", count=12, labelled=6))
    sizes = [len(label) for split in (data.train, data.validation, data.test) for label in split.annotations or ()]  # type: ignore[arg-type]
    assert sorted(sizes) == [0] * 6 + [1] * 6


def test_the_digest_follows_the_outlines_of_objects(tmp_path: Path) -> None:
    root = _yolo(tmp_path / "data")
    path = root / "labels" / "003.txt"
    path.write_text("0 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6\n")
    before = _load(root).digest()
    path.write_text("0 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6 0.5 0.5\n")  # the same box around it
    assert _load(root).digest() != before


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_the_digest_follows_what_the_colours_of_masks_mean(tmp_path: Path, mode: str) -> None:
    for index in range(12):
        _picture(tmp_path / "images" / f"{index}.png")
        colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        colours[TOP:BOTTOM] = (0, 0, 200)
        (tmp_path / "masks").mkdir(exist_ok=True)
        picture = Image.fromarray(colours)
        (picture if mode == "RGB" else picture.quantize(4)).save(tmp_path / "masks" / f"{index}.png")
    digests, areas = [], []
    for names in (("sky", "road"), ("road", "sky")):
        table = "".join(f"{name}:{colour}\n" for name, colour in zip(names, ("0,0,0", "0,0,200"), strict=True))
        (tmp_path / "labelmap.txt").write_text("# label:color\n" + table)
        data = load_data(
            str(tmp_path), preprocessing=Preprocessing((48, 48)), classes=None, class_names=("road", "sky")
        )
        digests.append(data.digest())
        (mask,) = list(data.test.annotations or ())[:1]
        areas.append(np.asarray(mask.pixels))  # type: ignore[union-attr]
    assert not np.array_equal(*areas)
    assert digests[0] != digests[1]


def test_numbers_of_a_table_become_targets(tmp_path: Path) -> None:
    for index in range(12):
        _picture(tmp_path / f"{index}.png")
    rows = "".join(f"{index}.png,{index / 10}\n" for index in range(12))
    (tmp_path / "labels.csv").write_text("file,angle\n" + rows)
    data = _load(tmp_path / "labels.csv")
    parts = [split.targets for split in (data.train, data.validation, data.test)]
    values = np.sort(np.concatenate([part for part in parts if part is not None]).ravel())
    np.testing.assert_allclose(values, np.arange(12) / 10, atol=1e-6)


@pytest.mark.parametrize("streams", [False, True])
def test_unlabelled_folders_join_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: bool) -> None:
    if streams:
        monkeypatch.setattr("n2n_edge.data.source_labelled.AT_ONCE_BYTES", 1)
        monkeypatch.setattr("n2n_edge.data.source_folder.AT_ONCE_BYTES", 1)
    root = _yolo(tmp_path / "data")
    for index in range(3):
        _picture(tmp_path / "more" / f"{index}.png")
    alone, joined = _load(root), _load(root, (str(tmp_path / "more"),))
    assert joined.streams == streams
    held_out = len(joined.validation) - len(alone.validation)  # more validate where there are others to learn from
    assert (len(joined.train), len(joined.test)) == (len(alone.train) + 3 - held_out, len(alone.test))
    assert held_out > 0
    assert joined.train.annotations is not None
    assert [each is None for each in joined.train.annotations][-3:] == [True] * 3
    assert joined.digest() != alone.digest()


def test_the_digest_is_stable_and_follows_the_labels(tmp_path: Path) -> None:
    root = _yolo(tmp_path / "data")
    before = _load(root).digest()
    assert _load(root).digest() == before
    path = root / "labels" / "003.txt"
    path.write_text(path.read_text().replace("0 ", "1 ", 1))
    assert _load(root).digest() != before


def test_annotations_survive_pickling(tmp_path: Path) -> None:
    annotations = _load(_yolo(tmp_path / "data")).train.annotations
    copy = pickle.loads(pickle.dumps(annotations))
    np.testing.assert_array_equal(copy[0].boxes, annotations[0].boxes)  # type: ignore[index, union-attr]


def test_a_class_above_the_teachers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class"):
        _load(_yolo(tmp_path / "data", kind=2))


def test_a_table_beside_classes_leaves_them_classes(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for index in range(6):
            _picture(tmp_path / kind / f"{index}.png")
    (tmp_path / "list.csv").write_text("file,note\n1.png,x\n")
    (tmp_path / "list.json").write_text(json.dumps({"note": 1}))
    data = load_data(str(tmp_path), input_shape=(3, 48, 48), classes=2)
    assert data.class_names == ("cat", "dog")
