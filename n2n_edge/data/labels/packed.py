"""Labels that are more than a class as arrays, as an ``.npz`` file holds them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.labels.values import Label, Mask, Objects, Points
from n2n_edge.errors import InputError

__all__ = ["PACKED", "packed", "unpacked"]

PACKED = ("boxes", "keypoints", "points", "labelled")
"""Names of the arrays beside images and masks."""

_BOXES = "rows of image, left, top, right, bottom and class, with a seventh column of 1 for a crowd"


def packed(labels: Sequence[Label | None], size: tuple[int, int]) -> Mapping[str, NDArray[np.generic]]:
    """Return labels of images of `size` (height, width) as arrays: those of `PACKED`, and masks as ``y``.

    ``boxes`` are ``(M, 7)``: image, left, top, right, bottom, class, crowd; ``keypoints`` ``(M, K, 3)`` are those of
    the same objects; ``points`` ``(N, K, 3)``, ``y`` ``(N, H, W)`` and ``labelled`` ``(N,)`` are by image.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    objects = [(place, each) for place, each in enumerate(labels) if isinstance(each, Objects)]
    if objects:
        rows = [
            np.column_stack([np.full(len(each), place), each.boxes, each.classes, _crowd(each)])
            for place, each in objects
        ]
        arrays["boxes"] = np.concatenate(rows).astype(np.float64)
        points = [each.keypoints for _, each in objects if each.keypoints is not None and len(each)]
        if points:
            blank = np.zeros((1, *points[0].shape[1:]))
            arrays["keypoints"] = np.concatenate(
                [blank.repeat(len(each), 0) if each.keypoints is None else each.keypoints for _, each in objects]
            )
    seen = [each.points for each in labels if isinstance(each, Points)]
    if seen:
        arrays["points"] = np.stack([each.points if isinstance(each, Points) else 0 * seen[0] for each in labels])
    if any(isinstance(each, Mask) for each in labels):
        empty = np.zeros(size, np.uint8)
        arrays["y"] = np.stack([each.pixels if isinstance(each, Mask) else empty for each in labels])
    if None in labels:
        arrays["labelled"] = np.array([each is not None for each in labels])
    return arrays


def _crowd(objects: Objects) -> NDArray[np.bool_]:
    return np.zeros(len(objects), np.bool_) if objects.crowd is None else objects.crowd


def unpacked(where: Callable[[str], str], arrays: Mapping[str, NDArray[np.generic]], count: int) -> list[object] | None:
    """Return the label of each of `count` images as a function's Dataset would give it; None where there are none.

    `where` gives what errors call an array.

    Raises:
        InputError: arrays of another form, or of more or fewer images.
    """
    labelled = arrays.get("labelled", np.ones(count, np.bool_))
    for name, array in (("labelled", labelled), ("points", arrays.get("points")), ("y", arrays.get("y"))):
        if array is not None and (array.ndim < 1 or len(array) != count):
            raise InputError(f"{where(name)} has the shape {array.shape} for {count} images: give one for each image")
    if labelled.ndim != 1:
        raise InputError(f"{where('labelled')} has the shape {labelled.shape}: give 1 or 0 for each image, (N,)")
    forms = [name for name in ("boxes", "points", "y") if name in arrays]
    if not forms:
        return None
    if len(forms) > 1:
        raise InputError(f"{', '.join(map(where, forms))}: labels of several kinds; leave one")
    if forms == ["boxes"]:
        targets = _objects(where, arrays["boxes"], arrays.get("keypoints"), count)
    else:
        targets = [{"mask" if forms == ["y"] else "points": each} for each in arrays[forms[0]]]
    return [each if known else None for each, known in zip(targets, labelled, strict=True)]


def _objects(
    where: Callable[[str], str], boxes: NDArray[np.generic], keypoints: NDArray[np.generic] | None, count: int
) -> list[object]:
    if boxes.ndim != 2 or boxes.shape[1] not in (6, 7) or boxes.dtype.kind not in "iuf":
        raise InputError(f"{where('boxes')} has the shape {boxes.shape}: give {_BOXES}, (M, 6) or (M, 7)")
    images = boxes[:, 0]
    wrong = ~np.isin(images, np.arange(count))
    if wrong.any():
        raise InputError(
            f"{where('boxes')} has the image {images[wrong][0]:g} in row {int(np.argmax(wrong))}, but images go from "
            f"0 to {count - 1}: give {_BOXES}"
        )
    if keypoints is not None and len(keypoints) != len(boxes):
        raise InputError(f"{where('keypoints')} has {len(keypoints)} rows for {len(boxes)} boxes: give one for each")
    targets: list[object] = []
    order = np.argsort(images, kind="stable")
    starts = np.searchsorted(images[order], np.arange(count + 1))
    for place in range(count):
        rows = order[starts[place] : starts[place + 1]]
        targets.append(
            {
                "boxes": boxes[rows, 1:5],
                "labels": boxes[rows, 5],
                "iscrowd": boxes[rows, 6] if boxes.shape[1] > 6 else None,
                "keypoints": None if keypoints is None or not len(rows) else keypoints[rows],
            }
        )
    return targets
