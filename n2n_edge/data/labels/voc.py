"""Labels as Pascal VOC has them: an XML file per image, with named boxes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from n2n_edge.data.labels.checks import Checks, Row, class_table, named, numbers
from n2n_edge.data.labels.pictures import by_stem, joined, pictures_in, text_files_in
from n2n_edge.data.labels.values import Annotated, Label, Split
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.metrics.notices import Notice
from n2n_edge.reading import is_file, read_text

__all__ = ["ANNOTATIONS", "IMAGES", "read", "splits_of"]

ANNOTATIONS = ("Annotations", "annotations")
IMAGES = ("JPEGImages", "images", "Images")
_MOST_XML_BYTES = 2_000_000
_DEEPEST = 50
_HINT = "bndbox has xmin, ymin, xmax and ymax in pixels"
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def read(folder: Path, images: Path | None, classes: int | Sequence[str] | None) -> Annotated:
    """Read a folder with ``Annotations/``, ``JPEGImages/`` and, where there are splits, ``ImageSets/Main/``.

    XML files may lie beside their images as well. Classes are numbered in the sorted order of their names, unless
    `classes` are names. Pixels count from 1, as Pascal VOC has them, unless a box begins at 0.

    Raises:
        InputError: XML that can't be read or isn't VOC's, images that aren't there, or classes by number alone where
            they are not as many as the teacher's.
    """
    inner = next((folder / name for name in ANNOTATIONS if (folder / name).is_dir()), folder)
    root = folder.parent if folder.name in ANNOTATIONS and inner == folder else folder
    files = by_stem(text_files_in(inner, ".xml"), inner, "annotations")
    trees = {stem: _tree(path) for stem, path in files.items()}
    place = images or next((root / name for name in IMAGES if (root / name).is_dir()), root)
    pictures = by_stem(pictures_in(place), place, "images")
    owners = _owners(trees, files, pictures, place)
    checks = Checks(_HINT)
    sizes = checks.sizes([str(path) for path in pictures.values()])
    found = {stem: list(_objects(printable(files[stem]), tree)) for stem, tree in trees.items()}
    names = sorted({name for objects in found.values() for _, name, _, _ in objects})
    if isinstance(classes, int) and len(names) != classes:
        raise InputError(
            f"{printable(inner)}: {len(names)} classes are named there, the teacher has {classes}: which is which "
            "can't be told; give their names in the order of the teacher's outputs (‹classes›)"
        )
    table = class_table(dict(enumerate(names)), classes)
    numbers_of = {name: index for index, name in enumerate(names)}
    first = 0.0 if any(min(box[:2]) < 1 for objects in found.values() for _, _, box, _ in objects) else 1.0
    labels = dict[str, Label | None]()
    for stem, path in pictures.items():
        size, own = sizes.get(str(path)), owners.get(stem)
        if size is None:
            continue
        if own is None:
            labels[str(path)] = None
            continue
        _check_size(printable(files[own]), trees[own], size)
        rows = [
            Row(where, table.of(where, numbers_of[name]), (box[0] - first, box[1] - first, box[2], box[3]), ignored)
            for where, name, box, ignored in found[own]
        ]
        labels[str(path)] = checks.objects(rows, size)
    notices = list(table.notices)
    if classes is None or isinstance(classes, int):
        text = f"classes are numbered as their names are sorted: {', '.join(map(printable, names[:5]))}"
        text += ", ..." if len(names) > 5 else ""
        notices.append(Notice("class-order", text, "where the teacher counts otherwise, name its classes in its order"))
    if not first:
        notices.append(Notice("pixels-from-0", "boxes begin at 0: pixels are counted from 0, where VOC counts from 1"))
    splits, odd = splits_of(root, "Main", {stem: str(path) for stem, path in pictures.items()})
    return checks.annotated("Pascal VOC", labels, splits, names=table.names, notices=[*notices, *odd])


def splits_of(root: Path, kind: str, files: Mapping[str, str]) -> tuple[dict[str, Split], list[Notice]]:
    """Return what each file is for by ``ImageSets/KIND``, where `files` are called by their stems."""
    folder, splits = root / "ImageSets" / kind, dict[str, Split]()
    names: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
    if not is_file(folder / "train.txt") and is_file(folder / "trainval.txt"):
        names = {"trainval": "train", "test": "test"}
    twice = 0
    for name, split in names.items():
        path = folder / f"{name}.txt"
        if not is_file(path):
            continue
        for number, line in enumerate(read_text(path, "a text file with an image a line").split("\n"), start=1):
            stem = line.strip()
            if not stem:
                continue
            if stem not in files:
                raise InputError(f"{printable(path)}, line {number}: there is no image {named(stem)}; mend it")
            twice += files[stem] in splits
            splits.setdefault(files[stem], split)
    text = f"{twice:,} images stand in two of ImageSets: they are in the first of {', '.join(names)}"
    return splits, [Notice("images-in-two-splits", text, "keep splits apart")] if twice else []


def _tree(path: Path) -> Element:
    """Parse a file without document types, so no entity can grow or read what isn't here."""
    builder, depth = TreeBuilder(), 0
    where = printable(path)

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise InputError(f"{where}: can't be read as XML (nested more than {_DEEPEST} deep); mend it")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> NoReturn:
        raise InputError(f"{where}: has a document type, which may define entities; remove <!DOCTYPE ...>")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(read_text(path, "an XML file as Pascal VOC has it", _MOST_XML_BYTES), True)
    except expat.ExpatError as error:
        raise InputError(f"{where}: can't be read as XML ({printable(error)}); mend it") from error
    tree = builder.close()
    if tree.tag != "annotation":
        raise InputError(f"{where}: isn't Pascal VOC's, it holds <{printable(tree.tag)[:40]}>; give <annotation>")
    return tree


