"""Labels follow their image: boxes, points, outlines and masks under scaling, cutting, letterboxing and mirroring."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from n2n_edge.data.labels.geometry import composed, following, mirroring, placing, transformed
from n2n_edge.data.labels.run_lengths import RunLengths
from n2n_edge.data.labels.values import IGNORED, Mask, Numbers, Objects, Points, flip_index_of
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.resizing import resized_image

QUICK = settings(deadline=None, derandomize=True, max_examples=60)


@st.composite
def boxes(draw, least=8, most=60):
    """Height and width of an image, and a box in it, in whole pixels."""
    height, width = draw(st.integers(least, most)), draw(st.integers(least, most))
    left, top = draw(st.integers(0, width - 4)), draw(st.integers(0, height - 4))
    return height, width, (left, top, draw(st.integers(left + 4, width)), draw(st.integers(top + 4, height)))


def drawn(height, width, box):
    """Draw a white box on black."""
    image = np.zeros((height, width), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = 200
    return Image.fromarray(image)


def seen(image):
    """Return the edges of what is white."""
    rows, columns = (np.flatnonzero((np.asarray(image) == 200).any(axis=axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def on_an_edge(count, scale, shift):
    """Tell of which pixels the centre lies between two of the image: either may be the nearest."""
    centres = (np.arange(count) + 0.5 - shift) / scale
    return np.abs(centres - np.round(centres)) < 1e-6


def one(box):
    return Objects(np.array([box], float), np.array([3]))


@QUICK
@given(boxes(), st.integers(16, 90), st.integers(16, 90), st.booleans(), st.booleans())
def test_a_box_and_the_box_in_a_letterboxed_image_agree(given_box, height, width, centred, mirrored):
    own_height, own_width, box = given_box
    scale = min(width / own_width, height / own_height)
    inner_width, inner_height = max(1, round(own_width * scale)), max(1, round(own_height * scale))
    left, top = ((width - inner_width) // 2, (height - inner_height) // 2) if centred else (0, 0)
    picture = Image.new("L", (width, height), 114)
    picture.paste(
        drawn(own_height, own_width, box).resize((inner_width, inner_height), Image.Resampling.NEAREST), (left, top)
    )
    matrix = placing((0, 0, own_width, own_height), (left, top, left + inner_width, top + inner_height))
    if mirrored:
        picture, matrix = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), composed(mirroring(width), matrix)
    moved = transformed(one(box), matrix, (height, width))
    assert moved.classes.tolist() == [3]
    # a pixel is white where its centre lies in the box
    np.testing.assert_allclose(moved.boxes[0], seen(picture), atol=0.5 + 1e-9)
    mask = transformed(Mask(np.asarray(drawn(own_height, own_width, box))), matrix, (height, width)).pixels
    inside = np.asarray(picture) != 114
    assert ((mask == IGNORED) == ~inside).all()
    clear = inside & ~np.logical_or.outer(
        on_an_edge(height, matrix[1, 1], matrix[1, 2]), on_an_edge(width, *matrix[0, ::2])
    )
    np.testing.assert_array_equal(mask[clear], np.asarray(picture)[clear])


@QUICK
@given(boxes(), st.integers(1, 4), st.integers(1, 4))
def test_whole_scales_are_exact(given_box, across, along):
    height, width, box = given_box
    size = (height * along, width * across)
    picture = drawn(height, width, box).resize(size[::-1], Image.Resampling.NEAREST)
    moved = transformed(one(box), placing((0, 0, width, height), (0, 0, *size[::-1])), size)
    np.testing.assert_array_equal(moved.boxes[0], seen(picture))


@QUICK
@given(boxes(least=20), st.data())
def test_a_box_is_cut_where_its_image_is(given_box, data):
    height, width, box = given_box
    left, top = data.draw(st.integers(0, width - 5)), data.draw(st.integers(0, height - 5))
    right, bottom = data.draw(st.integers(left + 4, width)), data.draw(st.integers(top + 4, height))
    size = (bottom - top, right - left)
    moved = transformed(one(box), placing((left, top, right, bottom), (0, 0, *size[::-1])), size)
    cut = drawn(height, width, box).crop((left, top, right, bottom))
    if (np.asarray(cut) == 200).any():
        np.testing.assert_array_equal(moved.boxes[0], seen(cut))
    else:
        assert len(moved) == 0


@QUICK
@given(boxes())
def test_two_mirrorings_are_none(given_box):
    height, width, box = given_box
    points = np.array([[[box[0], box[1], 2], [box[2], box[3], 1], [0, 0, 0]]], float)
    objects = Objects(np.array([box], float), np.array([0]), keypoints=points, shapes=((points[0, :, :2],),))
    once = transformed(objects, mirroring(width), (height, width), flip_index=(1, 0, 2))
    assert once.keypoints[0, 0].tolist() == [width - box[2], box[3], 1]  # the other one's
    twice = transformed(once, mirroring(width), (height, width), flip_index=(1, 0, 2))
    np.testing.assert_array_equal(twice.boxes, objects.boxes)
    np.testing.assert_array_equal(twice.keypoints, points)
    np.testing.assert_array_equal(twice.shapes[0][0], objects.shapes[0][0])


def test_points_that_leave_the_frame_are_not_labelled():
    points = Points(np.array([[1.0, 1, 2], [9, 9, 2], [5, 5, 1]]))
    moved = transformed(points, placing((0, 0, 6, 6), (0, 0, 12, 12)), (12, 12))
    assert moved.points.tolist() == [[2, 2, 2], [0, 0, 0], [10, 10, 1]]


def test_numbers_stay():
    assert transformed(Numbers(np.array([1.5])), mirroring(3), (3, 3)).values.tolist() == [1.5]


def test_points_without_counterparts_are_not_mirrored():
    points = Points(np.array([[1.0, 1, 2], [2, 2, 2]]))
    for index in (None, (0,), (0, 0), (1, 2)):
        with pytest.raises(ValueError, match="2 points can't be mirrored without a flip index"):
            transformed(points, mirroring(4), (4, 4), flip_index=index)


@pytest.mark.parametrize("matrix", [[[1, 0.1, 0], [0, 1, 0]], [[0, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, -1, 4]]])
def test_a_matrix_that_turns_or_has_no_scale(matrix):
    with pytest.raises(ValueError, match="must scale and shift along the axes"):
        transformed(one((0, 0, 1, 1)), np.array(matrix, float), (4, 4))


@QUICK
@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_run_lengths_there_and_back(height, width, random):
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    lengths = RunLengths.of(mask)
    assert lengths.counts[0] >= 0
    assert (lengths.counts[1:] > 0).all()
    np.testing.assert_array_equal(lengths.mask(), mask)
    again = RunLengths.checked(compressed(lengths.counts.tolist()), (height, width))
    assert again.counts.tolist() == lengths.counts.tolist()
    flipped = transformed(
        Objects(np.array([[0, 0, width, height]], float), np.array([0]), shapes=(lengths,)),
        mirroring(width),
        (height, width),
    )
    np.testing.assert_array_equal(flipped.shapes[0].mask(), mask[:, ::-1])


def compressed(counts):
    """Write run lengths as cocoapi's rleToString does."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            text += chr((bits | 32 if more else bits) + 48)
    return text


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ([3, 2], "sum to 5, not to 2 x 3"),
        ([7, -1], "below 0"),
        ("~~~", "aren't a text that COCO's tools write"),
        ("Q", "end within a number"),
        ("oooooooooooooooooo", "aren't a text"),
        (None, "neither a text nor a list"),
        ([1.5, 4.5], "neither a text nor a list"),
    ],
)
def test_run_lengths_that_cannot_be(counts, why):
    with pytest.raises(ValueError, match=why):
        RunLengths.checked(counts, (2, 3))


