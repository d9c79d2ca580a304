"""Labels that come with images from a person's own code: boxes, masks and points as dictionaries."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.labels.checks import Checks, Row
from n2n_edge.data.labels.geometry import following, transformed
from n2n_edge.data.labels.masks import BINARY_MASKS, is_binary, too_high
from n2n_edge.data.labels.values import (
    HIDDEN,
    IGNORED,
    NOT_LABELLED,
    VISIBLE,
    Annotated,
    Floats,
    Label,
    Mask,
    Objects,
    Points,
    Split,
    highest_class,
    mask_values,
)
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.metrics.notices import Notice

__all__ = ["Targets", "as_numbers"]

_HINT = "boxes are left, top, right, bottom, and points x, y, in pixels of the image as it is given"
_WANTED = (
    "give a dict of 'boxes' (n, 4) and 'labels' (n,), of a 'mask' (height, width), or of 'points' (K, 2) or (K, 3)"
)
_FORMS = {"boxes": "boxes", "mask": "mask", "points": "points", "keypoints": "points"}


@dataclass
class Targets:
    """The labels of a data set's images, as one comes after the other; errors call the data `where`.

    `classes` gives how many classes the teacher has, or their names; it is asked for once, where there are labels.
    """

    where: str
    classes: Callable[[], int | Sequence[str] | None]
    _checks: Checks = field(default_factory=lambda: Checks(_HINT))
    _told: "list[int | Sequence[str] | None]" = field(default_factory=list)
    _labels: list[Label | None] = field(default_factory=list)
    _splits: list[Split | None] = field(default_factory=list)
    _images: list[str] = field(default_factory=list)
    _values: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    _extreme: set[int] = field(default_factory=set)
    """Which masks held 0 and 255 alone: they are kept as 0 and 1 until it is known what 255 means."""

    @staticmethod
    def are(target: object, size: tuple[int, int]) -> bool:
        """Tell whether what comes with an image of `size` (height, width) is such a label, and no class or number.

        An array of whole numbers of the image's size is a mask.
        """
        if isinstance(target, Mapping | Objects | Points | Mask | Image.Image):
            return True
        shape, kind = tuple(getattr(target, "shape", ())), str(getattr(target, "dtype", ""))
        return shape in (size, (1, *size)) and min(size) > 1 and any(each in kind for each in ("int", "bool"))

    def add(
        self, where: str, target: object, size: tuple[int, int], preprocessing: Preprocessing, split: Split | None
    ) -> None:
        """Take the label of the next image, of `size` (height, width), or None for one that isn't labelled.

        Raises:
            InputError: it is no label, or says what can't be of the image.
        """
        label = None if target is None else self._label(where, target, size)
        if label is not None and size != preprocessing.size:  # images of the input's size are taken as they are
            label = transformed(label, following(preprocessing, size), preprocessing.size)
        self._labels.append(label)
        self._splits.append(split)
        self._images.append(where)

    def annotated(self) -> Annotated:
        """Return all labels, in pixels of the network's input, with the names of their classes.

        Raises:
            InputError: classes that the teacher hasn't, or labels of several kinds.
        """
        labels = self._labels
        kinds = {type(each) for each in labels if each is not None}
        if len(kinds) > 1:
            shown = " and ".join(sorted(kind.__name__.lower() for kind in kinds))
            raise InputError(f"{self.where} has {shown} as labels: give the same kind for every image")
        notices = self._settle_extremes()
        names = [] if kinds == {Points} else self._names(labels)
        points = next((len(each.points) for each in labels if isinstance(each, Points)), 0)
        self._check_points(labels)
        annotated = self._checks.annotated(
            self.where,
            dict(zip(self._images, labels, strict=True)),
            dict(zip(self._images, self._splits, strict=True)),
            names=names,
            keypoint_names=[str(place) for place in range(points)],
            notices=notices,
        )
        return replace(annotated, format="Dataset")

    @property
    def _limit(self) -> int | None:
        """How many classes the teacher has."""
        if not self._told:
            self._told.append(self.classes())
        told = self._told[0]
        return told if told is None or isinstance(told, int) else len(told)

    def _names(self, labels: Sequence[Label | None]) -> list[str]:
        highest = max(map(highest_class, labels), default=0)
        limit = self._limit
        told = self._told[0]
        if told is not None and not isinstance(told, int):
            return list(told)
        return [str(each) for each in range(highest + 1 if limit is None else limit)]

    def _label(self, where: str, target: object, size: tuple[int, int]) -> Label:
        match target:
            case Objects():
                return self._objects(where, vars(target) | {"labels": target.classes, "iscrowd": target.crowd}, size)
            case Points():
                return self._points(where, target.points, size)
            case Mask():
                return self._mask(where, target.pixels, size)
            case Mapping():
                pass
            case _:
                return self._mask(where, target, size)
        given = {key: value for key, value in target.items() if value is not None}
        forms = {_FORMS[key] for key in given if key in _FORMS}
        if "boxes" in given:
            forms.discard("points")  # those of the objects
        if len(forms) != 1:
            held = ", ".join(printable(repr(key)) for key in list(target)[:6]) or "nothing"
            raise InputError(f"{where} has a dict that holds {held} as its label: {_WANTED}")
        match forms.pop():
            case "boxes":
                return self._objects(where, given, size)
            case "mask":
                return self._mask(where, given["mask"], size)
        return self._points(where, given.get("points", given.get("keypoints")), size)

    def _objects(self, where: str, given: Mapping[str, Any], size: tuple[int, int]) -> Objects:
        form = getattr(getattr(given["boxes"], "format", None), "name", "XYXY")  # of torchvision's BoundingBoxes
        if form != "XYXY":
            raise InputError(f"{where} has boxes as {form}: convert them to XYXY (left, top, right, bottom)")
        boxes = as_numbers(f"{where}: its boxes", given["boxes"]).astype(np.float64)
        boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
        kinds = given.get("labels", given.get("classes"))
        if boxes.ndim != 2 or boxes.shape[1] != 4 or kinds is None:
            labelled = "" if kinds is not None else " and no 'labels'"
            raise InputError(f"{where} has boxes of shape {boxes.shape}{labelled}: give 'boxes' (n, 4), 'labels' (n,)")
        classes = as_numbers(f"{where}: its labels", kinds).reshape(-1)
        parts = {"labels": classes}
        for name, key in (("iscrowd", "iscrowd"), ("keypoints", "keypoints")):
            if given.get(key) is not None:
                parts[name] = as_numbers(f"{where}: its {name}", given[key])
        for name, part in parts.items():
            if len(part) != len(boxes):
                raise InputError(f"{where} has {len(boxes)} boxes and {len(part)} {name}: give one for each")
        if not np.array_equal(classes, np.floor(classes)):
            raise InputError(f"{where} has labels that are no whole numbers: give class numbers from 0")
        if len(boxes) and boxes.max() <= 1 and boxes.min() >= 0 and min(size) > 1:
            raise InputError(f"{where} has boxes within 0..1: give pixels, times the image's width and height")
        rows = []
        for place, (box, kind) in enumerate(zip(boxes, classes, strict=True)):
            of = f"{where}, object {place}"
            self._check_class(of, int(kind))
            left, top, right, bottom = (float(edge) for edge in box)
            points = None if "keypoints" not in parts else _seen(of, parts["keypoints"][place])
            crowd = "iscrowd" in parts and bool(parts["iscrowd"][place])
            rows.append(Row(of, int(kind), (left, top, right, bottom), crowd, points))
        return self._checks.objects(rows, size)

    def _check_class(self, where: str, kind: int) -> None:
        limit = self._limit
        if kind < 0:
            raise InputError(f"{where} has class {kind}: number classes from 0")
        if limit is not None and kind >= limit:
            raise InputError(f"{where} has class {kind}, but the teacher has {limit} classes, 0 to {limit - 1}")

    def _points(self, where: str, given: object, size: tuple[int, int]) -> Points:
        points = _seen(where, as_numbers(f"{where}: its points", given))
        labelled = points[points[:, 2] != NOT_LABELLED, :2]
        if len(labelled) and labelled.max() <= 1 and labelled.min() >= 0 and min(size) > 1:
            raise InputError(f"{where} has points within 0..1: give pixels, times the image's width and height")
        self._checks.check_points(where, points, size)
        return Points(points)

    def _check_points(self, labels: Sequence[Label | None]) -> None:
        counts = {len(each.points) for each in labels if isinstance(each, Points)}
        counts |= {
            each.keypoints.shape[1]
            for each in labels
            if isinstance(each, Objects) and each.keypoints is not None and len(each)
        }
        if len(counts) > 1:
            raise InputError(
                f"{self.where} has labels of {' and '.join(map(str, sorted(counts)))} points: give equally many for "
                "each image, with visibility 0 where one isn't labelled"
            )

    def _mask(self, where: str, given: object, size: tuple[int, int]) -> Mask:
        if isinstance(given, Image.Image):
            try:
                values: NDArray[Any] = mask_values(given, None)
            except ValueError as error:
                raise InputError(
                    f"{where}: its mask {error}; give class numbers, 255 where a pixel is ignored"
                ) from None
        else:
            values = as_numbers(f"{where}: its mask", given)
        values = values[0] if values.ndim == 3 and len(values) == 1 else values
        if values.shape != size:
            raise InputError(
                f"{where} has a mask of shape {values.shape}, its image is {size[0]} high and {size[1]} wide: give the "
                "class of every pixel, (height, width)"
            )
        low, high = values.min(), values.max()
        if low < 0 or high > IGNORED or not np.array_equal(values, np.floor(values)):
            raise InputError(
                f"{where} has a mask of values from {low:g} to {high:g}: give whole numbers, classes from 0 to 254, "
                "and 255 where a pixel is ignored"
            )
        pixels, limit = values.astype(np.uint8), self._limit
        counts = np.bincount(pixels.ravel(), minlength=256)
        self._values += counts
        if not counts[1:IGNORED].any() and counts[IGNORED]:
            self._extreme.add(len(self._labels))
            return Mask(pixels // IGNORED)
        most = int(np.flatnonzero(counts[:IGNORED]).max(initial=0))
        if limit is not None and most >= limit:
            raise too_high(f"the mask of {where}", most, f"the teacher has {limit} classes, 0 to {limit - 1}")
        return Mask(pixels)

    def _settle_extremes(self) -> list[Notice]:
        """Let 255 be ignored where any mask holds a class between; masks of 0 and 255 alone have two classes."""
        if not self._extreme:
            return []
        if not self._values[1:IGNORED].any() and is_binary(self._values, self._limit):
            return [BINARY_MASKS]
        for place in self._extreme:
            label = self._labels[place]
            if isinstance(label, Mask):
                self._labels[place] = Mask(np.where(label.pixels == 1, np.uint8(IGNORED), label.pixels))
        return []


def _seen(where: str, points: NDArray[Any]) -> Floats:
    """Return points `(K, 3)` with their visibility; those that come without it are visible."""
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not len(points):
        raise InputError(
            f"{where} has points of shape {points.shape}: give x, y, or x, y and visibility, for each, (K, 2) or (K, 3)"
        )
    if points.shape[1] == 2:
        return np.column_stack([points, np.full(len(points), VISIBLE)]).astype(np.float64)
    odd = ~np.isin(points[:, 2], (NOT_LABELLED, HIDDEN, VISIBLE))
    if odd.any():
        raise InputError(
            f"{where} has the visibility {points[odd, 2][0]:g}: give 0 (not labelled), 1 (hidden) or 2 (visible)"
        )
    seen = points.astype(np.float64)
    seen[seen[:, 2] == NOT_LABELLED] = 0
    return seen


def as_numbers(where: str, given: object) -> NDArray[Any]:
    """Return arrays, tensors and lists as finite numbers; raises InputError for anything else."""
    try:
        values = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except (TypeError, ValueError, RuntimeError):
        values = np.asarray(None)
    if values.dtype.kind not in "biuf" or (values.dtype.kind == "f" and not np.isfinite(values).all()):
        raise InputError(f"{where} are no finite numbers; give an array, a tensor or a list of them")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values
