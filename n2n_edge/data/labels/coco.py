"""Labels as COCO has them: JSON of images, categories, and annotations with boxes, outlines and keypoints."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from n2n_edge.data.labels.checks import Checks, Row, class_table, named, numbers
from n2n_edge.data.labels.pictures import locate
from n2n_edge.data.labels.run_lengths import RunLengths
from n2n_edge.data.labels.values import (
    HIDDEN,
    NOT_LABELLED,
    SPLITS,
    VISIBLE,
    Annotated,
    Floats,
    Label,
    Shape,
    Split,
    flip_index_of,
)
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.metrics.notices import Notice
from n2n_edge.reading import read_json

__all__ = ["read", "split_of"]

_SPLIT = re.compile(r"(?<![a-z])(train|val|valid|validation|test)(?:ing)?(?=\d|[^a-z]|$)", re.IGNORECASE)
_HINT = "bbox is left, top, width and height in pixels"
_MOST_POINTS = 10_000


def split_of(path: Path) -> Split | None:
    """Return what a file of annotations is for by its name, or that of its folder."""
    found = _SPLIT.search(path.stem) or _SPLIT.search(path.parent.name)
    return SPLITS[found[1].lower()] if found else None


def read(paths: Sequence[Path], images: Path | None, classes: int | Sequence[str] | None) -> Annotated:
    """Read JSON files, one for each split, which have the same categories.

    Category numbers count from 0 in their order. Raises InputError for files that aren't COCO's, contradict themselves,
    or name images that aren't there.
    """
    documents = {path: _document(path) for path in paths}
    categories, keypoint_names = _categories(documents)
    table = class_table(categories, classes)
    checks, labels, splits = Checks(_HINT), dict[str, Label | None](), dict[str, Split | None]()
    notices: list[Notice] = []
    for path, document in documents.items():
        reader = _Reader(path, document, table.of, len(keypoint_names), checks)
        files = locate([name for _, name in reader.images], _folders(path, images), path)
        sizes = checks.sizes([str(file) for file in files])
        twice, own = 0, set[str]()
        for (number, name), file in zip(reader.images, files, strict=True):
            size = sizes.get(str(file))
            if str(file) in own:
                raise InputError(f"{printable(path)}: {named(name)} is named twice; leave one")
            own.add(str(file))
            if str(file) in labels:
                twice += 1
            elif size is not None:
                labels[str(file)] = checks.objects(list(reader.rows(number, name, size)), size, distinct=False)
                splits[str(file)] = split_of(path) if len(paths) > 1 else None
        if twice:
            text = f"{twice:,} images of {named(path.name)} are in another split, too, and stay there"
            notices.append(Notice("images-in-two-splits", text, "keep splits apart"))
    return checks.annotated(
        "COCO",
        labels,
        splits,
        names=table.names,
        keypoint_names=keypoint_names,
        flip_index=flip_index_of(keypoint_names),
        notices=[*table.notices, *notices],
    )


def _folders(path: Path, images: Path | None) -> list[Path]:
    """Return where the images of a file may lie."""
    if images is not None:
        return [images, *([images / each for each in _part_names(path)])]
    near = [path.parent, path.parent / "images", path.parent.parent, path.parent.parent / "images"]
    return [folder / part for part in ("", *_part_names(path)) for folder in near]


def _part_names(path: Path) -> list[str]:
    """Return the folders that a file ``instances_train2017.json`` may mean: ``train2017`` and ``train``."""
    last = path.stem.rsplit("_", 1)[-1]
    found = _SPLIT.search(path.stem)
    return list(dict.fromkeys([last, *([found[1]] if found else [])]))


def _document(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the lists of a COCO file, whose items are objects."""
    document = read_json(path, "a JSON file as COCO has it")
    if not isinstance(document, dict):
        raise InputError(f"{printable(path)}: isn't COCO's, it holds no object; give one with images and annotations")
    for key in ("images", "annotations", "categories"):
        if key not in document:
            raise InputError(f"{printable(path)}: has no '{key}', as COCO's JSON has; give a file of annotations")
        items = document[key]
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise InputError(f"{printable(path)}: '{key}' is no list of objects; mend it")
    return document


def _whole(where: str, item: Mapping[str, Any], key: str) -> int:
    value = item.get(key)
    if type(value) is not int or abs(value) >= 2**63:
        raise InputError(f"{where}: '{key}' is {named(str(value)[:40])}, not a whole number; mend it")
    return value


def _categories(documents: Mapping[Path, Mapping[str, list[dict[str, Any]]]]) -> tuple[dict[int, str], tuple[str, ...]]:
    """Return the categories' names by number, and the names of keypoints, which all that have them share."""
    result: dict[int, str] | None = None
    points: list[tuple[str, ...]] = []
    for path, document in documents.items():
        names: dict[int, str] = {}
        for index, item in enumerate(document["categories"]):
            where = f"{printable(path)}, categories[{index}]"
            number, name = _whole(where, item, "id"), item.get("name")
            if not isinstance(name, str):
                raise InputError(f"{where}: has no 'name'; name the class")
            if number in names:
                raise InputError(f"{where}: the id {number} stands there twice; leave one")
            names[number] = name
            keypoints = item.get("keypoints")
            if isinstance(keypoints, list) and keypoints:
                if len(keypoints) > _MOST_POINTS or not all(isinstance(each, str) for each in keypoints):
                    raise InputError(f"{where}: 'keypoints' is no list of names; mend it")
                points.append(tuple(keypoints))
        if result is not None and names != result:
            raise InputError(
                f"{printable(path)}: has other categories than {printable(next(iter(documents)))}; use the same"
            )
        result = names
    if not result:
        raise InputError(f"{printable(next(iter(documents)))}: has no categories; name the classes")
    if len(set(points)) > 1:
        raise InputError(f"{printable(next(iter(documents)))}: classes have different keypoints; give one set of them")
    return result, points[0] if points else ()


