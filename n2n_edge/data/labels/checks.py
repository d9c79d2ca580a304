"""What all readers of labels ask of them: readable images, boxes within these, classes that there are."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

import numpy as np
from PIL import Image

from n2n_edge.data.labels.values import NOT_LABELLED, Annotated, Floats, Label, Objects, Shape, Split
from n2n_edge.data.loading import quiet, refuse_unreadable
from n2n_edge.data.pictures import UNREADABLE, unreadable, upright_size
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.metrics.notices import Notice

__all__ = ["Checks", "Classes", "Row", "class_table", "named", "numbers"]

_SILENT_PIXELS = 1.0
_WILD_PIXELS, _WILD_SHARE = 2.0, 0.1
_MANY, _MANY_SHARE = 10, 0.2


def named(path: object) -> str:
    """Return a path, or another text of the data's, in quotes."""
    return f"'{printable(path)}'"


def numbers(where: str, texts: Sequence[object]) -> list[float]:
    """Return finite numbers; raises InputError for anything else."""
    values = []
    for text in texts:
        try:
            if isinstance(text, bool) or not isinstance(text, str | int | float):
                raise ValueError
            value = float(text)
        except (ValueError, OverflowError):
            raise InputError(f"{where}: {named(_short(text))} is no number; mend it") from None
        if not isfinite(value):
            raise InputError(f"{where}: {printable(text)} where a finite number is needed; mend or remove it")
        values.append(value)
    return values


def _short(value: object) -> str:
    if isinstance(value, str):
        return value if len(value) <= 40 else f"{value[:40]}..."
    return str(value)[:40] if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"


@dataclass(frozen=True)
class Classes:
    """The `names` of classes, and which of them each number in the data means."""

    names: tuple[str, ...]
    indices: Mapping[int, int]
    raw: Mapping[int, str]
    limit: int | None = None
    notices: tuple[Notice, ...] = ()

    def of(self, where: str, number: int) -> int:
        """Return the class that a number in the data means.

        Raises:
            InputError: it means none, or one that the teacher hasn't.
        """
        if number not in self.raw:
            first, last = (min(self.raw), max(self.raw)) if self.raw else (0, -1)
            raise InputError(
                f"{where}: there is no class {number}, the names are of {len(self.raw)} classes ({first} to {last}); "
                "mend it, or name the class"
            )
        index = self.indices.get(number)
        if index is None:
            raise InputError(
                f"{where}: class {named(self.raw[number])} isn't among those of ‹classes›; name it, or remove it"
            )
        if self.limit is not None and index >= self.limit:
            raise InputError(
                f"{where}: class {index} ({named(self.raw[number])}), but the teacher has {self.limit} classes, "
                f"0 to {self.limit - 1}; give the data it was trained on"
            )
        return index


def class_table(categories: Mapping[int, str], classes: int | Sequence[str] | None) -> Classes:
    """Return which class each number in the data means.

    `categories` are numbers and their names, `classes` how many the teacher has, or their names in the order of its
    outputs: then names decide. Numbers with gaps, or from 1, are taken as they are where the teacher has as many
    outputs, and else in their order.
    """
    ids = sorted(categories)
    if classes is not None and not isinstance(classes, int):
        given = {name: index for index, name in enumerate(classes)}
        unnamed = all(categories[each] == str(each) for each in ids)
        indices = {each: each if unnamed else given[categories[each]] for each in ids
                   if (each < len(given) if unnamed else categories[each] in given)}  # fmt: skip
        return Classes(tuple(classes), indices, categories)
    if ids == list(range(len(ids))) or (classes is not None and ids and ids[0] >= 0 and len(ids) < classes > ids[-1]):
        names = tuple(categories.get(each, str(each)) for each in range(ids[-1] + 1 if ids else 0))
        table = Classes(names, {each: each for each in ids}, categories, classes)
    else:
        text = f"classes {ids[0]} to {ids[-1]} are numbered 0 to {len(ids) - 1} in their order"
        renumbered = {each: index for index, each in enumerate(ids)}
        note = Notice("classes-renumbered", text, "where the teacher counts otherwise, name its classes in its order")
        table = Classes(tuple(categories[each] for each in ids), renumbered, categories, classes, (note,))
    if classes is not None and len(table.names) != classes:
        text = f"the labels name {len(table.names)} classes, the teacher has {classes}"
        notices = (*table.notices, Notice("class-count", text, "check that they count alike"))
        return replace(table, notices=notices)
    return table


@dataclass(frozen=True, eq=False)
class Row:
    """One object as a file has it, `box` left, top, right, bottom in pixels, and where that stands."""

    where: str
    kind: int
    box: tuple[float, float, float, float]
    crowd: bool = False
    keypoints: Floats | None = None
    shape: Shape | None = None


