"""Which files of a folder belong to which split and class, and which are passed over."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable

__all__ = ["Files", "Layout", "find_layout"]

_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".ppm"}
    | {".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"}
)
_SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_JUNK = frozenset({"__MACOSX", "@eaDir"})


@cache
def _readable_suffixes() -> frozenset[str]:
    """Endings of pictures that this build of Pillow reads."""
    Image.init()
    return frozenset(_SUFFIXES & set(Image.registered_extensions()))


@dataclass(frozen=True)
class Files:
    """The image files of one split, class by class; one list where there are no classes."""

    paths: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Layout:
    """The files of each split that there is, ``train`` among them, the classes' names, and what is passed over."""

    splits: Mapping[str, Files]
    class_names: tuple[str, ...]
    passed_over: Mapping[str, int]


@dataclass(frozen=True)
class _Listing:
    """What lies in one folder, hidden entries left out."""

    images: tuple[str, ...]
    folders: tuple[Path, ...]
    others: Counter[str]
    """Files that aren't read, by ending, or by what they are."""


def find_layout(folder: Path, class_names: Sequence[str] | None) -> Layout:
    """Find splits and classes in a folder of images.

    Sub-folders are splits where all of them that hold images are called so (train, val, test and the like, in any
    case). Images in the sub-folders of a class are its own, as torchvision's ImageFolder has it. Classes are numbered
    in the sorted order of their names, or in that of `class_names`.

    Raises:
        InputError: no images, or folders of which it can't be told what they are.
    """
    return _Finder(folder, class_names).layout()