class _Reader:
    """The images of one file, and the rows of each."""

    def __init__(
        self, path: Path, document: Mapping[str, list[dict[str, Any]]], class_of: Any, points: int, checks: Checks
    ) -> None:
        self._path, self._class_of, self._points, self._checks = printable(path), class_of, points, checks
        self.images: list[tuple[int, str]] = []
        self._sizes: dict[int, tuple[object, object]] = {}
        for index, item in enumerate(document["images"]):
            where = f"{self._path}, images[{index}]"
            number, name = _whole(where, item, "id"), item.get("file_name")
            if not isinstance(name, str) or not name:
                raise InputError(f"{where}: has no 'file_name'; name the image")
            if number in self._sizes:
                raise InputError(f"{where}: the id {number} stands there twice; leave one")
            self._sizes[number] = (item.get("height"), item.get("width"))
            self.images.append((number, name))
        if not self.images:
            raise InputError(f"{self._path}: names no images; give a file that does")
        self._of_image: dict[int, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for index, item in enumerate(document["annotations"]):
            where = f"{self._path}, annotations[{index}]"
            number = _whole(where, item, "image_id")
            if number not in self._sizes:
                raise InputError(f"{where}: there is no image with the id {number}; mend or remove it")
            self._of_image[number].append((where, item))

    def rows(self, number: int, name: str, size: tuple[int, int]) -> Iterator[Row]:
        """Give the objects of an image of `size` (height, width)."""
        said = self._sizes[number]
        if None not in said and said != size:
            shown = "x".join(printable(str(side)[:20]) for side in said[::-1])
            turned = " (it is turned by its EXIF orientation)" if said == size[::-1] else ""
            raise InputError(
                f"{self._path}: image {named(name)} is said to have {shown} pixels, "
                f"but has {size[1]}x{size[0]}{turned}; annotate the image as it is"
            )
        for where, item in self._of_image[number]:
            kind = self._class_of(where, _whole(where, item, "category_id"))
            crowd = item.get("iscrowd", 0)
            if crowd not in (0, 1):
                raise InputError(f"{where}: 'iscrowd' is {named(str(crowd)[:40])}, not 0 or 1; mend it")
            shape = self._shape(where, item.get("segmentation"), size)
            yield Row(where, kind, self._box(where, item, shape), bool(crowd), self._keypoints(where, item), shape)

    def _box(self, where: str, item: Mapping[str, Any], shape: Shape | None) -> tuple[float, float, float, float]:
        box = item.get("bbox")
        if box is None and isinstance(shape, tuple):
            points = np.concatenate(shape)
            (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
            return float(left), float(top), float(right), float(bottom)
        if not isinstance(box, list) or len(box) != 4:
            raise InputError(f"{where}: 'bbox' isn't four numbers; give left, top, width and height")
        left, top, width, height = numbers(where, box)
        return left, top, left + width, top + height

    def _shape(self, where: str, outline: object, size: tuple[int, int]) -> Shape | None:
        if outline is None or outline == []:
            return None
        if isinstance(outline, dict):
            if outline.get("size") != list(size):
                raise InputError(
                    f"{where}: the outline's size is {printable(str(outline.get('size'))[:40])}, the image's "
                    f"[{size[0]}, {size[1]}]; mend it"
                )
            try:
                return RunLengths.checked(outline.get("counts"), size)
            except (ValueError, OverflowError) as error:
                raise InputError(f"{where}: {error}; mend it") from error
        if not isinstance(outline, list) or not all(isinstance(each, list) for each in outline):
            raise InputError(f"{where}: 'segmentation' is neither polygons nor run lengths; mend or remove it")
        polygons = []
        for each in outline:
            if len(each) % 2:
                raise InputError(f"{where}: a polygon of {len(each)} numbers; give x and y of each corner")
            if len(each) < 6:
                self._checks.note("short-polygons", "polygons of less than three corners are left out", where)
                continue
            polygons.append(np.reshape(numbers(where, each), (-1, 2)))
        return tuple(polygons) or None

    def _keypoints(self, where: str, item: Mapping[str, Any]) -> Floats | None:
        values = item.get("keypoints")
        if values is None or not self._points:
            return None
        if not isinstance(values, list) or len(values) != 3 * self._points:
            count = len(values) if isinstance(values, list) else "no"
            raise InputError(
                f"{where}: 'keypoints' has {count} numbers, its class has {self._points} points of 3; mend it"
            )
        points = np.reshape(numbers(where, values), (-1, 3))
        if not set(points[:, 2]) <= {NOT_LABELLED, HIDDEN, VISIBLE}:
            raise InputError(f"{where}: the visibility of a keypoint isn't 0, 1 or 2; mend it")
        return points
