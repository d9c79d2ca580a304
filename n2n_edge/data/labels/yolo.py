"""Labels as YOLO has them: a text file per image, with boxes, polygons or points as shares of the image."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from n2n_edge.data.labels.checks import Checks, Classes, Row, class_table, named, numbers
from n2n_edge.data.labels.pictures import is_picture, joined, pictures_in
from n2n_edge.data.labels.values import HIDDEN, NOT_LABELLED, SPLITS, VISIBLE, Annotated, Label, Split, flip_index_of
from n2n_edge.errors import InputError, message_of
from n2n_edge.foreign import printable
from n2n_edge.metrics.notices import Notice
from n2n_edge.reading import exists, is_file, read_text

__all__ = ["is_yolo_yaml", "read"]

_KEYS = ("train", "val", "test")
_MOST_YAML_BYTES = 1_000_000
_DEEPEST = 30
_MOST_CLASSES = 100_000
_CLASS_FILES = ("classes.txt", "labels/classes.txt", "obj.names")
_HINT = "coordinates are shares of the image, from 0 to 1"


@dataclass(frozen=True)
class _Image:
    """An image's file, and its path as the data name it, which leads to its label."""

    file: Path
    declared: Path
    split: Split | None


@dataclass(frozen=True)
class _Layout:
    source: Path
    images: list[_Image]
    categories: dict[int, str]
    point_shape: tuple[int, int] | None = None
    point_names: tuple[str, ...] = ()
    flip_index: tuple[int, ...] | None = None
    notices: list[Notice] = field(default_factory=list)


def read(path: Path, images: Path | None, classes: int | Sequence[str] | None) -> Annotated:
    """Read a data.yaml, or a folder with ``images/`` and ``labels/``.

    Without names, of a folder that has no ``classes.txt`` either, classes are called by their numbers.

    Raises:
        InputError: keys that are missing, files that aren't there, or labels that can't be.
    """
    layout = _from_folder(path, images, classes) if path.is_dir() else _from_yaml(path, images)
    checks, labels = Checks(_HINT), dict[str, Label | None]()
    sizes = checks.sizes([str(image.file) for image in layout.images])
    texts = {image.declared: _label_text(image.declared) for image in layout.images}
    categories = layout.categories or _numbered(texts, classes)
    table = class_table(categories, classes)
    _check_files([image.declared for image in layout.images], checks)
    labelled_splits = {image.split for image in layout.images if texts[image.declared] is not None}
    without = 0
    for image in layout.images:
        size, text = sizes.get(str(image.file)), texts[image.declared]
        if size is None:
            continue
        if text is None and image.split not in labelled_splits:
            labels[str(image.file)] = None
            continue
        without += text is None
        rows = list(_rows(image.declared, text or "", size, table, layout.point_shape))
        labels[str(image.file)] = checks.objects(rows, size)
    if all(label is None for label in labels.values()):
        first = layout.images[0]
        raise InputError(
            f"{printable(layout.source)}: none of {len(layout.images):,} images has a label file, "
            f"{named(_label_path(first.declared))} for {named(first.file)}; put labels/ beside images/"
        )
    if without:
        text = f"{without:,} images have no label file: they are taken to hold no object"
        layout.notices.append(Notice("no-label-file", text))
    return checks.annotated(
        "YOLO",
        labels,
        {str(image.file): image.split for image in layout.images},
        names=table.names,
        keypoint_names=layout.point_names,
        flip_index=layout.flip_index,
        notices=[*table.notices, *layout.notices],
    )


def is_yolo_yaml(path: Path) -> bool:
    """Tell whether a YAML file names images or classes as YOLO's do."""
    try:
        document = _yaml(path)
    except InputError:
        return False
    return bool({"train", "val", "names"} & set(document))


