"""Images in a folder: one sub-folder per class, or no classes at all; with or without ``train/`` and ``test/``."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from n2n_edge.distill.samples import Samples, Source, allocate, fit
from n2n_edge.errors import InputError

__all__ = ["read"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"})
_MODES = {1: "L", 3: "RGB"}
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_LOOKED_AT = 16
_CHUNK = 256


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.path
            for entry in entries
            if not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in _SUFFIXES  # noqa: PTH122
        )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _decode(path: str, mode: str, height: int, width: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if image.width > 2 * width and image.height > 2 * height:
                # lets the JPEG decoder skip detail that the scaling would throw away
                image.draft(mode, (2 * width, 2 * height))
            pixels = np.asarray(fit(image if image.mode == mode else image.convert(mode), height, width))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"image '{path}' can't be read ({error}): repair or remove it") from error
    return pixels.reshape(height, width, -1)


def _decode_all(paths: Sequence[str], input_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    channels, height, width = input_shape
    _check_channels(paths, channels)
    images = allocate(len(paths), input_shape)

    def decode_chunk(start: int) -> None:
        for place in range(start, min(start + _CHUNK, len(paths))):
            images[place] = _decode(paths[place], _MODES[channels], height, width)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        jobs = [pool.submit(decode_chunk, start) for start in range(0, len(paths), _CHUNK)]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return images


def _check_channels(paths: Sequence[str], channels: int) -> None:
    """Refuse images that all have another number of channels than the teacher; single ones are converted."""
    step = max(1, len(paths) // _LOOKED_AT)
    found = set()
    for path in paths[::step][:_LOOKED_AT]:
        try:
            with Image.open(path) as image:
                found.add(1 if image.mode in _GREY_MODES else 3)
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
            return  # decoding says which one, and why
    if found and channels not in found:
        raise InputError(
            f"images such as '{paths[0]}' have {found.pop()} channel(s), but the teacher takes {channels}: "
            "convert them, or give the data it was trained on"
        )


def _read_part(folder: Path, input_shape: tuple[int, int, int], class_names: tuple[str, ...]) -> Samples:
    """Read one split, its classes numbered as in `class_names` (empty: no classes)."""
    if not class_names:
        paths = _images(folder)
        if not paths:
            raise InputError(f"data folder '{folder}' holds no images: put images or one folder per class into it")
        return Samples(_decode_all(paths, input_shape), None)
    per_class = []
    for name in class_names:
        per_class.append(_images(folder / name) if (folder / name).is_dir() else [])
    if not any(per_class):
        raise InputError(f"data folder '{folder}' holds no images in its class folders: add images")
    labels = np.repeat(np.arange(len(class_names), dtype=np.int64), [len(paths) for paths in per_class])
    return Samples(_decode_all([path for paths in per_class for path in paths], input_shape), labels)


def _class_names(folder: Path) -> tuple[str, ...]:
    """Name the classes of a training folder in sorted order; empty where it holds images without classes."""
    folders = _folders(folder)
    if not folders and _images(folder):
        return ()
    filled = {path.name: bool(_images(path)) for path in folders}
    if not any(filled.values()):
        raise InputError(f"data folder '{folder}' holds no images: put images or one folder per class into it")
    empty = [name for name, has_images in filled.items() if not has_images]
    if empty:
        raise InputError(f"class folder '{folder / empty[0]}' holds no images: add images or remove the folder")
    if len(filled) < 2:
        raise InputError(f"data folder '{folder}' holds one class only ('{folders[0].name}'): at least two are needed")
    return tuple(filled)


def read(folder: Path, input_shape: tuple[int, int, int]) -> Source:
    """Read a folder of images, converted to the teacher's channels (grey or RGB) and size.

    With both ``val/`` and ``test/`` the first is the validation split; ``val/`` alone is the test split.
    """
    if input_shape[0] not in _MODES:
        raise InputError(
            f"the teacher takes {input_shape[0]} channels, images in a folder have 1 or 3: use an .npz file"
        )
    if not (folder / "train").is_dir():
        names = _class_names(folder)
        return Source(train=_read_part(folder, input_shape, names), class_names=names)
    names = _class_names(folder / "train")
    held_out = [part for part in ("validation", "val", "valid", "test") if (folder / part).is_dir()]
    for part in held_out:
        unknown = [path.name for path in _folders(folder / part) if names and path.name not in names]
        if unknown:
            raise InputError(f"class folder '{folder / part / unknown[0]}' has no counterpart in '{folder / 'train'}'")
    read_parts = {part: _read_part(folder / part, input_shape, names) for part in held_out}
    test = read_parts.pop("test", None)
    validation = next(iter(read_parts.values()), None)
    if test is None:
        test, validation = validation, None
    return Source(_read_part(folder / "train", input_shape, names), validation, test, names)