def _owners(
    trees: Mapping[str, Element], files: Mapping[str, Path], pictures: Mapping[str, Path], place: Path
) -> dict[str, str]:
    """Return which annotations each image has: those called like it, or those that name it."""
    by_path = {path: stem for stem, path in pictures.items()}
    owners: dict[str, str] = {}
    missing: list[str] = []
    for stem, tree in trees.items():
        name = (tree.findtext("filename") or "").strip()
        image = stem if stem in pictures else by_path.get(joined(place, name)) if name else None
        if image is None:
            missing.append(stem)
        elif image in owners:
            raise InputError(
                f"{named(files[stem])} and {named(files[owners[image]])} are both of the image "
                f"{named(pictures[image])}; leave one"
            )
        else:
            owners[image] = stem
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(trees):,} XML files have no image in {named(place)}, the first: "
            f"{named(files[missing[0]])}; put them there"
        )
    return owners


def _objects(path: str, tree: Element) -> Iterator[tuple[str, str, list[float], bool]]:
    """Give where each object stands, its name, its edges, and whether it is difficult."""
    for index, item in enumerate(tree.findall("object"), start=1):
        where, name = f"{path}, object {index}", (item.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{where}: has no name; name its class")
        box = item.find("bndbox")
        if box is None:
            raise InputError(f"{where}: has no bndbox; give one, or remove it")
        texts = [(box.findtext(edge) or "").strip() for edge in _EDGES]
        if "" in texts:
            raise InputError(f"{where}: has no {_EDGES[texts.index('')]}; give all of {', '.join(_EDGES)}")
        yield where, name, numbers(where, texts), (item.findtext("difficult") or "0").strip() in ("1", "true", "True")


def _check_size(where: str, tree: Element, size: tuple[int, int]) -> None:
    """Refuse a size other than the image's; some tools write 0."""
    texts = [tree.findtext(f"size/{side}") for side in ("height", "width")]
    height, width = numbers(f"{where}, size", [text.strip() if text else "0" for text in texts])
    if height and width and (height, width) != size:
        turned = " (it is turned by its EXIF orientation)" if (width, height) == size else ""
        raise InputError(
            f"{where}: the size is {width:g}x{height:g} pixels, but the image has {size[1]}x{size[0]}{turned}; "
            "annotate the image as it is"
        )
