"""Maps of classes: reading them from a segmenter's output, and how far two of them overlap."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.labels.values import IGNORED
from n2n_edge.tasks.boxes import Floats

__all__ = [
    "ClassMap", "Overlap", "as_large_as", "channel_sums", "class_maps", "confusion", "map_form", "overlap_of",
    "overlap_of_sums",
]  # fmt: skip

_Kind = TypeVar("_Kind", bound=np.generic)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassMap:
    """How an output `(N, ...)` is read as maps: which axis holds the classes, how many, and where one becomes 1.

    A single channel is foreground where it is at least `threshold`: half for a graph that ends in a Sigmoid, else
    nought. Channels that are `independent`, several behind a Sigmoid, say each for itself whether their class is there.
    """

    axis: int
    classes: int
    threshold: float = 0.5
    independent: bool = False


def map_form(shape: Sequence[int], height: int, width: int, *, bounded: bool) -> ClassMap | None:
    """Return how an output of `shape` for one image is read, None where it is no map of an image `height` by `width`.

    Maps may be smaller than the image by a whole factor. `bounded` says that values are probabilities.
    """
    if len(shape) not in (3, 4):
        return None
    sizes = tuple(shape[1:])
    if len(sizes) == 2:
        return ClassMap(0, 2, 0.5 if bounded else 0.0) if _covers(sizes, height, width) else None
    for axis, area in ((1, sizes[1:]), (3, sizes[:2])):
        if _covers(area, height, width):
            channels = shape[axis]
            return ClassMap(axis, max(2, channels), 0.5 if bounded else 0.0)
    return None


def _covers(area: Sequence[int], height: int, width: int) -> bool:
    """Tell whether a map is the image, or the image made smaller by 2, 4 or 8 both ways."""
    rows, columns = area
    return any(abs(rows * by - height) < by and abs(columns * by - width) < by for by in (1, 2, 4, 8))


def class_maps(output: Floats, form: ClassMap) -> NDArray[np.uint8]:
    """Return the class of every pixel `(N, H, W)` from an output; ties go to the lower class."""
    if form.axis == 0:
        return (output >= form.threshold).astype(np.uint8)
    if output.shape[form.axis] == 1:
        output = np.squeeze(output, axis=form.axis)
        return (output >= form.threshold).astype(np.uint8)
    found: NDArray[np.uint8] = np.asarray(output.argmax(axis=form.axis), np.uint8)
    return found


def as_large_as(maps: NDArray[_Kind], size: tuple[int, int]) -> NDArray[_Kind]:
    """Return maps ``(..., h, w)`` at another size, (height, width), each pixel the nearest one."""
    rows, columns = (
        ((np.arange(wanted) + 0.5) * own / wanted).astype(np.int64)
        for wanted, own in zip(size, maps.shape[-2:], strict=True)
    )
    return maps[..., rows[:, None], columns]


def channel_sums(found: Floats, aim: Floats, form: ClassMap) -> Counts:
    """Return the pixels of each image by independent class: in both, in `aim`, and in `found`, `(N, 3, classes)`."""
    own, other = (
        np.moveaxis(each, form.axis, 1).reshape(len(each), form.classes, -1) >= form.threshold for each in (found, aim)
    )
    return np.stack([(own & other).sum(axis=2), other.sum(axis=2), own.sum(axis=2)], axis=1).astype(np.int64)


def confusion(found: NDArray[np.uint8], aim: NDArray[np.uint8], classes: int) -> Counts:
    """Return the pixels of each image by class there and class found, `(N, classes, classes)`.

    `found` and `aim` are `(N, H, W)`; what `aim` leaves open (`IGNORED`) doesn't count. A found class beyond `classes`
    counts as wrong, in the last column of its row's own class.
    """
    counts = np.zeros((len(aim), classes, classes), np.int64)
    for image, (own, other) in enumerate(zip(found, aim, strict=True)):
        told = other != IGNORED
        pairs = other[told].astype(np.int64) * classes + np.minimum(own[told], classes - 1)
        counts[image] = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return counts


@dataclass(frozen=True)
class Overlap:
    """Intersection over union and Dice coefficient in 0..1, by class and as a mean over the classes that are there.

    None where no pixel says anything.
    """

    iou: float | None
    dice: float | None
    iou_by_class: dict[int, float]


def overlap_of(counts: Counts) -> Overlap:
    """Return the overlaps of a sum of `confusion` `(classes, classes)`; classes in neither map don't count."""
    return overlap_of_sums(np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0))


def overlap_of_sums(hits: Counts, there: Counts, found: Counts) -> Overlap:
    """Return the overlaps of sums of pixels by class ``(classes,)``: hit, there, and given."""
    hits = hits.astype(np.float64)
    union = there + found - hits
    present = np.flatnonzero(union)
    if not present.size:
        return Overlap(None, None, {})
    iou = hits[present] / union[present]
    dice = 2 * hits[present] / (there + found)[present]
    return Overlap(
        float(iou.mean()),
        float(dice.mean()),
        {int(each): float(value) for each, value in zip(present, iou, strict=True)},
    )