@pytest.mark.parametrize(
    ("names", "index"),
    [
        (("nose", "left_eye", "right_eye"), (0, 2, 1)),
        (("r_ankle", "l_ankle", "neck"), (1, 0, 2)),
        (("LeftEye", "RightEye", "brightness"), (1, 0, 2)),
        (("left_eye", "nose"), None),
        (("p0", "p1"), None),
        ((), None),
    ],
)
def test_points_and_their_counterparts_by_name(names, index):
    assert flip_index_of(names) == index


def test_values_can_be_sent_to_another_process():
    objects = Objects(np.zeros((1, 4)), np.array([0]), shapes=((np.zeros((3, 2)),),))
    again = pickle.loads(pickle.dumps(objects))
    assert again.boxes.tolist() == [[0, 0, 0, 0]]
    assert len(again.take(np.array([False]))) == 0


@QUICK
@given(
    boxes(least=12),
    st.integers(8, 60),
    st.integers(8, 60),
    st.sampled_from(["squash", "letterbox", "center-crop"]),
    st.data(),
)
def test_labels_follow_the_preprocessing(given_box, height, width, resize, data):
    own_height, own_width, box = given_box
    preprocessing = Preprocessing(
        (height, width),
        channels=1,
        resize=resize,
        crop_ratio=data.draw(st.sampled_from([None, 0.875, 1.0])) if resize == "center-crop" else None,
        pad_position=data.draw(st.sampled_from(["center", "top-left"])),
        interpolation="nearest",
    )
    picture = resized_image(drawn(own_height, own_width, box), preprocessing)
    moved = transformed(one(box), following(preprocessing, (own_height, own_width)), (height, width))
    if (np.asarray(picture) == 200).any():
        np.testing.assert_allclose(moved.boxes[0], seen(picture), atol=0.5 + 1e-9)
    else:  # at most half a pixel of it is there
        assert all(min(right - left, bottom - top) <= 0.5 + 1e-9 for left, top, right, bottom in moved.boxes)
