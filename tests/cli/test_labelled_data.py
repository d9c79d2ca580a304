"""Labels of objects, pixels and points through whole commands: what is taken, and the one line where it can't be."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.networks import SIDE, detector, keypoint_network, segmenter

Call = Callable[..., tuple[int, str, str]]
PLAIN = ("--mean", 0, "--std", 1)
COUNT = 40


def own(folder: Path, label: str) -> None:
    """Write a module whose function gives images with the label of this expression."""
    (folder / "own_labels.py").write_text(
        "import numpy as np\n"
        "def item(k):\n"
        f"    image = np.zeros(({SIDE}, 48, 3), np.uint8)\n"
        "    image[8:24, 4 + k % 8 : 20 + k % 8] = 50 + 60 * (k % 3)\n"
        f"    return image, {label}\n"
        f"def load(): return [item(k) for k in range({COUNT})]\n"
    )


LABELS = {
    "boxes": '{"boxes": [(4 + k % 8, 8, 20 + k % 8, 24)], "labels": [k % 3]}',
    "masks": '{"mask": (image[..., 0] > 0) * (1 + k % 2)}',
    "points": '{"points": [(4 + k % 8, 8), (20 + k % 8, 24)]}',
}
NETWORKS = {"boxes": detector, "masks": segmenter, "points": keypoint_network}
METRICS = {"boxes": "map", "masks": "miou", "points": "oks"}


@pytest.fixture(autouse=True)
def _own_modules_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "own_labels", raising=False)
    monkeypatch.setattr("sys.dont_write_bytecode", True)


@pytest.mark.parametrize("kind", list(LABELS))
def test_gate_scores_by_what_a_function_gives(call: Call, tmp_path: Path, kind: str) -> None:
    own(tmp_path, LABELS[kind])
    model = NETWORKS[kind](tmp_path / "model.onnx")
    words = ("--no-config", "--data", "own_labels:load", "--min-score", 0.9999, *PLAIN, "--json")
    code, out, err = call("gate", model, *words)
    assert code == 1, err
    (check,) = json.loads(out)["budgets"]
    assert check["metric"] == METRICS[kind]


@pytest.mark.slow
def test_compress_learns_from_the_boxes_of_a_function(call: Call, tmp_path: Path) -> None:
    own(tmp_path, LABELS["boxes"])
    model = detector(tmp_path / "model.onnx")
    limits = ("--max-params", 1300, "--effort", "quick", "--candidates", 1, "--epochs", 1, "--device", "cpu")
    code, _, err = call("compress", model, "--data", "own_labels:load", *limits, *PLAIN, "--out", "run")
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["task"]["name"] == "detection"
    assert report["difference"]["unit"] == "points"
    assert report["precision_recall"]["against"] == "labels"
    assert report["examples"]["images"][0]["labels"]["boxes"]


def pictures(folder: Path, count: int = COUNT) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{place:02}.png" for place in range(count)]
    for place, path in enumerate(paths):
        pixels = np.zeros((SIDE, 48, 3), np.uint8)
        pixels[8:24, 4 + place % 8 : 20 + place % 8] = 50 + 60 * (place % 3)
        Image.fromarray(pixels).save(path)
    return paths


def yolo(folder: Path, row: str = "0 0.5 0.5 0.2 0.4", yaml: str = "train: images\nnames: [a, b, c]\n") -> str:
    (folder / "labels").mkdir()
    for place, path in enumerate(pictures(folder / "images")):
        good = f"{place % 3} 0.5 0.5 0.2 0.4"
        (folder / "labels" / f"{path.stem}.txt").write_text(row if place == 7 else good)
    (folder / "data.yaml").write_text(yaml)
    return "data.yaml"


def coco(folder: Path, box: list[float] | None = None, category: int = 1, count: int = 3) -> str:
    paths = pictures(folder / "images")
    images = [{"id": k, "file_name": path.name, "width": 48, "height": SIDE} for k, path in enumerate(paths)]
    rows = [{"id": k, "image_id": k, "category_id": 1, "bbox": [4, 8, 16, 16], "iscrowd": 0, "area": 256}
            for k in range(COUNT)]  # fmt: skip
    rows[7] |= {"bbox": box or [4, 8, 16, 16], "category_id": category}
    kinds = [{"id": k + 1, "name": f"kind{k}"} for k in range(count)]
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": kinds}))
    return "labels.json"


def voc(folder: Path, box: tuple[int, int, int, int]) -> str:
    (folder / "voc" / "Annotations").mkdir(parents=True)
    for place, path in enumerate(pictures(folder / "voc" / "JPEGImages")):
        left, top, right, bottom = box if place == 7 else (4, 8, 20, 24)
        (folder / "voc" / "Annotations" / f"{path.stem}.xml").write_text(
            f"<annotation><filename>{path.name}</filename><size><width>48</width><height>{SIDE}</height>"
            f"<depth>3</depth></size><object><name>{'abc'[place % 3]}</name><bndbox><xmin>{left}</xmin>"
            f"<ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object></annotation>"
        )
    return "voc"


def masks(folder: Path, value: int = 1, size: tuple[int, int] = (SIDE, 48)) -> str:
    (folder / "seg" / "masks").mkdir(parents=True)
    for place, path in enumerate(pictures(folder / "seg" / "images")):
        values = np.zeros(size if place == 7 else (SIDE, 48), np.uint8)
        values[8:24, 4:20] = value if place == 7 else 1 + place % 2
        Image.fromarray(values).save(folder / "seg" / "masks" / path.name)
    return "seg"


def table(folder: Path, header: str, row: str) -> str:
    paths = pictures(folder / "images")
    (folder / "labels.csv").write_text("\n".join([header, *(f"images/{path.name},{row}" for path in paths)]) + "\n")
    return "labels.csv"


def from_code(label: str) -> Callable[[Path], str]:
    def spec(folder: Path) -> str:
        own(folder, label)
        return "own_labels:load"

    return spec


Maker = Callable[[Path], Path]
REFUSED: dict[str, tuple[Maker, Callable[[Path], str], str]] = {
    # wrong labels
    "a row that is no number": (detector, lambda f: yolo(f, "0 0.5 x 0.2 0.4"), "07.txt, line 1: 'x' is no number"),
    "a row that is too short": (detector, lambda f: yolo(f, "0 0.5 0.5 0.2"), "07.txt, line 1"),
    "an inverted box": (detector, lambda f: voc(f, (20, 8, 4, 24)), "07.xml"),
    "masks for a detector": (detector, masks, "the labels are masks, but the model is taken for detection"),
    "boxes for a segmenter": (segmenter, yolo, "the labels are boxes, but the model is taken for segmentation"),
    "boxes for a keypoint network": (keypoint_network, yolo, "the labels are boxes, but the model is taken for"),
    "other points than the network gives": (
        keypoint_network, lambda f: table(f, "file,a_x,a_y,b_x,b_y,c_x,c_y", "4,8,20,24,9,9"),
        "the labels are 3 points an image, but",
    ),
    "a dict of other keys": (detector, from_code('{"bbox": [1, 2, 3, 4]}'), "item 0 of data 'own_labels:load'"),
    # boxes outside the image
    "a YOLO box outside": (detector, lambda f: yolo(f, "0 4.5 0.5 0.2 0.4"), "07.txt, line 1"),
    "a COCO box outside": (detector, lambda f: coco(f, [400, 8, 16, 16]), "lies far outside its image of 48x32"),
    "a VOC box outside": (detector, lambda f: voc(f, (400, 8, 420, 24)), "lies far outside its image of 48x32"),
    "a box of a function outside": (
        detector, from_code('{"boxes": [(400, 8, 420, 24)], "labels": [0]}'), "lies far outside its image of 48x32",
    ),
    # class ids above the teacher's
    "a YOLO class too high": (
        detector, lambda f: yolo(f, "3 0.5 0.5 0.2 0.4", "train: images\nnames: [a, b, c, d]\n"),
        "07.txt, line 1: class 3 ('d'), but the teacher has 3 classes, 0 to 2",
    ),
    "a YOLO class without a name": (detector, lambda f: yolo(f, "3 0.5 0.5 0.2 0.4"), "there is no class 3"),
    "a COCO category too high": (detector, lambda f: coco(f, category=4, count=4), "but the teacher has 3 classes"),
    "a class of a function too high": (
        detector, from_code('{"boxes": [(4, 8, 20, 24)], "labels": [3]}'), "class 3, but the teacher has 3 classes",
    ),
    "a mask's class too high": (segmenter, lambda f: masks(f, 3), "07.png holds class 3, but output 'output'"),
    "a class of a function's mask too high": (
        segmenter, from_code('{"mask": np.full(image.shape[:2], k % 4)}'),
        "of data 'own_labels:load' holds class 3, but output",
    ),
    # mask sizes that differ
    "a mask of another size": (segmenter, lambda f: masks(f, 1, (30, 40)), "07.png' has 40x30 pixels, its image"),
    "a function's mask of another size": (
        segmenter, from_code('{"mask": np.ones((30, 40), int)}'),
        "a mask of shape (30, 40), its image is 32 high and 48",
    ),
    # keys that a data.yaml lacks
    "no names": (detector, lambda f: yolo(f, yaml="train: images\n"), "data.yaml: has no 'names'"),
    "no train and no val": (
        detector, lambda f: yolo(f, yaml="names: [a, b, c]\n"), "data.yaml: has no 'train' and no 'val'",
    ),
    "a folder that isn't there": (
        detector, lambda f: yolo(f, yaml="train: nowhere\nnames: [a, b, c]\n"), "nowhere",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "case"),
    [
        *(("gate", case) for case in REFUSED),
        *(  # both read labels by the same way: a few tell that `compress` does before it begins
            pytest.param("compress", case, marks=[pytest.mark.slow] if number % 5 else [])
            for number, case in enumerate(REFUSED)
        ),
    ],
)
def test_wrong_labels_are_one_line_before_anything_is_begun(
    call: Call, tmp_path: Path, command: str, case: str
) -> None:
    make, data, words = REFUSED[case]
    model, spec = make(tmp_path / "model.onnx"), data(tmp_path)
    options = {
        "compress": ("--max-params", 1300, "--device", "cpu", "--out", "run", "--candidates", 1, "--epochs", 1),
        "gate": ("--no-config", "--min-score", 0.5),
    }
    code, out, err = call(command, model, "--data", spec, *options[command], *PLAIN)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    line = err.strip().splitlines()[-1]
    print(line)
    assert line.startswith("n2n-edge: ")
    assert words in line
    assert not (tmp_path / "run" / "journal.sqlite").exists()
