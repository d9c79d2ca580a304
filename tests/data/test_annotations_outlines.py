"""Outlines as masks: the pixels whose centres lie within, and maps of classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2n_edge.data.labels.geometry import placing, transformed
from n2n_edge.data.labels.outlines import class_map, outline_mask
from n2n_edge.data.labels.run_lengths import RunLengths
from n2n_edge.data.labels.values import IGNORED, Mask, Objects

QUICK = settings(deadline=None, derandomize=True, max_examples=60)
CORNERS = st.lists(st.tuples(st.floats(-3, 14), st.floats(-3, 14)), min_size=3, max_size=7)


def within(polygon, x, y):
    """Tell whether a point lies in a polygon, by the angle that the polygon goes around it: odd turns are inside."""
    turns = 0
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y0 > y) != (y1 > y) and x > x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            turns += 1
    return turns % 2 == 1


@QUICK
@given(CORNERS)
def test_the_centre_of_a_pixel_decides(corners):
    corners = np.add(corners, (2**0.5 / 10, 3**0.5 / 10)).tolist()  # edges between whole numbers go through no centre
    mask = outline_mask((np.array(corners),), (9, 11))
    assert mask.tolist() == [[within(corners, x + 0.5, y + 0.5) for x in range(11)] for y in range(9)]


@QUICK
@given(st.lists(st.tuples(st.integers(-3, 14), st.integers(-3, 14)), min_size=3, max_size=7))
def test_a_polygon_that_is_cut_has_the_mask_that_is_cut(corners):
    polygon = np.add(corners, (2**0.5 / 10, 3**0.5 / 10))  # no edge goes through the centre of a pixel
    assert_moved_alike(polygon, placing((2, 1, 7, 5), (0, 0, 5, 4)), (4, 5))


@QUICK
@given(*[st.integers(0, 8)] * 4, st.integers(1, 3), st.integers(1, 3))
def test_a_rectangle_that_is_scaled_has_the_mask_that_is_scaled(left, top, right, bottom, across, along):
    polygon = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)
    assert_moved_alike(polygon, placing((1, 1, 11, 9), (0, 0, 10 * across, 8 * along)), (8 * along, 10 * across))


def assert_moved_alike(polygon, matrix, size):
    objects = Objects(np.array([[0.0, 0, 11, 9]]), np.array([0]), shapes=((polygon,),))
    mask = Mask(outline_mask((polygon,), (9, 11)).astype(np.uint8))
    moved = outline_mask(transformed(objects, matrix, size).shapes[0], size)
    np.testing.assert_array_equal(moved, transformed(mask, matrix, size).pixels == 1)


def test_a_map_of_classes():
    big, small = np.array([[0.0, 0], [4, 0], [4, 3], [0, 3]]), np.array([[1.0, 1], [3, 1], [3, 2], [1, 2]])
    crowd = RunLengths.of(np.array([[0, 0, 0, 0, 1]] * 3, bool))
    objects = Objects(
        np.array([[1.0, 1, 3, 2], [0, 0, 4, 3], [4, 0, 5, 3], [0, 0, 1, 1]]),
        np.array([2, 0, 1, 1]),
        crowd=np.array([False, False, True, False]),
        shapes=((small,), (big,), crowd, None),
    )
    expected = [[IGNORED, 1, 1, 1, IGNORED], [1, 3, 3, 1, IGNORED], [1, 1, 1, 1, IGNORED]]
    assert class_map(objects, (3, 5)).pixels.tolist() == expected
    nothing = Objects(np.zeros((0, 4)), np.zeros(0, np.int64))
    assert class_map(nothing, (1, 2), background=7).pixels.tolist() == [[7, 7]]


def test_what_cannot_be_a_map():
    objects = Objects(np.zeros((1, 4)), np.array([254]))
    with pytest.raises(ValueError, match="class 254 can't be in a map"):
        class_map(objects, (2, 2))
    with pytest.raises(ValueError, match="can't be a mask of"):
        outline_mask(RunLengths.of(np.zeros((2, 2), bool)), (3, 3))
