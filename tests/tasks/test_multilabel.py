"""Independent classes: average precision as scikit-learn has it, agreement, and the labels' part of the loss."""

import pickle

import numpy as np
import pytest
import torch

from n2n_edge.tasks.multilabel import Multilabel, mean_average_precision
from n2n_edge.training.settings import DistillSettings

RANDOM = np.random.default_rng(0)


def test_average_precision_is_the_library_s() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores = RANDOM.uniform(size=(60, 7)).round(1)  # with ties
    labels = RANDOM.uniform(size=(60, 7)) < 0.3
    labels[:, 4] = False
    value, by_class = mean_average_precision(scores, labels)
    assert set(by_class) == {0, 1, 2, 3, 5, 6}
    for kind, own in by_class.items():
        assert own == pytest.approx(metrics.average_precision_score(labels[:, kind], scores[:, kind]), abs=1e-9)
    assert value == pytest.approx(np.mean(list(by_class.values())))
    assert mean_average_precision(scores, np.zeros((60, 7), np.bool_)) == (None, {})


@pytest.mark.parametrize("bounded", [True, False])
def test_a_teacher_agrees_with_itself_and_the_loss_falls_towards_it(bounded: bool) -> None:
    task = Multilabel(bounded)
    teacher, student = (torch.randn(8, 5) * 2 for _ in range(2))
    if bounded:
        teacher, student = teacher.sigmoid(), student.sigmoid()
    meter = task.meter()
    meter.add([teacher], [teacher.numpy()], None)
    assert meter.evaluation().fidelity == 1.0
    steps = [student + share * (teacher - student) for share in (0.0, 0.5, 1.0)]
    losses = [float(task.loss([each], [teacher], None, DistillSettings())) for each in steps]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] == pytest.approx(0.0, abs=1e-5)


def test_labels_join_the_loss_and_score() -> None:
    task = Multilabel(bounded=False, class_names=("a", "b"))
    labels = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    right = torch.from_numpy(8 * labels - 4)
    told = task.taught(labels, torch.device("cpu"))
    own, against = (
        float(task.loss([each], [torch.zeros(3, 2)], told, DistillSettings(kd_weight=0.0))) for each in (right, -right)
    )
    assert own < 0.1 < against
    meter = task.meter()
    meter.add([right], None, labels)
    found = meter.evaluation()
    assert found.score == 1.0
    assert set(found.details) == {"ap:a", "ap:b"}
    some = meter.resampled(np.array([0, 0]))
    assert some is not None
    assert set(some.details) == {"ap:a"}


def test_a_teacher_that_sees_nothing_agrees_where_nothing_is_seen() -> None:
    nothing = np.full((4, 3), 0.1, np.float32)
    meter = Multilabel().meter()
    meter.add([nothing], [nothing], None)
    assert meter.evaluation().fidelity == 1.0
    assert pickle.loads(pickle.dumps(Multilabel())) == Multilabel()


@pytest.mark.parametrize("bounded", [True, False])
def test_images_without_a_label_count_by_the_teacher_alone(bounded: bool) -> None:
    task, settings = Multilabel(bounded), DistillSettings(kd_weight=0.6)
    teacher, student = (torch.randn(8, 5) for _ in range(2))
    if bounded:
        teacher, student = teacher.sigmoid(), student.sigmoid()
    labels = (torch.rand(8, 5) > 0.5).float()
    labels[3:] = torch.nan

    def loss(rows: slice, told: torch.Tensor | None) -> float:
        return float(task.loss([student[rows]], [teacher[rows]], told, settings))

    divergence = loss(slice(8), None), 3 * loss(slice(3), None) + 5 * loss(slice(3, 8), None)
    assert divergence[1] == pytest.approx(8 * divergence[0], rel=1e-5)
    entropy = 3 * (loss(slice(3), labels[:3]) - 0.6 * loss(slice(3), None))
    share = 1 - 0.4 * 3 / 8  # the divergence makes up for labels that there aren't, over the whole batch
    assert loss(slice(8), labels) == pytest.approx(share * divergence[0] + entropy / 8, rel=1e-5)
    assert loss(slice(3, 8), labels[3:]) == pytest.approx(loss(slice(3, 8), None))
