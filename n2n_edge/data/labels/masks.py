"""Labels as masks: a picture for each image, in which a value, or a colour, stands for a class."""

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.labels.checks import Checks, named
from n2n_edge.data.labels.pictures import by_stem, is_picture, pictures_in
from n2n_edge.data.labels.values import IGNORED, SPLITS, Annotated, Label, MaskFile, Split, mask_values
from n2n_edge.data.labels.voc import splits_of
from n2n_edge.data.loading import quiet
from n2n_edge.data.pictures import UNREADABLE, unreadable
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.metrics.notices import Notice
from n2n_edge.reading import is_file, read_text

__all__ = ["BINARY_MASKS", "TABLES", "is_binary", "pairs_of", "read", "too_high"]

IMAGES = ("images", "JPEGImages", "Images", "imgs", "image")
MASKS = ("masks", "SegmentationClass", "Masks", "mask", "annotations", "labels")
TABLES = ("labelmap.txt", "class_dict.csv")
BINARY_MASKS = Notice("binary-masks", "masks hold 0 and 255 alone: 255 is taken as class 1, not as ignored")
_NAMES = "classes.txt"
_VOID = frozenset({"void", "ignore", "ignored", "unlabelled", "unlabeled"})
_ROW = re.compile(r"\s*(.*?)\s*[:,;]\s*(\d{1,3})\s*[,; ]\s*(\d{1,3})\s*[,; ]\s*(\d{1,3})\s*(?:[:;,].*)?")


@dataclass(frozen=True)
class _Table:
    """The `names` of classes, and which class each colour is."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int], ...]


def pairs_of(root: Path, images: Path | None = None) -> list[tuple[Split | None, Path, Path]]:
    """Return folders of images and of their masks, and what they are for.

    ``images/`` and ``masks/`` lie in the folder, or in ``train/`` and the like; where `images` are given the folder may
    hold the masks itself.
    """
    pair = _pair(root, images)
    if pair is not None:
        return [(None, *pair)]
    inner = [(split, _pair(root / name, None)) for name, split in SPLITS.items() if (root / name).is_dir()]
    pairs: list[tuple[Split | None, Path, Path]] = [(split, *each) for split, each in inner if each is not None]
    if not pairs and images is not None and images != root and any(is_picture(each) for each in root.iterdir()):
        return [(None, images, root)]
    return pairs


def _pair(root: Path, images: Path | None) -> tuple[Path, Path] | None:
    pictures = images or next((root / name for name in IMAGES if (root / name).is_dir()), None)
    folders = [root, *(root / name for name in MASKS)] if root.name in MASKS else [root / name for name in MASKS]
    masks = next((each for each in folders if each.is_dir() and each != pictures and pictures_in(each)), None)
    if pictures is None and root.name in MASKS:
        pictures = next((root.parent / name for name in IMAGES if (root.parent / name).is_dir()), None)
    return None if pictures is None or masks is None else (pictures, masks)


def read(root: Path, images: Path | None, classes: int | Sequence[str] | None) -> Annotated:
    """Read images and masks that are called alike (or ``NAME_mask``); an image without a mask isn't labelled.

    Values are classes, of a palette its indices, and 255 is ignored; masks of 0 and 255 alone have two classes. Colours
    are classes by a ``labelmap.txt`` (name:r,g,b) or ``class_dict.csv`` (name,r,g,b) beside the folders.

    Raises:
        InputError: masks of another size than their image, of classes that the teacher hasn't, or without images.
    """
    top = root.parent if any(masks == root for _, _, masks in pairs_of(root, images)) else root
    table, checks = _table(top, classes), Checks("")
    files: dict[str, tuple[Path | None, Split | None]] = {}
    notices: list[Notice] = []
    for split, pictures, masks in pairs_of(root, images):
        for image, (mask, own) in _matched(pictures, masks, top, notices).items():
            files[str(image)] = (mask, split or own)
    sizes = checks.sizes(list(files))
    chosen = {image: str(mask) for image, (mask, _) in files.items() if mask is not None and image in sizes}
    found = _look_at(chosen, sizes, table)
    values = np.array(sum(found.values(), np.zeros(256, np.int64)))
    binary = table is None and values[1:IGNORED].sum() == 0 and values[IGNORED] > 0 and is_binary(values, classes)
    if binary:
        notices.append(BINARY_MASKS)
    highest = {
        image: 1 if binary else int(np.flatnonzero(each[:IGNORED]).max(initial=0)) for image, each in found.items()
    }
    names = _names(top, table, classes) or tuple(str(each) for each in range(max(highest.values(), default=0) + 1))
    for each, most in highest.items():
        where = f"mask {named(chosen[each])}"
        if isinstance(classes, int) and most >= classes:
            raise too_high(where, most, f"the teacher has {classes} classes, 0 to {classes - 1}")
        if most >= len(names):
            raise too_high(where, most, f"{len(names)} classes are named, 0 to {len(names) - 1}")
    if isinstance(classes, int) and len(names) != classes:
        text = f"the labels name {len(names)} classes, the teacher has {classes}"
        notices.append(Notice("class-count", text, "check that they count alike"))
    labels: dict[str, Label | None] = {
        image: MaskFile(chosen[image], sizes[image], table.colours if table else None, bool(binary))
        if image in chosen else None
        for image in files if image in sizes
    }  # fmt: skip
    splits = {image: split for image, (_, split) in files.items()}
    return checks.annotated("image and mask pairs", labels, splits, names=names, notices=notices)


def _matched(
    pictures: Path, masks: Path, root: Path, notices: list[Notice]
) -> dict[Path, tuple[Path | None, Split | None]]:
    """Return the mask of each image, and what it is for."""
    images = by_stem((path for path in pictures_in(pictures) if masks not in path.parents), pictures, "images")
    found = by_stem((path for path in pictures_in(masks) if pictures not in path.parents), masks, "masks")
    spare = dict(found)
    pairs: dict[Path, tuple[Path | None, Split | None]] = {}
    said: Mapping[str, Split] = {}
    if masks.name == "SegmentationClass":
        said, odd = splits_of(root, "Segmentation", {stem: stem for stem in images})
        notices.extend(odd)
    for stem, path in images.items():
        mask = spare.pop(stem, None) or spare.pop(f"{stem}_mask", None)
        pairs[path] = (mask, said.get(stem) or SPLITS.get(stem.split("/")[0] if "/" in stem else ""))
    if spare:
        raise InputError(
            f"{len(spare):,} of {len(found):,} masks have no image in {named(pictures)}, the first: "
            f"{named(next(iter(spare.values())))}; call images and masks alike"
        )
    return pairs


def _look_at(
    chosen: Mapping[str, str], sizes: Mapping[str, tuple[int, int]], table: _Table | None
) -> dict[str, NDArray[np.int64]]:
    """Return how often each value is in the mask of each image; raises InputError for a mask that can't be one."""

    def look(image: str) -> NDArray[np.int64]:
        mask = named(chosen[image])
        try:
            with Image.open(chosen[image]) as picture:
                if (picture.height, picture.width) != sizes[image]:
                    height, width = sizes[image]
                    raise InputError(
                        f"mask {mask} has {picture.width}x{picture.height} pixels, its image {named(image)} has "
                        f"{width}x{height}; give a mask of the same size"
                    )
                if picture.format == "JPEG":
                    raise InputError(f"mask {mask} is a JPEG, whose values aren't exact; save masks as PNG")
                values = mask_values(picture, table.colours if table else None)
        except ValueError as error:
            raise InputError(f"mask {mask} {printable(error)}; {_REMEDY}") from error
        except UNREADABLE as error:
            raise InputError(unreadable(f"mask {mask}", error)) from error
        return np.bincount(values.ravel(), minlength=256).astype(np.int64)

    with quiet(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(chosen, pool.map(look, chosen), strict=True))