def _yaml(path: Path) -> dict[str, Any]:
    """Return the keys of a YAML file without aliases, which a few lines of would stand for gigabytes."""
    import yaml

    text = read_text(path, "the path of a data.yaml", _MOST_YAML_BYTES)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:  # PyYAML takes time with the square of it
                raise InputError(f"{printable(path)}: can't be read as YAML (nested too deeply); mend it")
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{printable(path)}: aliases (*name) aren't read; write out what they stand for")
        for key in _repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader)):
            raise InputError(f"{printable(path)}: {named(key)} stands there twice; leave one")
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(
            f"{printable(path)}: can't be read as YAML ({printable(message_of(error))}); mend it"
        ) from error
    if not isinstance(document, dict):
        raise InputError(f"{printable(path)}: holds no keys; give a data.yaml with train, val and names")
    return {str(key): value for key, value in document.items()}


def _repeated_keys(node: Any, *, within: bool = True) -> Iterator[str]:
    """Give the keys that stand twice in a mapping or in one directly within it; PyYAML takes the last of them."""
    if node is None or node.id != "mapping":
        return
    keys = [key.value for key, _ in node.value if key.id == "scalar"]
    yield from (key for key, count in Counter(keys).items() if count > 1)
    for _, inner in node.value if within else ():
        yield from _repeated_keys(inner, within=False)


def _from_yaml(path: Path, images: Path | None) -> _Layout:
    document, where = _yaml(path), printable(path)
    root = document.get("path") or "."
    if not isinstance(root, str):
        raise InputError(f"{where}: 'path' is {type(root).__name__}, not a text; give the folder of the data")
    splits = {key: SPLITS[key] for key in _KEYS if document.get(key) is not None}
    if not splits:
        raise InputError(f"{where}: has no 'train' and no 'val'; say where the images of each are")
    said = joined(path.parent, root)
    roots = list(dict.fromkeys(folder for folder in (said, path.parent) if folder.is_dir()))
    found: dict[Path, _Image] = {}
    notices, twice = [], 0
    for key, split in splits.items():
        for image in _images_of(where, key, document[key], split, roots, images):
            twice += image.file in found
            found.setdefault(image.file, image)
    if twice:
        text = f"{twice:,} images are named by two splits: they are in the first of {', '.join(splits)}"
        notices.append(Notice("images-in-two-splits", text, "keep splits apart"))
    if said not in roots:
        text = f"{where} gives the path {named(root)}, which isn't there: its own folder is taken"
        notices.append(Notice("moved-data", text))
    point_shape = _point_shape(where, document.get("kpt_shape"))
    point_names = _point_names(document.get("kpt_names"), point_shape)
    return _Layout(
        path,
        list(found.values()),
        _names(where, document),
        point_shape,
        point_names,
        _flip_index(where, document.get("flip_idx"), point_shape) or flip_index_of(point_names),
        notices,
    )


def _names(where: str, document: Mapping[str, Any]) -> dict[int, str]:
    names, count = document.get("names"), document.get("nc")
    if names is None:
        if type(count) is not int:
            raise InputError(f"{where}: has no 'names'; list the classes' names, in the order of their numbers")
        if not 1 <= count <= _MOST_CLASSES:
            raise InputError(f"{where}: 'nc' is {count}; give the number of classes")
        return {index: str(index) for index in range(count)}
    pairs = list(names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else ()))
    if not pairs:
        raise InputError(f"{where}: 'names' is no list of names, and no table of numbers and names; give one")
    for number, name in pairs:
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise InputError(f"{where}: 'names' has the key {named(str(number)[:40])}; number classes from 0")
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise InputError(f"{where}: the name of class {number} is {type(name).__name__}; write it in quotes")
    if isinstance(count, int) and count != len(pairs):
        raise InputError(f"{where}: 'nc' is {count}, but 'names' has {len(pairs)} names; make them agree")
    name, times = Counter(str(name) for _, name in pairs).most_common(1)[0]
    if times > 1:
        raise InputError(f"{where}: 'names' has {named(name)} {times} times; name each class once")
    return {number: str(name) for number, name in pairs}


def _point_shape(where: str, shape: object) -> tuple[int, int] | None:
    if shape is None:
        return None
    if not isinstance(shape, list) or len(shape) != 2 or shape[1] not in (2, 3) or type(shape[0]) is not int:
        raise InputError(f"{where}: 'kpt_shape' must be [points, 2] or [points, 3], as [17, 3]")
    if not 1 <= shape[0] <= 10_000:
        raise InputError(f"{where}: 'kpt_shape' has {shape[0]} points; give at least one")
    return shape[0], shape[1]


