"""Splits by a seed: of how many images, with which classes, and what they aren't good for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.data.dataset import load_data
from n2n_edge.data.splits import choose_members, split_warnings
from n2n_edge.metrics.notices import codes_of, texts_of


def labels_of(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


def held_out(sizes: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the labels of the training, validation and test images of a source without splits."""
    labels = labels_of(sizes)
    test = choose_members(labels, len(labels), 0.1, 1)
    rest = labels[~test]
    validation = choose_members(rest, len(rest), 0.1, 0)
    return rest[~validation], rest[validation], labels[test]


@pytest.mark.parametrize(
    ("sizes", "test_count", "test_classes", "validation_count", "validation_classes"),
    [
        ([5] * 100, 50, 50, 45, 45),
        ([4] * 100, 40, 40, 36, 36),
        ([9] * 10, 10, 10, 10, 10),
        ([6] * 10, 10, 10, 5, 5),
        ([500] + [3] * 9, 53, 10, 47, 10),
        ([180] * 10, 180, 10, 160, 10),
    ],
    ids=str,
)
def test_small_and_uneven_classes_are_held_as_far_as_there_are_places(
    sizes, test_count, test_classes, validation_count, validation_classes
):
    train, validation, test = held_out(sizes)
    assert (len(test), len(np.unique(test))) == (test_count, test_classes)
    assert len(validation) == pytest.approx(validation_count, abs=2)
    assert len(np.unique(validation)) == validation_classes
    assert len(np.unique(train)) == len(sizes)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=30), st.sampled_from([0.05, 0.1, 0.3]), st.integers(0, 5))
def test_every_split_holds_its_share_and_leaves_one_of_each_class(sizes, fraction, seed):
    labels = labels_of(sizes)
    chosen = choose_members(labels, len(labels), fraction, seed)
    assert (chosen == choose_members(labels, len(labels), fraction, seed)).all()
    counts = np.bincount(labels[chosen], minlength=len(sizes))
    total = len(labels) * fraction
    assert counts.sum() >= 1
    assert counts.sum() <= max(1, total + len(sizes) / 2)
    if max(sizes) > 1:
        assert (counts < np.array(sizes)).sum() >= len(sizes)
    unseen = [size for size, count in zip(sizes, counts, strict=True) if count == 0 and size > 1]
    assert not unseen or counts.max() == 1


def test_without_labels_it_is_a_share_of_all():
    assert choose_members(None, 95, 0.1, 0).sum() == 10
    assert choose_members(None, 3, 0.1, 0).sum() == 1


def test_what_too_little_can_be_said_of_is_a_warning(tmp_path):
    images, labels = np.zeros((500, 4, 4), np.uint8), np.arange(500) % 100
    np.savez(tmp_path / "x.npz", x=images, y=labels)
    data = load_data(str(tmp_path / "x.npz"), input_shape=(1, 4, 4), classes=100)
    assert texts_of(data.warnings) == (
        "55 of 100 classes have no validation image: they aren't evaluated",
        "50 of 100 classes have no test image: they aren't evaluated",
    )
    np.savez(tmp_path / "x.npz", x=images[:60], y=labels[:60] % 10)
    data = load_data(str(tmp_path / "x.npz"), input_shape=(1, 4, 4), classes=10)
    assert "few-test-images" in codes_of(data.warnings)
    assert not split_warnings({"test": (40, np.arange(40) % 10)}, 10)
