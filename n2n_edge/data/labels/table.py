"""Labels as a table: a CSV file with a column of image files, and columns of numbers or of points."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from n2n_edge.data.labels.checks import Checks, named, numbers
from n2n_edge.data.labels.pictures import is_picture, locate
from n2n_edge.data.labels.values import (
    HIDDEN,
    NOT_LABELLED,
    SPLITS,
    VISIBLE,
    Annotated,
    Floats,
    Label,
    Numbers,
    Points,
    Split,
    flip_index_of,
)
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.metrics.notices import Notice
from n2n_edge.reading import read_text

__all__ = ["read"]

_MOST_BYTES = 100_000_000
_DELIMITERS = ",;\t"
_BEHIND = re.compile(r"(?P<name>.+?)[_. -]?(?P<axis>x|y|v|vis|visible|visibility)", re.IGNORECASE)
_BEFORE = re.compile(r"(?P<axis>x|y|v)[_. -]?(?P<name>.+)", re.IGNORECASE)
_SPLIT_COLUMNS = ("split", "set", "subset")
_HINT = "points are x and y in pixels of the image"


@dataclass(frozen=True)
class _Point:
    """A point's name, and its columns of x, y and, where there is one, visibility."""

    name: str
    x: int
    y: int
    visibility: int | None


