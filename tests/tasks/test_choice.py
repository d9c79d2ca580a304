"""How a teacher's outputs and the labels of its data are read together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from n2n_edge.data.dataset import Data, Split, load_data
from n2n_edge.data.labels.values import Label, Mask, Points
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from n2n_edge.graph.teacher import Teacher
from n2n_edge.runs.normalisation import choose_normalisation
from n2n_edge.tasks.choice import choose_task, metric_name
from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.keypoints import Keypoints
from n2n_edge.tasks.maps import ClassMap
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.multilabel import Multilabel
from n2n_edge.tasks.segmentation import Segmentation
from n2n_edge.tasks.task import Task
from n2n_edge.training.batches import training_batches
from n2n_edge.training.evaluation import evaluate, scale_warnings
from n2n_edge.training.settings import DistillSettings
from tests.cli.networks import segmenter
from tests.training.small import small_cnn

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 255, (40, 8, 8, 1), dtype=np.uint8)
POINTS = RANDOM.uniform(0, 100, (40, 3)).astype(np.float32)


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path / "data.npz", x=IMAGES, **arrays)
    return str(path / "data.npz")


def model(end: str = "") -> ir.Model:
    found = small_cnn(width=4, classes=3, end=end)
    found.graph.outputs[0].name = "output"
    return found


@pytest.mark.parametrize("labels", [POINTS, POINTS.reshape(40, 3, 1), (POINTS > 50).astype(np.int64) * 2])
def test_labels_that_are_values_are_compared_in_their_unit(tmp_path: Path, labels: np.ndarray) -> None:
    data = load_data(save(tmp_path, y=labels), input_shape=(1, 8, 8), classes=3, may_be_values=True)
    data, choice = choose_task(model(), data, None)
    assert (choice.task.name, data.labelled) == ("regression", False)
    assert data.test.targets is not None
    found = evaluate(model(), data.test, data, teacher=model())
    assert (found.score, found.fidelity) == (0.0, 1.0)
    assert 0 < found.details["mae"] < 200


@pytest.mark.parametrize(
    "labels", [np.arange(40) % 3, np.eye(3)[np.arange(40) % 3], np.eye(3, dtype=int)[np.arange(40) % 3]]
)
def test_class_numbers_and_one_hot_rows_name_classes(tmp_path: Path, labels: np.ndarray) -> None:
    data = load_data(save(tmp_path, y=labels), input_shape=(1, 8, 8), classes=3, may_be_values=True)
    data, choice = choose_task(model(), data, None)
    assert (choice.task.name, data.labelled) == ("classification", True)


@pytest.mark.parametrize("labels", [POINTS, np.eye(3)[np.arange(40) % 3] * 0.9 + 0.03])
def test_labels_that_are_not_one_hot_are_refused_for_a_classifier(tmp_path: Path, labels: np.ndarray) -> None:
    data = load_data(save(tmp_path, y=labels), input_shape=(1, 8, 8), classes=3, may_be_values=True)
    with pytest.raises(InputError, match="neither class numbers nor one-hot rows"):
        choose_task(model("Softmax"), data, None)


def test_labels_of_another_size_do_not_count_and_that_is_said(tmp_path: Path) -> None:
    data = load_data(save(tmp_path, y=POINTS[:, :2]), input_shape=(1, 8, 8), classes=3, may_be_values=True)
    data, choice = choose_task(model(), data, None)
    assert data.train.targets is None
    assert "the labels don't count" in choice.reason


def test_labels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    broken = POINTS.copy()
    broken[3] = np.nan
    with pytest.raises(InputError, match="no finite numbers"):
        load_data(save(tmp_path, y=broken), input_shape=(1, 8, 8), classes=None)


def test_channels_of_unlike_size_are_warned_of(tmp_path: Path) -> None:
    found = model()
    data = load_data(save(tmp_path), input_shape=(1, 8, 8), classes=None)
    data, _ = choose_task(found, data, "regression")
    assert scale_warnings(found, data) == ()
    weight = found.graph.initializers["head.weight"]
    assert weight.const_value is not None
    scaled = weight.const_value.numpy().copy()
    scaled[0] *= 1e5
    weight.const_value = ir.tensor(scaled, name="head.weight")
    (warning,) = scale_warnings(found, data)
    assert warning.code == "unlike-scales"
    assert "output 'output': its channels differ in scale by" in warning.text


SIZE = 16
PICTURES = RANDOM.integers(0, 255, (12, SIZE, SIZE, 3), dtype=np.uint8)


def dense(*ops: torch.nn.Module, channels: int = 4) -> ir.Model:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, channels, 3, padding=1), *ops).eval()
    return Teacher.from_torch(module, torch.zeros(1, 3, SIZE, SIZE)).model


def pictures(annotations: list[Label | None] | None = None, targets: np.ndarray | None = None) -> Data:
    part = Split(PICTURES, None, targets, annotations)
    return Data(part, part, part, (), Preprocessing((SIZE, SIZE)))


def chosen(model: ir.Model, data: Data, wanted: str | None = None) -> Task:
    return choose_task(model, data, wanted)[1].task


class Own(Classification):
    """A user's own task."""


