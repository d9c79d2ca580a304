"""Outlines of objects as masks: of one object, and of all in an image as a map of classes."""

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.labels.run_lengths import RunLengths
from n2n_edge.data.labels.values import IGNORED, Floats, Mask, Objects, Shape

__all__ = ["class_map", "outline_mask"]


def outline_mask(shape: Shape, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of an image of `size` (height, width) lie in an outline, as `(H, W)`.

    A pixel lies in a polygon where its centre does, by the even-odd rule, and in an outline where it lies in any of its
    polygons.

    Raises:
        ValueError: run lengths of another size.
    """
    if isinstance(shape, RunLengths):
        if shape.size != size:
            raise ValueError(f"run lengths of {shape.size} can't be a mask of {size}")
        return shape.mask()
    mask = np.zeros(size, np.bool_)
    for polygon in shape:
        mask |= _inside(polygon, size)
    return mask


def class_map(objects: Objects, size: tuple[int, int], *, background: int = 0, first: int = 1) -> Mask:
    """Return the class of each pixel: class 0 is called `first`, what no object covers `background`.

    Where objects overlap the smaller one is seen. Crowds, and the boxes of objects without an outline, are ignored.

    Raises:
        ValueError: a class beyond 254.
    """
    if len(objects) and int(objects.classes.max()) + first >= IGNORED:
        raise ValueError(f"class {int(objects.classes.max())} can't be in a map, which holds up to {IGNORED - 1}")
    pixels = np.full(size, background, np.uint8)
    shapes = objects.shapes or (None,) * len(objects)
    masks = []
    for index, shape in enumerate(shapes):
        certain = shape is not None and not (objects.crowd is not None and objects.crowd[index])
        outline = outline_mask(_box(objects.boxes[index]) if shape is None else shape, size)
        masks.append((outline, int(objects.classes[index]) + first if certain else IGNORED))
    for outline, kind in sorted(masks, key=lambda each: -int(each[0].sum())):
        pixels[outline] = kind
    return Mask(pixels)


def _box(box: Floats) -> Shape:
    left, top, right, bottom = box
    return (np.array([[left, top], [right, top], [right, bottom], [left, bottom]]),)


def _inside(polygon: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels whose centre has an odd number of edges to its left."""
    crossings = np.zeros((size[0], size[1] + 1), np.int64)
    for (x, y), (next_x, next_y) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        low, high = sorted((y, next_y))
        rows = np.arange(*np.clip(np.ceil(np.array([low, high]) - 0.5), 0, size[0]).astype(np.int64))
        if len(rows):
            at = x + (rows + 0.5 - y) * (next_x - x) / (next_y - y)
            np.add.at(crossings, (rows, np.clip(np.ceil(at - 0.5), 0, size[1]).astype(np.int64)), 1)
    inside: NDArray[np.bool_] = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return inside
