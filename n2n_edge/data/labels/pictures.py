"""Image files of a data set: which lie in a folder, and where those are that labels name."""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path, PurePath

from PIL import Image

from n2n_edge.data.labels.checks import named
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.reading import is_file

__all__ = ["by_stem", "is_picture", "joined", "locate", "pictures_in", "text_files_in"]


@cache
def _suffixes() -> frozenset[str]:
    """Endings of pictures that this build of Pillow reads."""
    kinds = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in kinds.items() if Image.MIME.get(kind, "").startswith("image/"))


def is_picture(path: PurePath) -> bool:
    """Tell whether a file is a picture by its ending."""
    return path.suffix.lower() in _suffixes()


def _files_in(folder: Path) -> Iterable[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each != "__MACOSX")
        yield from (Path(root, each) for each in sorted(files) if not each.startswith("."))


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder and those in it, sorted, hidden ones left out."""
    return [path for path in _files_in(folder) if is_picture(path) and is_file(path)]


def text_files_in(folder: Path, suffix: str) -> list[Path]:
    """Return the files of an ending in a folder and those in it, sorted, hidden ones left out."""
    return [path for path in _files_in(folder) if path.suffix.lower() == suffix and is_file(path)]


def by_stem(paths: Iterable[Path], folder: Path, what: str) -> dict[str, Path]:
    """Return files by their path in a folder without the ending; raises InputError where two differ by that alone."""
    files: dict[str, Path] = {}
    for path in paths:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            raise InputError(
                f"{what} {named(files[stem])} and {named(path)} are called alike, which is meant can't be told; leave "
                "one"
            )
        files[stem] = path
    return files


def joined(folder: Path, name: str) -> Path:
    """Return the path that the data name, which may be absolute; back slashes part folders, too, where no file has one.

    The files are only read.
    """
    path = folder / name
    return path if "\\" not in name or is_file(path) else folder / name.replace("\\", "/")


def locate(names: Sequence[str], folders: Sequence[Path], source: Path) -> list[Path]:
    """Return the files that are called `names` in the first of the folders where the first of them lies.

    Raises:
        InputError: they aren't there.
    """
    folders = list(dict.fromkeys(folders))
    folder = next(
        (each for name in names[:3] for each in folders if is_file(joined(each, name))), folders[0] if folders else None
    )
    paths = [joined(folder or source.parent, name) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if not is_file(path)]
    if missing:
        where = named(folder) if len(missing) < len(names) else ", ".join(map(named, folders))
        raise InputError(
            f"{printable(source)}: {len(missing):,} of {len(names):,} images aren't in {where}, the first: "
            f"{named(missing[0])}; put them there"
        )
    return paths
