"""Keypoints: coordinates and heatmaps against the teacher's points and against labelled ones."""

import pickle

import numpy as np
import pytest
import torch

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import Points
from n2n_edge.tasks.keypoints import Keypoints
from n2n_edge.tasks.points import PointForm
from n2n_edge.training.settings import DistillSettings

HEIGHT, WIDTH = 40, 80
SHARES = Keypoints(PointForm(3), (HEIGHT, WIDTH))
PIXELS = Keypoints(PointForm(3, shares=False), (HEIGHT, WIDTH))
MAPS = Keypoints(PointForm(3, maps=True), (HEIGHT, WIDTH))
RANDOM = np.random.default_rng(0)


def outputs_of(task: Keypoints, images: int = 5) -> torch.Tensor:
    if task.form.maps:
        return torch.from_numpy(RANDOM.normal(size=(images, 3, 10, 20)).astype(np.float32))
    scale = 1.0 if task.form.shares else HEIGHT
    return torch.from_numpy((scale * RANDOM.uniform(size=(images, 6))).astype(np.float32))


@pytest.mark.parametrize("task", [SHARES, PIXELS, MAPS], ids=["shares", "pixels", "maps"])
def test_a_teacher_agrees_with_itself_and_the_loss_falls_towards_it(task: Keypoints) -> None:
    teacher, student = outputs_of(task), outputs_of(task)
    meter = task.meter()
    meter.add([teacher], [teacher.numpy()], None)
    assert meter.evaluation().fidelity == 1.0
    steps = [student + share * (teacher - student) for share in (0.0, 0.5, 1.0)]
    losses = [float(task.loss([each], [teacher], None, DistillSettings())) for each in steps]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] == pytest.approx(0.0, abs=1e-9)


def test_points_are_read_in_pixels_of_the_input() -> None:
    values = torch.tensor([[0.5, 0.25, 0.0, 1.0, 0.1, 0.1]])
    assert SHARES.read([values])[0].tolist() == [[40.0, 10.0], [0.0, 40.0], [8.0, 4.0]]
    assert PIXELS.read([values])[0, 0].tolist() == [0.5, 0.25]
    maps = torch.zeros(1, 3, 10, 20)
    maps[0, :, 4, 7] = 1.0
    assert MAPS.read([maps])[0, 0] == pytest.approx([(7 + 0.5) * 4, (4 + 0.5) * 4])


def test_the_score_is_the_likeness_by_the_object_s_size_and_hidden_points_count_nowhere() -> None:
    label = Points(np.array([[10.0, 10.0, 2], [30.0, 30.0, 1], [0.0, 0.0, 0]], np.float32))
    values = torch.tensor([[10.0, 12.0, 30.0, 30.0, 79.0, 39.0]])
    meter = PIXELS.meter()
    meter.add([values], None, [label])
    found = meter.evaluation()
    size = 20.0  # the diagonal of 20 by 20 over the square root of 2
    assert found.score == pytest.approx((np.exp(-((2 / size) ** 2) / (2 * 0.1**2)) + 1) / 2)
    assert found.details["nme"] == pytest.approx(100 * (2 / size) / 2)


def test_numbers_are_points_in_the_outputs_unit_and_samples_are_of_images() -> None:
    values = outputs_of(SHARES, 4)
    meter = SHARES.meter()
    meter.add([values], None, values.numpy())
    assert meter.evaluation().score == pytest.approx(1.0)
    far = values.clone()
    far[0] += 0.4
    meter = SHARES.meter()
    meter.add([far], None, values.numpy())
    spoilt, whole = meter.resampled(np.array([0, 0])), meter.resampled(np.array([1, 2]))
    assert spoilt is not None
    assert whole is not None
    assert spoilt.score is not None
    assert spoilt.score < 0.9
    assert whole.score == pytest.approx(1.0)


def test_labels_are_points_or_numbers_and_a_task_survives_pickling() -> None:
    images = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    numbers = np.zeros((1, 6), np.float32)
    assert SHARES.labels(Split(images, None)) is None
    assert SHARES.labels(Split(images, None, numbers)) is numbers
    points = [Points(np.zeros((3, 3), np.float32))]
    assert SHARES.labels(Split(images, None, None, points)) is points
    assert pickle.loads(pickle.dumps(MAPS)) == MAPS
    assert len(SHARES.marks([outputs_of(SHARES)])[0].points) == 3