def _point_names(names: object, shape: tuple[int, int] | None) -> tuple[str, ...]:
    """Return the points' names; Ultralytics lists them by class, which all have the same."""
    if isinstance(names, dict) and names:
        names = next(iter(names.values()))
    if shape and isinstance(names, list) and len(names) == shape[0] and all(isinstance(name, str) for name in names):
        return tuple(names)
    return tuple(str(index) for index in range(shape[0])) if shape else ()


def _flip_index(where: str, index: object, shape: tuple[int, int] | None) -> tuple[int, ...] | None:
    if index is None or shape is None:
        return None
    if (
        not isinstance(index, list)
        or not all(type(each) is int for each in index)
        or sorted(index) != list(range(shape[0]))
    ):
        raise InputError(f"{where}: 'flip_idx' must hold each of 0 to {shape[0] - 1} once, one for each point")
    return tuple(index)


def _images_of(
    where: str, key: str, value: object, split: Split, roots: Sequence[Path], images: Path | None
) -> Iterator[_Image]:
    """Give the images that a key of data.yaml stands for: folders, text files of paths, or both in a list."""
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, str):
            raise InputError(f"{where}: '{key}' is {type(entry).__name__}, not a path; say where the images are")
        looked = list(_places(entry, roots, images))
        place, declared = next(((each, said) for each, said in looked if exists(each)), (None, None))
        if place is None or declared is None:
            raise InputError(
                f"{where}: '{key}' is {named(entry)}, and there is no {', '.join(named(each) for each, _ in looked)}; "
                "mend it"
            )
        if place.is_dir():
            files = pictures_in(place)
            if not files:
                raise InputError(f"{where}: '{key}' is {named(entry)}, and {named(place)} holds no images; mend it")
            yield from (_Image(file, declared / file.relative_to(place), split) for file in files)
        elif place.suffix.lower() == ".txt":
            yield from _listed(place, split, roots, images)
        elif is_picture(place):
            yield _Image(place, declared, split)
        else:
            raise InputError(f"{where}: '{key}' is {named(entry)}, neither a folder nor a text file; mend it")


def _places(entry: str, roots: Sequence[Path], images: Path | None) -> Iterator[tuple[Path, Path]]:
    """Give where an entry may lie, and the path of it that leads to labels.

    Exports of Roboflow begin with ``../`` what lies beside the file.
    """
    for root in roots:
        yield joined(root, entry), joined(root, entry)
        if entry.startswith("../"):
            yield joined(root, entry[3:]), joined(root, entry[3:])
    if images is not None and roots:
        parts = PurePosixPath(entry.replace("\\", "/")).parts
        tails = [parts, *([parts[parts.index("images") + 1 :]] if "images" in parts else [])]
        for tail in tails:
            yield images.joinpath(*tail), joined(roots[0], entry)


def _listed(source: Path, split: Split, roots: Sequence[Path], images: Path | None) -> Iterator[_Image]:
    lines = read_text(source, "a text file with the path of an image a line", 100_000_000).split("\n")
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if entry:
            for place, declared in _places(entry, [source.parent, *roots], images):
                if is_file(place):
                    yield _Image(place, declared, split)
                    break
            else:
                where = f"{printable(source)}, line {number}"
                raise InputError(f"{where}: there is no image {named(entry)}; mend it")


def _from_folder(path: Path, images: Path | None, classes: int | Sequence[str] | None) -> _Layout:
    """Read ``images/`` and ``labels/``, each with or without train, val and test, or a folder for each of these."""
    names = next((path / name for name in _CLASS_FILES if is_file(path / name)), None)
    categories = {}
    if names is not None:
        lines = [line.strip() for line in read_text(names, "a text file of names").split("\n")]
        categories = dict(enumerate(line for line in lines if line))
    found: list[_Image] = []
    folders: list[tuple[Path, Split | None]] = [
        (path / each / "images", split) for each, split in SPLITS.items() if (path / each / "images").is_dir()
    ]
    for folder, own in folders or [(images or path / "images", None)]:
        for file in pictures_in(folder):
            inner = file.relative_to(folder)
            split = own or (SPLITS.get(inner.parts[0]) if len(inner.parts) > 1 else None)
            declared = path / "images" / inner if images is not None and own is None else file
            found.append(_Image(file, declared, split))
    if not found:
        raise InputError(f"{named(path)} has labels/, but no images in images/; put them there")
    return _Layout(path, found, categories)