def test_a_users_own_task_is_a_class_or_an_object() -> None:
    assert isinstance(chosen(model(), pictures(), f"{__name__}:Own"), Own)
    with pytest.raises(InputError, match="give an object of a subclass of Task"):
        chosen(model(), pictures(), f"{__name__}:SIZE")


def test_labels_of_independent_classes_reach_the_loss() -> None:
    rows = RANDOM.integers(0, 2, (12, 5)).astype(np.float32)
    data = replace(pictures(targets=rows), task=Multilabel())
    (batch,) = training_batches(data, DistillSettings(batch_size=12, seed=0), 1)
    assert batch.labels is not None
    assert sorted(map(tuple, batch.labels.tolist())) == sorted(map(tuple, rows.tolist()))


def test_numbers_of_held_out_images_score_where_training_images_have_none(tmp_path: Path) -> None:
    data = load_data(save(tmp_path, y=POINTS), input_shape=(1, 8, 8), classes=3, may_be_values=True)
    data = replace(data, train=replace(data.train, targets=None))
    data, choice = choose_task(model(), data, None)
    assert choice.task.name == "regression"
    assert data.test.targets is not None
    assert metric_name(model(), data) == "r2"


def test_labels_of_any_task_find_the_normalisation() -> None:
    images = np.zeros((40, 8, 8, 3), np.uint8)
    split = Split(images, None, None, [Mask(images[0, ..., 0])] * 40)
    task = Segmentation(ClassMap(1, 2), (8, 8))
    data = Data(split, split, split, (), Preprocessing((8, 8)), task=task)

    def evaluated(split: Split, tried: Data) -> Evaluation:
        assert split.annotations is not None
        return Evaluation(0.9 if tried.std == (1.0, 1.0, 1.0) and tried.mean == (0.0, 0.0, 0.0) else 0.2, None, 40)

    found = choose_normalisation(data, evaluated)
    assert (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)
    assert found.origin == "tried"
    bare = replace(split, annotations=None)
    without = choose_normalisation(replace(data, validation=bare), evaluated)
    assert without.origin == "assumed"


@pytest.mark.parametrize(
    ("size", "labelled", "recorded", "count", "numbers"),
    [
        (6, 3, {}, 3, 2), (6, 2, {}, 2, 3), (9, 3, {}, 3, 3), (12, 4, {}, 4, 3), (12, 6, {}, 6, 2),
        (12, None, {}, 6, 2), (12, None, {"task": "keypoints", "points": 4}, 4, 3), (9, None, {}, 3, 3),
    ],
)  # fmt: skip
def test_coordinates_may_come_with_a_score_each(
    tmp_path: Path, size: int, labelled: int | None, recorded: dict[str, object], count: int, numbers: int
) -> None:
    data = load_data(save(tmp_path), input_shape=(1, 8, 8), classes=None)
    if labelled is not None:
        label = Points(np.column_stack([np.full((labelled, 2), 4.0), np.full(labelled, 2.0)]))
        parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
        data = replace(data, **{name: replace(each, annotations=[label] * len(each)) for name, each in parts.items()})
    network = small_cnn(width=4, classes=size, end="Sigmoid", size=8)
    data, choice = choose_task(network, data, None if labelled else "keypoints", recorded=recorded)
    assert isinstance(choice.task, Keypoints)
    assert (choice.task.form.count, choice.task.form.numbers) == (count, numbers)
    assert ("with a score or visibility each" in choice.reason) == (numbers == 3)
    assert choice.task.to_json() == {"task": "keypoints", "points": count}
    assert choice.task.read([np.zeros((2, size), np.float32)]).shape == (2, count, 2)


def test_labels_of_another_kind_are_refused_unless_a_task_is_asked_for(tmp_path: Path) -> None:
    data = load_data(save(tmp_path), input_shape=(1, 8, 8), classes=None)
    masks: list[Label | None] = [Mask(np.zeros((8, 8), np.uint8))] * 40
    parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
    data = replace(data, **{name: replace(each, annotations=masks[: len(each)]) for name, each in parts.items()})
    with pytest.raises(
        InputError, match=r"^the labels are masks, but the model is taken for regression .*: give labels that fit"
    ):
        choose_task(model(), data, None)
    _, choice = choose_task(model(), data, "regression")
    assert choice.reason.endswith("its labels (masks) don't count")


def test_a_softmax_over_three_maps_is_one_of_classes_without_labels_too(tmp_path: Path) -> None:
    data = load_data(save(tmp_path), input_shape=(1, 8, 8), classes=None)
    network = ir.load(segmenter(tmp_path / "model.onnx"))
    large = replace(data, preprocessing=Preprocessing((32, 32)))
    images = np.zeros((12, 32, 32, 3), np.uint8)
    large = replace(large, train=Split(images, None), validation=Split(images, None), test=Split(images, None))
    assert choose_task(network, large, None)[1].task.name == "segmentation"