_REMEDY = f"give a value from 0 to 254 for each class, or a table of colours ({' or '.join(TABLES)})"


def is_binary(values: NDArray[np.int64], classes: int | Sequence[str] | None) -> bool:
    """Tell whether 0 and 255 are two classes, which a teacher of one class with ignored parts doesn't have."""
    count = classes if classes is None or isinstance(classes, int) else len(classes)
    return values[0] > 0 and (count is None or count > 1)


def too_high(mask: str, most: int, why: str) -> InputError:
    """Return the error of a mask with a class that there isn't."""
    return InputError(f"{mask} holds class {most}, but {why}; mend it, or mark what isn't to count with 255")


def _names(root: Path, table: _Table | None, classes: int | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of classes, none where there are no names."""
    if table is not None:
        return table.names
    if classes is not None and not isinstance(classes, int):
        return tuple(classes)
    if is_file(root / _NAMES):
        lines = [line.strip() for line in read_text(root / _NAMES, "a text file of names").split("\n")]
        return tuple(line for line in lines if line)
    return tuple(map(str, range(classes or 0)))


def _table(root: Path, classes: int | Sequence[str] | None) -> _Table | None:
    """Return the table of colours that lies beside the folders; `classes` that are names decide on their order."""
    path = next((root / name for name in TABLES if is_file(root / name)), None)
    if path is None:
        return None
    given = None if classes is None or isinstance(classes, int) else list(classes)
    names: list[str] = []
    colours: dict[int, int] = {}
    text = read_text(path, "a table of classes and colours")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#") or (number == 1 and path.suffix == ".csv"):
            continue
        where, row = f"{printable(path)}, line {number}", _ROW.fullmatch(line.strip())
        parts = [int(part) for part in row.groups()[1:]] if row else []
        if row is None or max(parts) > 255:
            raise InputError(f"{where}: {named(line[:60])} isn't a name and a colour, as road:128,64,128; mend it")
        name, colour = row[1], parts[0] << 16 | parts[1] << 8 | parts[2]
        if colour in colours or name in names:
            raise InputError(f"{where}: {named(name)} or its colour stands there twice; leave one")
        if name.lower() in _VOID and (given is None or name not in given):
            colours[colour] = IGNORED
            continue
        if given is not None and name not in given:
            raise InputError(f"{where}: class {named(name)} isn't among those of ‹classes›; name it, or remove it")
        colours[colour] = len(names) if given is None else given.index(name)
        names.append(name)
    if not 0 < len(names) < IGNORED:
        raise InputError(f"{printable(path)}: names {len(names)} classes; give 1 to 254")
    return _Table(tuple(names if given is None else given), tuple(colours.items()))
