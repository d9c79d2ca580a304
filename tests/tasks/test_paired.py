"""The paired bootstrap of two models' scores."""

from dataclasses import replace

import numpy as np
import pytest

from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.tasks.task import Labels, Meter, Outputs
from n2n_edge.tasks.values import Values

N = 400


def classified(chosen: np.ndarray, labels: np.ndarray | None) -> Meter:
    meter = Classification().meter()
    scores = np.eye(3)[chosen]
    for start in range(0, len(scores), 150):
        meter.add([scores[start : start + 150]], None, None if labels is None else labels[start : start + 150])
    return meter


def test_the_interval_is_that_of_the_difference_and_not_of_the_scores():
    source = np.random.default_rng(1)
    labels = source.integers(0, 3, N)
    teacher = np.where(source.random(N) < 0.3, (labels + 1) % 3, labels)
    student = teacher.copy()
    lost = np.flatnonzero(teacher == labels)[:8]
    student[lost] = (labels[lost] + 1) % 3
    found = paired_difference(classified(teacher, labels), classified(student, labels))
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert (found.value, found.unit, found.n) == (pytest.approx(-2.0), "points", N)
    # by hand: the difference of an image is -1 with probability 0.02, so its mean has a deviation of 0.7 points;
    # scores that are taken for independent would have one of 3.2
    assert found.low == pytest.approx(-2 - 1.96 * 0.7, abs=0.3)
    assert found.high == pytest.approx(-2 + 1.96 * 0.7, abs=0.3)
    assert found == paired_difference(classified(teacher, labels), classified(student, labels))


def test_a_model_against_itself_differs_by_nought_and_without_labels_there_is_none():
    labels = np.arange(N) % 3
    same = paired_difference(classified(labels, labels), classified(labels, labels))
    assert same is not None
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert paired_difference(classified(labels, None), classified(labels, None)) is None


def test_values_are_resampled_by_their_labels():
    source = np.random.default_rng(2)
    labels = source.normal(size=(N, 2)).astype(np.float32)

    def meter(noise: float) -> Meter:
        found = Values().meter()
        found.add([labels + noise * source.normal(size=labels.shape).astype(np.float32)], None, labels)
        return found

    before, after = meter(0.2), meter(0.5)
    found = paired_difference(before, after)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(-21, abs=3)
    assert found.low < found.value < found.high < 0
    every = before.resampled(np.arange(N))
    assert every is not None
    assert every == replace(before.evaluation(), fidelity=None)
    assert every.details["mae"] == pytest.approx(0.2 * np.sqrt(2 / np.pi), rel=0.1)


class Bare(Meter):
    """A meter that keeps sums alone, as one of a user's own may."""

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        raise NotImplementedError

    def evaluation(self) -> Evaluation:
        return Evaluation(0.5, None, 4)


def test_a_meter_that_keeps_too_little_gives_no_interval():
    found = paired_difference(Bare(), Bare())
    assert found is not None
    assert (found.value, found.low, found.high) == (0, None, None)
