"""Labels that follow their image when it is scaled, shifted, cut or mirrored."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.labels.run_lengths import RunLengths
from n2n_edge.data.labels.values import (
    IGNORED,
    NOT_LABELLED,
    Floats,
    Label,
    Mask,
    MaskFile,
    Numbers,
    Objects,
    Points,
    Shape,
)
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.resizing import placement

__all__ = ["composed", "following", "mirroring", "moved_label", "placing", "transformed"]


def placing(source: tuple[float, float, float, float], target: tuple[float, float, float, float]) -> Floats:
    """Return the matrix `(2, 3)` that moves the box `source` (left, top, right, bottom) onto the box `target`.

    A squash places ``(0, 0, w, h)`` onto the whole input, a letterbox onto the part of it that isn't padding, a crop
    the part that is kept onto the whole.
    """
    (left, top, right, bottom), (new_left, new_top, new_right, new_bottom) = source, target
    columns, rows = (new_right - new_left) / (right - left), (new_bottom - new_top) / (bottom - top)
    return np.array([[columns, 0, new_left - left * columns], [0, rows, new_top - top * rows]])


def mirroring(width: float) -> Floats:
    """Return the matrix `(2, 3)` that mirrors an image of this width left to right."""
    return np.array([[-1.0, 0, width], [0, 1, 0]])


def following(preprocessing: Preprocessing, size: tuple[int, int]) -> Floats:
    """Return the matrix `(2, 3)` that moves an image of `size` (height, width) into a network's input."""
    where = placement(size[1], size[0], preprocessing)
    left, top = where.corner
    return placing(where.cut, (left, top, left + where.scaled[0], top + where.scaled[1]))


def composed(second: Floats, first: Floats) -> Floats:
    """Return the matrix `(2, 3)` of `first`, then `second`."""
    result: Floats = second @ np.vstack([first, [0, 0, 1]])
    return result


def transformed(label: Label, matrix: Floats, size: tuple[int, int], flip_index: Sequence[int] | None = None) -> Label:
    """Return the label of an image that was moved by `matrix` into a frame of `size` (height, width).

    `matrix` `(2, 3)` takes ``(x, y, 1)`` in pixels of the image to pixels of the frame, counted at the edges of pixels:
    the centre of the first is at 0.5. It scales and shifts along the axes, and mirrors where ``matrix[0, 0]`` is below
    0; then points change their names by `flip_index`. Boxes are cut at the frame, and objects of which no area is left
    are gone; points outside aren't labelled any more. Polygons aren't cut. Masks take the nearest pixel, and are
    ignored where there was no image. Numbers stay.

    Raises:
        ValueError: a matrix that turns, shears or has no scale, or points to be mirrored without a `flip_index`.
    """
    columns, rows = float(matrix[0, 0]), float(matrix[1, 1])
    if matrix.shape != (2, 3) or matrix[0, 1] or matrix[1, 0] or columns == 0 or rows <= 0:
        raise ValueError(f"matrix {matrix.tolist()}: must scale and shift along the axes, or mirror left to right")
    match label:
        case Numbers():
            return label
        case Points():
            return Points(_points(label.points[None], matrix, size, flip_index)[0])
        case MaskFile():
            return Mask(_mask(label.read().pixels, matrix, size))
        case Mask():
            return Mask(_mask(label.pixels, matrix, size))
    return _objects(label, matrix, size, flip_index)


def moved_label(
    label: Label, matrix: Floats | None, size: tuple[int, int], flip_index: Sequence[int] | None = None
) -> Label | None:
    """Return the label of an image that was changed within its frame of `size` (height, width), None where it has none.

    `matrix` as for `transformed`; where None is known of it, or points can't be mirrored, nothing is known of the label
    either.
    """
    if isinstance(label, Numbers):
        return label
    if matrix is None:
        return None
    if matrix[0, 0] < 0 and flip_index is None:
        if isinstance(label, Points):
            return None
        if isinstance(label, Objects):
            label = replace(label, keypoints=None)
    return transformed(label, matrix, size, flip_index)


def _moved(points: Floats, matrix: Floats) -> Floats:
    """Move `(..., 2)`."""
    moved: Floats = points * (matrix[0, 0], matrix[1, 1]) + matrix[:, 2]
    return moved


def _objects(objects: Objects, matrix: Floats, size: tuple[int, int], flip_index: Sequence[int] | None) -> Objects:
    corners = _moved(objects.boxes.reshape(-1, 2, 2), matrix)
    frame = (size[1], size[0])
    low, high = np.clip(corners.min(axis=1), 0, frame), np.clip(corners.max(axis=1), 0, frame)
    keypoints, shapes = objects.keypoints, objects.shapes
    if keypoints is not None:
        keypoints = _points(keypoints, matrix, size, flip_index)
    if shapes is not None:
        shapes = tuple(None if shape is None else _shape(shape, matrix, size) for shape in shapes)
    moved = Objects(np.concatenate([low, high], axis=1), objects.classes, objects.crowd, keypoints, shapes)
    return moved.take((high > low).all(axis=1))


def _points(points: Floats, matrix: Floats, size: tuple[int, int], flip_index: Sequence[int] | None) -> Floats:
    """Move points `(n, K, 3)`."""
    positions, visibility = _moved(points[..., :2], matrix), points[..., 2]
    outside = ((positions < 0) | (positions > (size[1], size[0]))).any(axis=-1)
    moved = np.concatenate([positions, np.where(outside, NOT_LABELLED, visibility)[..., None]], axis=-1)
    moved[moved[..., 2] == NOT_LABELLED] = 0
    if matrix[0, 0] > 0 or not moved[..., 2].any():
        return moved
    if flip_index is None or sorted(flip_index) != list(range(points.shape[1])):
        raise ValueError(f"{points.shape[1]} points can't be mirrored without a flip index, one for each")
    return moved[:, list(flip_index)]


def _shape(shape: Shape, matrix: Floats, size: tuple[int, int]) -> Shape:
    if isinstance(shape, RunLengths):
        return RunLengths.of(_mask(shape.mask().astype(np.uint8), matrix, size) == 1)
    return tuple(_moved(polygon, matrix) for polygon in shape)


def _mask(pixels: NDArray[np.uint8], matrix: Floats, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Take for each pixel of the frame the one that its centre lies in."""
    moved = np.full(size, IGNORED, np.uint8)
    sources = []
    for axis, count in ((1, size[0]), (0, size[1])):
        centres = (np.arange(count) + 0.5 - matrix[axis, 2]) / matrix[axis, axis]
        sources.append(np.floor(centres).astype(np.int64))
    rows, columns = sources
    inside_rows = np.flatnonzero((rows >= 0) & (rows < pixels.shape[0]))
    inside_columns = np.flatnonzero((columns >= 0) & (columns < pixels.shape[1]))
    moved[np.ix_(inside_rows, inside_columns)] = pixels[np.ix_(rows[inside_rows], columns[inside_columns])]
    return moved
