import numpy as np
import pytest

from n2n_edge.data.labels.values import Objects
from n2n_edge.tasks.average_precision import Matches, average_precision
from n2n_edge.tasks.boxes import Detections

BOXES = np.array([[0, 0, 20, 20], [30, 30, 60, 70]], np.float32)


def detections(boxes, scores, classes):
    return Detections(
        np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32), np.asarray(classes, np.int64)
    )


def objects(boxes, classes, crowd=None):
    return Objects(np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(classes, np.int64), crowd)


NOTHING = detections([], [], [])


def test_perfect_detections_have_a_precision_of_one():
    found = average_precision(
        [detections(BOXES, [0.9, 0.6], [0, 3]), NOTHING], [objects(BOXES, [0, 3]), objects([], [])]
    )
    assert found.value == found.at_50 == pytest.approx(1.0)
    assert found.by_class == pytest.approx({0: 1.0, 3: 1.0})
    assert found.precision == pytest.approx(np.ones(101))


def test_overlap_of_four_fifths_counts_at_seven_of_ten_thresholds():
    moved = BOXES[:1] + np.array([0, 0, 0, 5], np.float32)  # 400 of 500 pixels: 0.50 to 0.80
    found = average_precision([detections(moved, [0.9], [0])], [objects(BOXES[:1], [0])])
    assert found.value == pytest.approx(0.7)
    assert found.at_50 == pytest.approx(1.0)


def test_what_is_missed_and_what_is_made_up_costs():
    one = [objects(BOXES, [0, 0])]
    missed = average_precision([detections(BOXES[:1], [0.9], [0])], one)
    assert missed.value == pytest.approx(51 / 101, abs=1e-6)  # recalls 0 to 0.5 of 101
    made_up = average_precision([detections([[80, 80, 90, 90], *BOXES], [0.95, 0.9, 0.8], [0, 0, 0])], one)
    assert made_up.value == pytest.approx(2 / 3, abs=1e-6)
    harmless = average_precision([detections([*BOXES, [80, 80, 90, 90]], [0.95, 0.9, 0.8], [0, 0, 0])], one)
    assert harmless.value == pytest.approx(1.0)


def test_nothing_found_is_nought_and_nothing_there_is_no_figure():
    found = average_precision([NOTHING], [objects(BOXES, [0, 1])])
    assert (found.value, found.at_50, found.by_class) == (0.0, 0.0, {0: 0.0, 1: 0.0})
    assert average_precision([detections(BOXES, [0.9, 0.6], [0, 3])], [objects([], [])]).value is None


def test_classes_that_are_nowhere_dont_count():
    found = average_precision([detections(BOXES, [0.9, 0.6], [0, 7])], [objects(BOXES[:1], [0])])
    assert found.by_class == pytest.approx({0: 1.0})


def test_crowds_count_neither_way():
    crowd = np.array([False, True])
    found = average_precision([detections(BOXES, [0.6, 0.9], [0, 0])], [objects(BOXES, [0, 0], crowd)])
    assert found.value == pytest.approx(1.0)


def test_images_of_both_have_to_be_the_same():
    with pytest.raises(ValueError, match="detections of 1 images, objects of 2"):
        average_precision([NOTHING], [objects([], [])] * 2)


def crowd(seed, images=12):
    """Return detections and objects of images, some of them without any."""
    source = np.random.default_rng(seed)
    found, there = [], []
    for index in range(images):
        count = 0 if index % 5 == 4 else int(source.integers(1, 6))
        corners = source.uniform(0, 200, (count, 2))
        boxes = np.concatenate([corners, corners + source.uniform(20, 80, (count, 2))], 1).astype(np.float32)
        kinds = source.integers(0, 4, count)
        there.append(objects(boxes, kinds, source.random(count) < 0.1))
        seen = 0 if index % 4 == 3 else count
        scores = np.sort(source.random(seen))[::-1]
        found.append(detections(boxes[:seen] + source.normal(0, 6, (seen, 4)), scores, kinds[:seen]))
    return found, there


@pytest.mark.parametrize("library", ["present", "another version"])
def test_samples_of_the_images_have_the_precision_that_they_have_alone(library):
    found, there = crowd(1)
    matches = Matches(found, there)
    assert matches.average_precision().value == average_precision(found, there).value
    if library != "present":
        del matches._evaluation._evalImgs_cpp
    source = np.random.default_rng(2)
    samples = [source.integers(0, len(found), len(found)).tolist() for _ in range(20)]
    for chosen in [*samples, [3, 3, 7], [4], [0]]:
        sample = matches.average_precision(chosen)
        alone = average_precision([found[each] for each in chosen], [there[each] for each in chosen])
        assert (sample.value, sample.at_50) == (alone.value, alone.at_50)
        assert sample.by_class == alone.by_class


def test_samples_of_images_on_which_nothing_was_found():
    _, there = crowd(3)
    matches = Matches([NOTHING] * len(there), there)
    assert matches.average_precision([0, 1]).value == 0
    assert matches.average_precision([4]).value is None
