"""The meter of detectors: samples of its images, as the interval of a difference asks for them."""

import numpy as np
import pytest

from n2n_edge.data.labels.values import Objects
from n2n_edge.tasks.detection import Detection
from n2n_edge.tasks.head import Signature
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.tasks.task import Meter

IMAGES, PLACES, CLASSES = 20, 6, 3


def raw(seed: int, noise: float) -> np.ndarray:
    """Return boxes and scores ``(N, M, 6)`` that a user's function could read."""
    source = np.random.default_rng(0)
    corners = source.uniform(0, 100, (IMAGES, PLACES, 2))
    boxes = np.concatenate([corners, corners + source.uniform(10, 50, (IMAGES, PLACES, 2))], 2)
    kinds, scores = source.integers(0, CLASSES, (IMAGES, PLACES, 1)), source.uniform(0.4, 1, (IMAGES, PLACES, 1))
    boxes = boxes + noise * np.random.default_rng(seed).normal(size=boxes.shape)
    return np.concatenate([boxes, scores, kinds], 2).astype(np.float32)


def decode(outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    (values,) = outputs
    return values[..., :4], values[..., 4], values[..., 5]


LABELS = [Objects(image[:, :4], image[:, 5].astype(np.int64)) for image in raw(0, 0.0)[:-2]] + [None, None]


def meter(noise: float, *, taught: bool = False) -> Meter:
    task = Detection(Signature(200, 200, (), frozenset()), reader=f"{__name__}:decode")
    found = task.meter()
    for start in range(0, IMAGES, 8):
        part = slice(start, start + 8)
        found.add([raw(1, noise)[part]], [raw(1, 0.0)[part]] if taught else None, LABELS[part])
    return found


def test_the_difference_of_detectors_has_an_interval_and_details_by_class() -> None:
    before, after = meter(0.5), meter(6.0)
    found = paired_difference(before, after, resamples=100)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high < 0
    assert set(before.evaluation().details) == {"ap50", "ap:0", "ap:1", "ap:2"}


def test_the_difference_does_not_ask_how_far_each_sample_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    meters = meter(0.5), meter(4.0, taught=True)
    asked = []
    agreement = type(meters[1]).agreement  # type: ignore[attr-defined]
    monkeypatch.setattr(type(meters[1]), "agreement", lambda *given: asked.append(given) or agreement(*given))
    assert paired_difference(*meters, resamples=20) is not None
    assert len(asked) == 2  # once of all images


def test_all_images_once_are_the_evaluation() -> None:
    whole = meter(4.0, taught=True)
    told, same = whole.evaluation(), whole.resampled(np.arange(IMAGES))
    assert same is not None
    assert (same.score, same.fidelity, same.n) == pytest.approx((told.score, told.fidelity, told.n))
    unlabelled = whole.resampled(np.array([IMAGES - 1, IMAGES - 2]))
    assert unlabelled is not None
    assert unlabelled.score is None


def test_precision_by_recall_is_against_labels_where_there_are_any() -> None:
    told = meter(4.0, taught=True).evaluation()
    assert len(told.precision) == 101
    assert np.mean(told.precision) == pytest.approx(told.details["ap50"], abs=1e-6)
    assert all(first >= after for first, after in zip(told.precision, told.precision[1:], strict=False))


def test_without_labels_precision_is_against_what_the_teacher_finds() -> None:
    task = Detection(Signature(200, 200, (), frozenset()), reader=f"{__name__}:decode")
    same, other, alone = task.meter(), task.meter(), task.meter()
    same.add([raw(1, 0.0)], [raw(1, 0.0)], None)
    other.add([raw(1, 6.0)], [raw(1, 0.0)], None)
    alone.add([raw(1, 0.0)], None, None)
    assert set(same.evaluation().precision) == {1.0}
    assert 0 < np.mean(other.evaluation().precision) < 1
    assert alone.evaluation().precision == ()
    nothing = raw(1, 0.0)
    nothing[..., 4] = 0
    silent = task.meter()
    silent.add([raw(1, 0.0)], [nothing], None)
    assert silent.evaluation().precision == ()