def read(path: Path, images: Path | None) -> Annotated:
    """Read a CSV file with a header.

    The column of files is the one whose texts are pictures; a column ``split`` says what each is for. The others are
    numbers, or points where all of them go in pairs such as ``nose_x,nose_y`` or ``x0,y0``, with ``nose_visible`` or
    ``v0`` where there is that. A point without coordinates isn't labelled.

    Raises:
        InputError: no such columns, what is no number, or images that aren't there or stand there twice.
    """
    header, rows = _rows(path)
    column = _file_column(path, header, rows)
    split_column = next((index for index, name in enumerate(header) if name.lower() in _SPLIT_COLUMNS), None)
    used = [index for index in range(len(header)) if index not in (column, split_column)]
    if not used:
        raise InputError(f"{printable(path)}: has no columns of numbers beside {named(header[column])}; add them")
    folders = [images] if images is not None else [path.parent, path.parent / "images", path.parent / "imgs"]
    files = locate([fields[column] for _, fields in rows], folders, path)
    _refuse_repeated(path, rows, column)
    checks = Checks(_HINT)
    sizes = checks.sizes([str(file) for file in files])
    points = _points_of(header, used)
    splits = {
        str(file): _split(path, number, fields[split_column]) if split_column is not None else None
        for (number, fields), file in zip(rows, files, strict=True)
    }
    labels = dict[str, Label | None]()
    if not points:
        for (number, fields), file in zip(rows, files, strict=True):
            if str(file) in sizes:
                values = [_number(path, number, header[index], fields[index]) for index in used]
                labels[str(file)] = Numbers(np.array(values, np.float64))
        return checks.annotated("CSV of numbers", labels, splits, names=[header[index] for index in used])
    table = np.stack([_points(path, number, header, fields, points) for number, fields in rows])
    notices = _in_pixels(table, np.array([sizes.get(str(file), (1, 1)) for file in files], np.float64))
    for (number, _), file, each in zip(rows, files, table, strict=True):
        if str(file) in sizes:
            checks.check_points(f"{printable(path)}, line {number}", each, sizes[str(file)])
            labels[str(file)] = Points(each)
    names = [point.name for point in points]
    return checks.annotated(
        "CSV of points", labels, splits, keypoint_names=names, flip_index=flip_index_of(names), notices=notices
    )


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and the fields of each row with the line that it ends on."""
    text = read_text(path, "a CSV file with a header", _MOST_BYTES)
    first = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    rows: list[tuple[int, list[str]]] = []
    try:
        reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, [field.strip() for field in fields]) for fields in reader if any(fields)]
    except csv.Error as error:
        raise InputError(
            f"{printable(path)}, line {reader.line_num}: can't be read as CSV ({error}); mend it"
        ) from error
    if len(rows) < 2:
        raise InputError(f"{printable(path)}: holds {len(rows)} rows; give a header and a row for each image")
    (_, header), rows = rows[0], rows[1:]
    twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
    if twice is not None:
        raise InputError(f"{printable(path)}: the header names {named(twice)} twice; name each column once")
    for number, fields in rows:
        if len(fields) != len(header):
            raise InputError(
                f"{printable(path)}, line {number}: {len(fields)} fields, but the header has {len(header)}; mend it"
            )
    return header, rows


def _file_column(path: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> int:
    if any(is_picture(Path(field)) for field in header):
        raise InputError(f"{printable(path)}: its first line has no names of columns; add a header")
    columns = [index for index in range(len(header)) if all(is_picture(Path(fields[index])) for _, fields in rows)]
    if len(columns) == 1:
        return columns[0]
    if columns:
        names = ", ".join(named(header[index]) for index in columns)
        raise InputError(f"{printable(path)}: has several columns of image files, {names}; leave one")
    for index in range(len(header)):
        wrong = [(number, fields[index]) for number, fields in rows if not is_picture(Path(fields[index]))]
        if len(wrong) < len(rows) / 2:
            raise InputError(
                f"{printable(path)}, line {wrong[0][0]}, column {named(header[index])}: {named(wrong[0][1])} is no "
                "image file; mend it"
            )
    raise InputError(
        f"{printable(path)}: none of the columns {', '.join(map(named, header[:8]))} holds image files; add one"
    )


def _refuse_repeated(path: Path, rows: Sequence[tuple[int, list[str]]], column: int) -> None:
    lines: dict[str, int] = {}
    for number, fields in rows:
        if fields[column] in lines:
            raise InputError(
                f"{printable(path)}, line {number}: {named(fields[column])} stands in line {lines[fields[column]]}, "
                "too; leave one"
            )
        lines[fields[column]] = number


def _split(path: Path, number: int, text: str) -> Split | None:
    if text and text.lower() not in SPLITS:
        raise InputError(
            f"{printable(path)}, line {number}: split {named(text[:40])}; give train, val, test or nothing"
        )
    return SPLITS[text.lower()] if text else None


def _number(path: Path, number: int, column: str, text: str) -> float:
    return numbers(f"{printable(path)}, line {number}, column {named(column)}", [text])[0]


def _points_of(header: Sequence[str], used: Sequence[int]) -> list[_Point]:
    """Return the points that columns stand for; none where not all of them go in pairs of x and y."""
    for pattern in (_BEHIND, _BEFORE):
        points: dict[str, dict[str, int]] = {}
        for index in used:
            match = pattern.fullmatch(header[index])
            if match is None:
                break
            points.setdefault(match["name"], {})[match["axis"][0].lower()] = index
        else:
            if all({"x", "y"} <= set(axes) for axes in points.values()) and sum(map(len, points.values())) == len(used):
                return [_Point(name, axes["x"], axes["y"], axes.get("v")) for name, axes in points.items()]
    return []


def _points(path: Path, number: int, header: Sequence[str], fields: Sequence[str], points: Sequence[_Point]) -> Floats:
    """Return the points `(K, 3)` of a row."""
    values = np.zeros((len(points), 3))
    for row, point in zip(values, points, strict=True):
        flag = (
            1.0
            if point.visibility is None
            else _number(path, number, header[point.visibility], fields[point.visibility])
        )
        if flag not in (NOT_LABELLED, HIDDEN, VISIBLE):
            raise InputError(
                f"{printable(path)}, line {number}, column {named(header[point.visibility or 0])}: {flag:g} is neither "
                "0, 1 nor 2; mend it"
            )
        if flag == NOT_LABELLED or not (fields[point.x] or fields[point.y]):
            continue
        row[:2] = [_number(path, number, header[index], fields[index]) for index in (point.x, point.y)]
        row[2] = flag
    return values


def _in_pixels(table: Floats, sizes: Floats) -> list[Notice]:
    """Bring points `(N, K, 3)` to pixels where they are shares of the image, and flags of 0 and 1 to COCO's."""
    labelled = table[..., 2] != NOT_LABELLED
    if table[..., 2].max(initial=0) <= HIDDEN:
        table[..., 2] *= VISIBLE
    positions = table[labelled][:, :2]
    if not len(positions) or positions.min() < 0 or positions.max() > 1:
        return []
    table[..., :2] *= sizes[:, None, ::-1]
    return [Notice("shares-of-image", "all coordinates lie in 0..1: they are taken as shares of the image")]
