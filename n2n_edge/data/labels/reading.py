"""Labels in any of the formats that are read, told by what lies there."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from n2n_edge.data.labels import coco, masks, table, voc, yolo
from n2n_edge.data.labels.checks import named
from n2n_edge.data.labels.pictures import text_files_in
from n2n_edge.data.labels.values import Annotated
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.reading import exists, expanded, is_file

__all__ = ["kinds_of", "read_annotations"]

_ORDER = ("train", "validation", "test", None)
_LOOKED_FOR = (
    "a data.yaml or labels/*.txt (YOLO), annotations/*.json (COCO), Annotations/*.xml (Pascal VOC), images/ and "
    "masks/, or a .csv with a column of image files"
)


def read_annotations(
    path: str | Path, images: str | Path | None = None, classes: int | Sequence[str] | None = None
) -> Annotated:
    """Read images' labels that are more than a class: objects, points, masks or numbers.

    `path` is a file (a data.yaml, COCO's JSON, a CSV) or a folder with one of these, or with YOLO's ``labels/``, Pascal
    VOC's XML, or ``masks/`` beside ``images/``. `images` is the folder of images where they lie elsewhere. `classes` is
    how many the teacher has, or their names in the order of its outputs.

    Raises:
        InputError: nothing of the kind, more than one kind, or labels that can't be; the message says where and why.

    >>> annotated = read_annotations("BCCD", classes=3)
    >>> annotated.summary
    'Pascal VOC: 205 training, 87 validation, 72 test images; 4,888 objects of 3 classes'
    """
    place = expanded(path)
    folder = None if images is None else expanded(images)
    if folder is not None and not folder.is_dir():
        raise InputError(f"‹images› {named(folder)} is no folder; give the one that the images lie in")
    if not exists(place):
        raise InputError(f"no labels {named(place)}: there is nothing; give {_LOOKED_FOR}")
    try:
        return _of_file(place, folder, classes) if is_file(place) else _found_in(place, folder, classes)
    except OSError as error:
        raise InputError(f"labels {named(path)} can't be read ({printable(error)}); give what can be") from error


def kinds_of(path: Path) -> tuple[str, ...]:
    """Return the formats of labels that a folder, or the only folder in it, may hold.

    A JSON file in it that isn't COCO's says nothing.
    """
    place = path
    while not (kinds := dict(_kinds(place, None))):
        inner = _folders_in(place)
        if len(inner) != 1:
            return ()
        place = inner[0]
    return tuple(kind for kind in kinds if kind != "COCO" or any(map(_is_coco, _jsons(place))))


def _is_coco(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"annotations"' in file.read()


def _found_in(path: Path, folder: Path | None, classes: int | Sequence[str] | None) -> Annotated:
    """Read the only kind of labels that a folder holds, or a folder that is all there is in it."""
    place = path
    kinds = dict(_kinds(place, folder))
    while not kinds:
        inner = _folders_in(place)
        if len(inner) != 1:
            break
        place = inner[0]
        kinds = dict(_kinds(place, folder))
    if not kinds:
        raise InputError(f"no labels in {named(path)}: looked for {_LOOKED_FOR}; give one of these")
    if len(kinds) > 1:
        shown = ", and ".join(f"{what} ({kind})" for kind, what in kinds.items())
        raise InputError(
            f"labels in {named(place)} may be {shown}: which is meant can't be told; give the file, or its folder"
        )
    return _of_folder(place, next(iter(kinds)), folder, classes)


def _of_file(path: Path, images: Path | None, classes: int | Sequence[str] | None) -> Annotated:
    match path.suffix.lower():
        case ".yaml" | ".yml":
            return yolo.read(path, images, classes)
        case ".json":
            return coco.read([path], images, classes)
        case ".csv" | ".tsv":
            return table.read(path, images)
        case ".xml" | ".txt":
            raise InputError(f"{named(path)} may be the labels of one image: give the folder that they lie in")
    raise InputError(f"no labels {named(path)}: give {_LOOKED_FOR}")


def _of_folder(path: Path, kind: str, images: Path | None, classes: int | Sequence[str] | None) -> Annotated:
    match kind:
        case "YOLO":
            yamls = _yamls(path)
            return yolo.read(yamls[0] if yamls else path, images, classes)
        case "COCO":
            return coco.read(_jsons(path), images, classes)
        case "Pascal VOC":
            return voc.read(path, images, classes)
        case "masks":
            return masks.read(path, images, classes)
    return table.read(_tables(path)[0], images)


def _kinds(path: Path, images: Path | None) -> Iterator[tuple[str, str]]:
    """Give the formats that a folder may be in, and what speaks for each."""
    yamls, jsons, tables = _yamls(path), _jsons(path), _tables(path)
    if len(yamls) > 1:
        raise InputError(f"{named(path)} holds several: {', '.join(each.name for each in yamls)}; give one of them")
    if yamls:
        yield "YOLO", yamls[0].name
    elif (path / "labels").is_dir() and text_files_in(path / "labels", ".txt"):
        yield "YOLO", "labels/*.txt"
    elif any(text_files_in(path / split / "labels", ".txt") for split in ("train", "valid", "val")):
        yield "YOLO", "train/labels/*.txt"
    if jsons:
        yield "COCO", jsons[0].relative_to(path).as_posix()
    for folder in (path, *(path / name for name in voc.ANNOTATIONS)):
        if any(folder.glob("*.xml")):
            yield "Pascal VOC", "*.xml" if folder == path else f"{folder.name}/*.xml"
            break
    pairs = masks.pairs_of(path, images)
    if pairs:
        yield "masks", f"{pairs[0][2].name}/"
    if tables:
        yield "CSV", tables[0].name


def _folders_in(path: Path) -> list[Path]:
    """Return a folder's own folders, hidden ones and links left out."""
    return [
        each
        for each in sorted(path.iterdir())
        if each.is_dir() and not each.is_symlink() and not each.name.startswith(".")
    ]


def _yamls(path: Path) -> list[Path]:
    files = [each for suffix in ("*.yaml", "*.yml") for each in sorted(path.glob(suffix)) if is_file(each)]
    return [each for each in files if each.stem == "data" or yolo.is_yolo_yaml(each)]


def _tables(path: Path) -> list[Path]:
    tables = [each for each in sorted(path.glob("*.csv")) if is_file(each) and each.name not in masks.TABLES]
    if len(tables) > 1:
        raise InputError(f"{named(path)} holds several tables: {', '.join(each.name for each in tables[:4])}; give one")
    return tables


def _jsons(path: Path) -> list[Path]:
    """Return COCO's files, one or one for each split, in a folder, ``annotations/`` in it or its splits' folders."""
    for pattern in ("annotations/*.json", "*.json", "*/_annotations.coco.json"):
        files = [each for each in sorted(path.glob(pattern)) if is_file(each)]
        if len(files) < 2:
            if files:
                return files
            continue
        splits = [coco.split_of(each) for each in files]
        if None in splits or len(set(splits)) < len(splits):
            shown = ", ".join(each.relative_to(path).as_posix() for each in files[:4])
            raise InputError(f"{named(path)} holds several of COCO's files: {shown}; give one of them")
        return sorted(files, key=lambda each: _ORDER.index(coco.split_of(each)))
    return []
