"""Teachers, data and profiles that come as objects."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import n2n_edge
from n2n_edge._example import teacher_path
from n2n_edge.errors import InputError
from n2n_edge.graph.load import load_model
from n2n_edge.runs.run import new_run

torch = pytest.importorskip("torch")

IMAGES = np.random.RandomState(0).randint(0, 256, (20, 16, 16)).astype(np.uint8)
LABELS = np.arange(20) % 10


def begun(out: Path, **given: object) -> n2n_edge.Run:
    defaults = {"weights": None, "input_shape": None, "device": "cpu", "data": (IMAGES, LABELS)}
    return new_run(out, {**defaults, **given})


@pytest.mark.parametrize("kind", ["Teacher", "onnx_ir", "onnx", "torch"])
def test_a_teacher_at_hand_becomes_a_file_of_the_run(kind: str, tmp_path: Path) -> None:
    teachers = {
        "Teacher": lambda: n2n_edge.Teacher.load(teacher_path()),
        "onnx_ir": lambda: load_model(teacher_path()),
        "onnx": lambda: onnx.load(teacher_path()),
        "torch": lambda: torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(784, 10)),
    }
    run = begun(tmp_path / "run", teacher=teachers[kind]())
    assert run.settings.teacher == str(tmp_path / "run" / "teacher.onnx")
    assert n2n_edge.Teacher.load(run.settings.teacher).layers
    kept = np.load(tmp_path / "run" / "data.npz")
    np.testing.assert_array_equal(kept["x_train"][..., 0], IMAGES)
    np.testing.assert_array_equal(kept["y_train"], LABELS)


def test_datasets_are_read_once(tmp_path: Path) -> None:
    dataset = [
        (torch.from_numpy(image / 255).float()[None], int(label)) for image, label in zip(IMAGES, LABELS, strict=True)
    ]
    begun(tmp_path / "run", teacher=teacher_path(), data=(dataset, dataset[:10]))
    kept = np.load(tmp_path / "run" / "data.npz")
    assert kept["x_train"].shape == (20, 16, 16, 1)
    np.testing.assert_array_equal(kept["x_test"][..., 0], IMAGES[:10])


@pytest.mark.parametrize("form", ["dataset", "arrays"])
def test_boxes_masks_and_points_come_as_objects_too(tmp_path: Path, form: str) -> None:
    masks = (IMAGES > 127).astype(np.int64)
    data = (IMAGES, masks) if form == "arrays" else list(zip(IMAGES, [{"mask": each} for each in masks], strict=True))
    begun(tmp_path / "run", teacher=teacher_path(), data=data)
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "data.npz")["y_train"], masks)

    boxes = [{"boxes": [(1, 2, 9, 10)] * (place % 2), "labels": [3] * (place % 2)} for place in range(20)]
    pair = list(zip(IMAGES, boxes, strict=True))
    begun(tmp_path / "boxes", teacher=teacher_path(), data=(IMAGES, boxes) if form == "arrays" else (pair, pair[:10]))
    kept = np.load(tmp_path / "boxes" / "data.npz")
    assert kept["boxes_train"][0].tolist() == [1, 1, 2, 9, 10, 3, 0]
    assert ("boxes_test" in kept) == (form == "dataset")

    points = [{"points": [(3, 4), (5, 6)]}] * 19 + [None]
    begun(tmp_path / "points", teacher=teacher_path(), data=list(zip(IMAGES, points, strict=True)))
    kept = np.load(tmp_path / "points" / "data.npz")
    assert kept["points_train"].shape == (20, 2, 3)
    assert kept["labelled_train"].tolist() == [True] * 19 + [False]


def test_a_changed_profile_becomes_a_file_and_others_are_named(tmp_path: Path) -> None:
    pi = n2n_edge.load_profile("raspberry-pi-4")
    changed = pi.model_copy(update={"name": "my-board"})
    run = begun(tmp_path / "run", teacher=teacher_path(), device=[pi, changed])
    file = tmp_path / "run" / "my-board.toml"
    assert run.settings.devices == ("raspberry-pi-4", str(file))
    assert n2n_edge.load_profile(file) == changed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teacher": 5}, "teacher int: give a path"),
        ({"teacher": torch.nn.ReLU(), "weights": "w.pt"}, "weights .*belongs to a teacher given by name"),
        ({"teacher": teacher_path(), "data": (IMAGES, LABELS[:5])}, "20 images and 5 labels"),
        ({"teacher": teacher_path(), "data": 5}, "gives a int"),
    ],
)
def test_what_cannot_be_used_is_refused_and_leaves_no_folder(
    given: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        begun(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_budget_given_twice_is_refused_in_the_words_of_python(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^max_mb 0\.5: the budget is given twice") as caught:
        n2n_edge.compress(max_mb=0.4, budgets=[n2n_edge.Budget("size_mb", 0.5)], out=tmp_path / "run")
    assert caught.value.on_command_line().startswith("--max-mb 0.5: ")
