"""Segmentation: maps against the teacher's and against masks, and what is taken for a map of classes."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.labels.values import IGNORED, Mask
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.tasks.choice import choose_task
from n2n_edge.tasks.maps import ClassMap
from n2n_edge.tasks.segmentation import Segmentation
from n2n_edge.training.settings import DistillSettings
from tests.cli.networks import segmenter

SIZE = 8
LOGITS = Segmentation(ClassMap(1, 3), (SIZE, SIZE))
ONE = Segmentation(ClassMap(1, 2), (SIZE, SIZE), bounded=True)
LAST = Segmentation(ClassMap(3, 2), (SIZE, SIZE), bounded=True)
RANDOM = np.random.default_rng(0)


def logits(images: int = 4, side: int = SIZE) -> torch.Tensor:
    return torch.from_numpy(RANDOM.normal(0, 3, (images, 3, side, side)).astype(np.float32))


def outputs_of(task: Segmentation) -> torch.Tensor:
    if task is LOGITS:
        return logits()
    return logits()[:, :1].sigmoid() if task is ONE else logits()[:, :1].sigmoid().movedim(1, -1)


@pytest.mark.parametrize("task", [LOGITS, ONE, LAST], ids=["logits", "one", "last"])
def test_the_loss_falls_towards_the_teacher_and_is_nought_there(task: Segmentation) -> None:
    teacher, student = outputs_of(task), outputs_of(task)
    steps = [student + share * (teacher - student) for share in (0.0, 0.5, 0.9, 1.0)]
    losses = [float(task.loss([each], [teacher], None, DistillSettings())) for each in steps]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("task", [LOGITS, ONE, LAST], ids=["logits", "one", "last"])
def test_a_teacher_agrees_with_itself_in_tensors_and_arrays(task: Segmentation) -> None:
    teacher = outputs_of(task)
    meter = task.meter()
    meter.add([teacher], [teacher.numpy()], None)
    assert meter.evaluation().fidelity == 1.0
    assert meter.evaluation().score is None


def test_the_score_is_the_mean_overlap_of_all_images_together() -> None:
    given = logits(5)
    classes = given.argmax(1).numpy()
    masks = RANDOM.integers(0, 3, (5, SIZE, SIZE)).astype(np.uint8)
    masks[0, :4] = IGNORED
    meter = LOGITS.meter()
    for part in (slice(0, 2), slice(2, 5)):
        meter.add([given[part]], None, [Mask(mask) for mask in masks[part]])
    told = masks != IGNORED
    overlaps = []
    for kind in range(3):
        own, aim = (classes == kind) & told, (masks == kind) & told
        overlaps.append((own & aim).sum() / (own | aim).sum())
    found = meter.evaluation()
    assert found.score == pytest.approx(np.mean(overlaps), abs=1e-9)
    assert found.details["iou:1"] == pytest.approx(overlaps[1], abs=1e-9)
    assert found.details["pixel_accuracy"] == pytest.approx(((classes == masks) & told).sum() / told.sum())
    some = meter.resampled(np.array([1, 1, 4]))
    assert some is not None
    again = LOGITS.meter()
    again.add([given[[1, 1, 4]]], None, [Mask(masks[place]) for place in (1, 1, 4)])
    assert some.score == again.evaluation().score


def test_a_small_map_is_compared_as_large_as_the_image() -> None:
    half = logits(2, SIZE // 2)
    maps = LOGITS.read([half])
    assert maps.shape == (2, SIZE, SIZE)
    assert np.array_equal(maps[:, ::2, ::2], half.argmax(1).numpy())
    assert np.array_equal(maps[:, ::2], maps[:, 1::2])


def test_a_label_of_a_class_that_the_network_lacks_counts_as_missed() -> None:
    given = torch.zeros(1, 3, SIZE, SIZE)
    given[:, 0] = 1.0
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:4] = 7
    meter = LOGITS.meter()
    meter.add([given], None, [Mask(mask)])
    assert meter.evaluation().score == pytest.approx((0.5 + 0.0) / 2)


def test_other_labels_are_no_masks_and_a_task_survives_pickling() -> None:
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    assert LOGITS.labels(Split(images, None)) is None
    assert LOGITS.labels(Split(images, None, None, [None, Mask(images[0, ..., 0])])) is not None
    named = replace(LOGITS, class_names=("sky", "road", "car"))
    assert pickle.loads(pickle.dumps(named)) == named
    assert LOGITS.to_json() == {"task": "segmentation"}


def test_further_outputs_are_values() -> None:
    map_, other = logits(), torch.randn(4, 2)
    near = float(LOGITS.loss([map_, other], [map_, other], None, DistillSettings()))
    far = float(LOGITS.loss([map_, other + 1], [map_, other], None, DistillSettings()))
    assert near == pytest.approx(0.0, abs=1e-6)
    assert far > 0.1


def test_channels_behind_a_sigmoid_are_decisions_of_their_own(tmp_path: Path) -> None:
    images = np.zeros((12, 32, 32, 3), np.uint8)
    split = Split(images, None)
    data = Data(split, split, split, (), Preprocessing((32, 32)))
    model = ir.load(segmenter(tmp_path / "model.onnx", end="Sigmoid"))
    _, choice = choose_task(model, data, "segmentation")
    task = choice.task
    assert isinstance(task, Segmentation)
    assert task.form.independent
    assert "a map of 3 classes that may overlap" in choice.reason
    other = ir.load(segmenter(tmp_path / "other.onnx"))
    softmax = choose_task(other, data, "segmentation")[1].task
    assert isinstance(softmax, Segmentation)
    assert not softmax.form.independent

    teacher = torch.full((2, 3, 32, 32), 0.9)
    teacher[:, 2] = 0.1
    student = teacher.clone()
    student[:, :] = torch.tensor([0.09, 0.09, 0.01]).reshape(1, 3, 1, 1)  # the same shares of their sum
    assert float(task.loss([student], [teacher], None, DistillSettings())) > 1
    assert float(task.loss([teacher], [teacher], None, DistillSettings())) == pytest.approx(0, abs=1e-6)

    half = teacher.clone()
    half[:, 1, :16] = 0.2
    meter = task.meter()
    meter.add([half], [teacher.numpy()], None)
    assert meter.evaluation().fidelity == pytest.approx((1 + 0.5) / 2)  # the third is in neither
    nothing = torch.zeros(1, 3, 32, 32)
    assert not task.marks([nothing])[0].area.any()  # type: ignore[union-attr]
    assert task.marks([torch.eye(3)[:, :, None, None].expand(3, 3, 32, 32)])[2].area.min() == 2  # type: ignore[union-attr]
