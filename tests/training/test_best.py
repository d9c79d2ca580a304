"""Tests for the choice between states of a student."""

import math

import numpy as np
import pytest

from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.paired import chance_error
from n2n_edge.tasks.task import Meter
from n2n_edge.training.best import Validation, is_better


def meter(hits: int, images: int, first: int = 0) -> Meter:
    """Return the meter of a classifier that is right about `hits` of so many images, from `first` on."""
    found = Classification().meter()
    right = np.isin(np.arange(images), np.arange(first, first + hits))
    found.add([np.stack([right, ~right], axis=1).astype(np.float32)], None, np.zeros(images, np.int64))
    return found


def state(hits: int, images: int, loss: float, first: int = 0) -> Validation:
    return Validation(hits / images, loss, meter(hits, images, first))


def test_chance_error_is_that_of_the_paired_difference() -> None:
    # of 100 images 10 differ, all one way: the deviation of a share of 0.1 of 100
    assert chance_error(meter(60, 100), meter(70, 100)) == pytest.approx(math.sqrt(0.1 * 0.9 / 100), rel=0.35)
    assert chance_error(meter(60, 100), meter(60, 100)) == 0.0


@pytest.mark.parametrize(
    ("new", "kept", "highest", "better"),
    [
        (
            state(3, 13, 1.0, 2),
            state(4, 13, 2.0),
            4 / 13,
            True,
        ),  # 2 against 3 of 13 images say nothing: the loss decides
        (state(5, 13, 2.0, 2), state(4, 13, 1.0), 4 / 13, False),
        (state(700, 1000, 2.0), state(600, 1000, 1.0), 0.6, True),  # a hundred of a thousand do
        (state(600, 1000, 1.0), state(700, 1000, 2.0), 0.7, False),
        (state(3, 13, 1.0, 2), state(4, 13, 2.0), 9 / 13, False),  # far from the best there was
        (state(4, 13, 1.0), state(4, 13, 2.0), 4 / 13, True),
        (state(4, 13, math.inf), state(3, 13, math.inf), 3 / 13, True),
        (state(3, 13, math.inf), state(4, 13, math.inf), 4 / 13, False),
        (state(4, 13, math.inf), state(4, 13, 1.0), 4 / 13, False),
    ],
)
def test_metric_decides_where_it_can_and_loss_elsewhere(
    new: Validation, kept: Validation, highest: float, better: bool
) -> None:
    assert is_better(new, kept, highest) == better