def _label_path(declared: Path) -> Path:
    """Return where the labels of an image lie: the last folder ``images`` of its path called ``labels``."""
    parts = list(declared.parts)
    where = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if where:
        parts[where[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _label_text(declared: Path) -> str | None:
    path = _label_path(declared)
    return read_text(path, "a text file with an object a line") if exists(path) else None


def _check_files(declared: Sequence[Path], checks: Checks) -> None:
    """Refuse images that share labels, and count labels of which there is no image."""
    owners: dict[Path, Path] = {}
    for path in declared:
        label = _label_path(path)
        if label in owners and exists(label):
            raise InputError(
                f"{named(label)} may be of {named(owners[label])} or {named(path)}; leave one of the images"
            )
        owners[label] = path
    for folder in sorted({label.parent for label in owners}):
        if folder.is_dir():
            for path in sorted(folder.glob("*.txt")):
                if path not in owners and path.name != "classes.txt" and folder.name != path.stem:
                    checks.note("labels-without-image", "label files have no image", printable(path))


def _numbered(texts: Mapping[Path, str | None], classes: int | Sequence[str] | None) -> dict[int, str]:
    """Return the numbers of classes where they have no names: those that the teacher has, or that there are."""
    if classes is not None:
        return {index: str(index) for index in range(classes if isinstance(classes, int) else len(classes))}
    firsts = {line.split()[0] for text in texts.values() if text for line in text.split("\n") if line.strip()}
    highest = max((int(first) for first in firsts if first.isdecimal() and len(first) < 6), default=-1)
    return {index: str(index) for index in range(highest + 1)}


def _rows(
    declared: Path, text: str, size: tuple[int, int], table: Classes, point_shape: tuple[int, int] | None
) -> Iterator[Row]:
    path, scale = printable(_label_path(declared)), np.array(size[::-1], np.float64)
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, line {number}"
        first, *values = numbers(where, fields)
        if first != int(first) or abs(first) > _MOST_CLASSES:
            raise InputError(f"{where}: the class is {first:g}, not a whole number from 0; mend it")
        kind = table.of(where, int(first))
        if point_shape is not None:
            count, width = point_shape
            if len(values) != 4 + count * width:
                raise InputError(
                    f"{where}: {len(fields)} numbers, where a box and {count} points of {width} have "
                    f"{5 + count * width}; mend it, or 'kpt_shape'"
                )
            points = np.full((count, 3), float(VISIBLE))
            points[:, :width] = np.reshape(values[4:], (count, width))
            if width == 3 and not set(points[:, 2]) <= {NOT_LABELLED, HIDDEN, VISIBLE}:
                raise InputError(f"{where}: the visibility of a point isn't 0, 1 or 2; mend it")
            if width == 2:
                points[(points[:, :2] == 0).all(axis=1), 2] = NOT_LABELLED
            points[:, :2] *= scale
            yield Row(where, kind, _box(values[:4], scale), keypoints=points)
        elif len(values) == 4:
            yield Row(where, kind, _box(values, scale))
        elif len(values) >= 6 and len(values) % 2 == 0:
            polygon = np.reshape(values, (-1, 2)) * scale
            low, high = polygon.min(axis=0), polygon.max(axis=0)
            yield Row(where, kind, (low[0], low[1], high[0], high[1]), shape=(polygon,))
        else:
            raise InputError(
                f"{where}: {len(fields)} numbers, where a class and a box have 5, and a class and a polygon an odd "
                "number from 7; mend it"
            )


def _box(values: Sequence[float], scale: Any) -> tuple[float, float, float, float]:
    """Return edges in pixels of a centre and a size, as shares."""
    x, y, width, height = values
    return (
        float((x - width / 2) * scale[0]),
        float((y - height / 2) * scale[1]),
        float((x + width / 2) * scale[0]),
        float((y + height / 2) * scale[1]),
    )