class _Finder:
    def __init__(self, folder: Path, class_names: Sequence[str] | None) -> None:
        self._folder, self._given = folder, class_names
        self._passed_over: Counter[str] = Counter()

    def layout(self) -> Layout:
        top = _list(self._folder)
        splits = self._split_folders(top)
        if not splits:
            names, files = self._classes_of(self._folder)
            return Layout({"train": files}, names, self._passed_over)
        self._pass_over(top.others, "images beside the splits", top.images)
        self._passed_over["folders beside the splits"] += len(top.folders) - len(splits)
        names, files = self._classes_of(splits.pop("train"))
        found = {"train": files}
        for split, folder in splits.items():
            found[split] = self._held_out(folder, names)
        return Layout(found, names, self._passed_over)

    def _split_folders(self, top: _Listing) -> dict[str, Path]:
        """Return the folders of splits by what they are; empty where the sub-folders are classes, or there are none."""
        named = {path: _SPLITS[path.name.lower()] for path in top.folders if path.name.lower() in _SPLITS}
        others = [path for path in top.folders if path not in named and _holds_images(path)]
        if not named:
            return {}
        if others:
            nested = next((path for path in named if not _list(path).images and _holds_images(path)), None)
            if nested is not None:
                raise InputError(
                    f"data folder {_named(self._folder)} holds '{printable(nested.name)}', which looks like a split, "
                    f"beside '{printable(others[0].name)}', which doesn't: give a folder of classes, or one of splits"
                )
            return {}  # a class that is called so
        by_split: dict[str, Path] = {}
        for path, split in named.items():
            if split in by_split:
                raise InputError(
                    f"data folder {_named(self._folder)} holds two {split} splits, '{by_split[split].name}' and "
                    f"'{path.name}': leave one"
                )
            by_split[split] = path
        if "train" not in by_split:
            only = next(iter(named))
            raise InputError(
                f"data folder {_named(self._folder)} holds '{printable(only.name)}' but no train: give {_named(only)} "
                "itself, or rename it if it is a class"
            )
        return {split: by_split[split] for split in ("train", "validation", "test") if split in by_split}

    def _classes_of(self, folder: Path) -> tuple[tuple[str, ...], Files]:
        """Return the classes of a folder and their files; no names where it holds images without classes."""
        top = _list(folder)
        filled = [path for path in top.folders if _holds_images(path)]
        if not filled and top.images:
            self._pass_over(top.others)
            return (), Files((top.images,))
        if not filled:
            others = Counter[str]()
            for listing in _below(folder):
                others += listing.others
            instead = f" that can be read ({_counted(others)})" if others else ""
            raise InputError(
                f"data folder {_named(folder)} holds no images{instead}: put images or one folder per class into it"
            )
        empty = [path for path in top.folders if path not in filled]
        if empty:
            raise InputError(f"class folder {_named(empty[0])} holds no images: add images or remove the folder")
        if len(filled) < 2 and self._given is None:
            inner = [path for path in _list(filled[0]).folders if _holds_images(path)]
            hint = f"; its images lie in folders: give {_named(filled[0])}" if inner else ": at least two are needed"
            raise InputError(f"data folder {_named(folder)} holds one class only ('{printable(filled[0].name)}'){hint}")
        self._pass_over(top.others, "images beside the classes", top.images)
        names = tuple(path.name for path in filled)
        if self._given is not None:
            self._refuse_unknown(filled, self._given)
            names = tuple(self._given)
        return names, self._files(folder, names)

    def _held_out(self, folder: Path, names: tuple[str, ...]) -> Files:
        """Return the files of a split other than the training images, whose classes these are."""
        top = _list(folder)
        if not names:
            if not top.images:
                raise InputError(
                    f"data folder {_named(folder)} holds no images: put images without classes there, as in train"
                )
            self._pass_over(top.others)
            self._passed_over["folders beside images"] += len(top.folders)
            return Files((top.images,))
        self._refuse_unknown([path for path in top.folders if self._given is None or _holds_images(path)], names)
        self._pass_over(top.others, "images beside the classes", top.images)
        files = self._files(folder, names)
        if not any(files.paths):
            raise InputError(f"data folder {_named(folder)} holds no images in its class folders: add images")
        return files

    def _refuse_unknown(self, folders: Sequence[Path], names: Sequence[str]) -> None:
        unknown = [path for path in folders if path.name not in names]
        if unknown:
            where = "‹classes›" if self._given is not None else "the training images"
            raise InputError(f"class folder {_named(unknown[0])} has no counterpart in {where}: add or remove it")

    def _files(self, folder: Path, names: Sequence[str]) -> Files:
        there = {path.name: path for path in _list(folder).folders}
        return Files(tuple(self._images_of_class(there[name]) if name in there else () for name in names))

    def _images_of_class(self, folder: Path) -> tuple[str, ...]:
        """Return all images of a class, those in its sub-folders included."""
        target, data = folder.resolve(), self._folder.resolve()
        if data == target or target in data.parents:
            raise InputError(f"class folder {_named(folder)} links back to its own data: remove the link")
        images: list[str] = []
        for listing in _below(folder):
            images += listing.images
            self._pass_over(listing.others)
            self._passed_over["links to folders within a class"] += sum(path.is_symlink() for path in listing.folders)
        return tuple(sorted(images))

    def _pass_over(self, others: Counter[str], what: str = "", images: Sequence[str] = ()) -> None:
        self._passed_over += others
        if images:
            self._passed_over[what] += len(images)


def _below(folder: Path) -> Iterator[_Listing]:
    """Give the listings of a folder and, links aside, of all that lie in it."""
    waiting = [folder]
    while waiting:
        listing = _list(waiting.pop())
        yield listing
        waiting += [path for path in listing.folders if not path.is_symlink()]


def _holds_images(folder: Path) -> bool:
    return any(listing.images for listing in _below(folder))


def _list(folder: Path) -> _Listing:
    images: list[str] = []
    folders: list[Path] = []
    others: Counter[str] = Counter()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _JUNK:
                    continue
                suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif suffix not in _readable_suffixes():
                    others[f"{printable(suffix) or 'other'} files"] += 1
                elif entry.is_file():
                    images.append(entry.path)
                else:  # a pipe would be waited for, a device never ends
                    others["links to nothing, pipes or devices"] += 1
    except OSError as error:
        raise InputError(f"data folder {_named(folder)} can't be read ({error.strerror}): give one that can") from error
    return _Listing(tuple(sorted(images)), tuple(sorted(folders)), others)


def _counted(others: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in others.most_common())


def _named(folder: Path) -> str:
    return f"'{printable(folder)}'"