@dataclass
class Checks:
    """What was odd while labels were read; `hint` says what boxes have to be in the format."""

    hint: str
    counts: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    boxes: int = 0
    points: int = 0

    def note(self, code: str, text: str, where: str) -> None:
        """Count something odd, of which the first is shown."""
        count, first = self.counts.get((code, text), (0, where))
        self.counts[code, text] = (count + 1, first)

    def _count(self, code: str) -> tuple[int, str]:
        return next((each for (kind, _), each in self.counts.items() if kind == code), (0, ""))

    def sizes(self, paths: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return height and width of upright images; one per cent that can't be read is left out."""
        with quiet(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            found = dict(zip(paths, pool.map(_size, paths), strict=True))
        errors = [each for each in found.values() if isinstance(each, str)]
        refuse_unreadable(errors, len(paths), strict=False)
        for error in errors:
            self.note("unreadable-images", "images can't be read and are left out", error.split(": repair")[0])
        return {path: each for path, each in found.items() if not isinstance(each, str)}

    def objects(self, rows: Sequence[Row], size: tuple[int, int], *, distinct: bool = True) -> Objects:
        """Return the objects of an image of `size` (height, width), their boxes within it.

        Of rows that say the same one is taken, where they are to be `distinct`.

        Raises:
            InputError: a box far outside, or with its edges the wrong way round.
        """
        kept: list[Row] = []
        seen: dict[tuple[object, ...], list[Row]] = {}
        for row in rows:
            box = self._within(row, size)
            if box is None:
                continue
            same = seen.setdefault((row.kind, row.box, row.crowd), [])
            if distinct and any(_alike(row, other) for other in same):
                self.note("duplicate-objects", "objects stand there twice and count once", row.where)
                continue
            same.append(row)
            if row.keypoints is not None:
                self.check_points(row.where, row.keypoints, size)
            kept.append(replace(row, box=box))
        pointed = next((len(row.keypoints) for row in kept if row.keypoints is not None), 0)
        blank = np.zeros((pointed, 3))
        return Objects(
            np.array([row.box for row in kept], np.float64).reshape(-1, 4),
            np.array([row.kind for row in kept], np.int64),
            np.array([row.crowd for row in kept], np.bool_) if any(row.crowd for row in kept) else None,
            np.stack([blank if row.keypoints is None else row.keypoints for row in kept]) if pointed else None,
            tuple(row.shape for row in kept) if any(row.shape is not None for row in kept) else None,
        )

    def _within(self, row: Row, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
        """Return a box cut at the edges of its image, None where it has no area."""
        (left, top, right, bottom), (height, width) = row.box, size
        self.boxes += 1
        if right < left or bottom < top:
            raise InputError(f"{row.where}: a box of width {right - left:g} and height {bottom - top:g}; mend it")
        across, along = max(-left, right - width), max(-top, bottom - height)
        if across > max(_WILD_PIXELS, _WILD_SHARE * width) or along > max(_WILD_PIXELS, _WILD_SHARE * height):
            raise InputError(
                f"{row.where}: the box {left:g}, {top:g} to {right:g}, {bottom:g} lies far outside its image of "
                f"{width}x{height} pixels; {self.hint}"
            )
        if max(across, along) > _SILENT_PIXELS:
            self.note("clipped-boxes", "boxes reach out of their image and are cut at its edge", row.where)
        left, right = min(max(left, 0.0), width), min(max(right, 0.0), width)
        top, bottom = min(max(top, 0.0), height), min(max(bottom, 0.0), height)
        if right <= left or bottom <= top:
            self.note("empty-boxes", "boxes without area are left out", row.where)
            return None
        return left, top, right, bottom

    def check_points(self, where: str, points: Floats, size: tuple[int, int]) -> None:
        """Count labelled points `(K, 3)` outside of their image."""
        labelled = points[points[:, 2] != NOT_LABELLED, :2]
        outside = (labelled < -_SILENT_PIXELS) | (labelled > np.array(size[::-1]) + _SILENT_PIXELS)
        self.points += len(labelled)
        for _ in range(int(outside.any(axis=1).sum())):
            self.note("points-outside", "points lie outside of their image", where)

    def annotated(
        self,
        format_name: str,
        labels: Mapping[str, Label | None],
        splits: Mapping[str, Split | None],
        *,
        names: Sequence[str] = (),
        keypoint_names: Sequence[str] = (),
        flip_index: tuple[int, ...] | None = None,
        notices: Sequence[Notice] = (),
    ) -> Annotated:
        """Return what was read.

        Raises:
            InputError: no image is labelled, or too many boxes or points lie outside of their images.
        """
        if all(label is None for label in labels.values()):
            raise InputError(f"{format_name}: none of {len(labels):,} images is labelled; give labels with them")
        for code, total, what in (("clipped-boxes", self.boxes, "boxes"), ("points-outside", self.points, "points")):
            count, first = self._count(code)
            if count > max(_MANY, _MANY_SHARE * total):
                raise InputError(
                    f"{format_name}: {count:,} of {total:,} {what} reach out of their images, the first: {first}; "
                    f"{self.hint}"
                )
        odd = [
            Notice(code, f"{count:,} {text}, the first: {first}")
            for (code, text), (count, first) in self.counts.items()
        ]
        return Annotated(
            format_name,
            tuple(labels),
            tuple(labels.values()),
            tuple(splits.get(path) for path in labels),
            tuple(names),
            tuple(keypoint_names),
            flip_index,
            (*notices, *odd),
        )


def _alike(row: Row, other: Row) -> bool:
    """Tell whether two rows of the same box and class say the same."""
    if (row.keypoints is None) != (other.keypoints is None) or (row.shape is None) != (other.shape is None):
        return False
    if row.keypoints is not None and other.keypoints is not None:
        return np.array_equal(row.keypoints, other.keypoints)
    if isinstance(row.shape, tuple) and isinstance(other.shape, tuple):
        return len(row.shape) == len(other.shape) and all(map(np.array_equal, row.shape, other.shape))
    return row.shape is other.shape


def _size(path: str) -> tuple[int, int] | str:
    """Return height and width of an image once it is upright, or why it can't be read."""
    try:
        with Image.open(path) as image:
            return upright_size(image) if _may_tell(image, path) else (image.height, image.width)
    except UNREADABLE as error:
        return unreadable(f"image {named(path)}", error)


def _may_tell(image: Image.Image, path: str) -> bool:
    """Tell whether EXIF is worth asking for: of a PNG it is decoded only to learn that there is none."""
    if image.format != "PNG":
        return True
    data = Path(path).read_bytes()
    return b"eXIf" in data or b"Raw profile type exif" in data
