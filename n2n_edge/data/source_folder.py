"""Images in a folder: one sub-folder per class, or no classes at all; with or without ``train/`` and ``test/``."""

import os
import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from n2n_edge.data.folder_layout import Files, find_layout
from n2n_edge.data.pixels import GREY_MODES, Conversions, as_eight_bits
from n2n_edge.data.samples import Samples, Source, allocate, fit
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable

__all__ = ["read"]

_MODES = {1: "L", 3: "RGB"}
_LOOKED_AT = 16
_CHUNK = 256
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNREADABLE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)
_ODD_NOTES = (*_UNREADABLE, struct.error, TypeError, KeyError, IndexError, OverflowError, ZeroDivisionError)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how a picture has to be turned by its EXIF orientation; what can't be read of EXIF says nothing.

    Pillow turns TIFFs itself when it loads them, and clears the note.
    """
    image.load()
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _ODD_NOTES:
        return None


def _note_kind(image: Image.Image, mode: str, conversions: Conversions) -> None:
    if getattr(image, "is_animated", False):
        conversions.counts["of several frames, of which the first is read"] += 1
    if getattr(image, "has_transparency_data", False):  # Pillow 10.1
        alpha = image.convert("RGBA").getextrema()[-1]
        if isinstance(alpha, tuple) and alpha[0] < 255:
            conversions.counts["with transparent parts, read in the colours beneath (as torchvision does)"] += 1
    if (image.mode in GREY_MODES) != (mode == "L"):
        conversions.counts[f"converted to {'grey' if mode == 'L' else 'colour'}"] += 1


def _decode(path: str, mode: str, height: int, width: int, conversions: Conversions) -> NDArray[np.uint8]:
    where = f"image '{printable(path)}'"
    try:
        with Image.open(path) as image:
            _note_kind(image, mode, conversions)
            size = max(height, width)  # it may have to be turned
            if image.width > 2 * size and image.height > 2 * size:
                # lets the JPEG decoder skip detail that the scaling would throw away
                image.draft(mode, (2 * size, 2 * size))
            turn = _turn(image)
            read = as_eight_bits(where, image, conversions)
            if turn is not None:
                read = read.transpose(turn)
                conversions.counts["turned upright by their EXIF orientation (torchvision's loader doesn't)"] += 1
            pixels = np.asarray(fit(read if read.mode == mode else read.convert(mode), height, width))
    except _UNREADABLE as error:
        raise InputError(f"{where} can't be read ({printable(error)}): repair or remove it") from error
    return pixels.reshape(height, width, -1)


def _decode_all(paths: Sequence[str], input_shape: tuple[int, int, int], conversions: Conversions) -> NDArray[np.uint8]:
    channels, height, width = input_shape
    with warnings.catch_warnings():  # Pillow warns of large pictures and odd notes in them
        warnings.simplefilter("ignore")
        _check_channels(paths, channels)
        images = allocate(len(paths), input_shape)

        def decode_chunk(start: int) -> Conversions:
            noted = Conversions()
            for index in range(start, min(start + _CHUNK, len(paths))):
                images[index] = _decode(paths[index], _MODES[channels], height, width, noted)
            return noted

        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            jobs = [pool.submit(decode_chunk, start) for start in range(0, len(paths), _CHUNK)]
            try:
                for job in jobs:
                    conversions.add(job.result())
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
                found.add(1 if image.mode in GREY_MODES else 3)
        except _UNREADABLE:
            return  # decoding says which one, and why
    if found and channels not in found:
        raise InputError(
            f"images such as '{printable(paths[0])}' have {found.pop()} channel(s), but the teacher takes {channels}: "
            "convert them, or give the data it was trained on"
        )


def _samples(files: Files, labelled: bool, input_shape: tuple[int, int, int], conversions: Conversions) -> Samples:
    labels = np.repeat(np.arange(len(files.paths), dtype=np.int64), [len(paths) for paths in files.paths])
    images = _decode_all([path for paths in files.paths for path in paths], input_shape, conversions)
    return Samples(images, labels if labelled else None)


def read(folder: Path, input_shape: tuple[int, int, int], class_names: Sequence[str] | None = None) -> Source:
    """Read a folder of images, converted to the teacher's channels (grey or RGB) and size.

    With both ``val/`` and ``test/`` the first is the validation split; ``val/`` alone is the test split. `class_names`
    gives the order of the classes, of which some may be absent; by default they are sorted by name.
    """
    if input_shape[0] not in _MODES:
        raise InputError(
            f"the teacher takes {input_shape[0]} channels, images in a folder have 1 or 3: use an .npz file"
        )
    layout = find_layout(folder, class_names)
    conversions = Conversions()
    conversions.passed_over.update(layout.passed_over)
    parts = {
        split: _samples(files, bool(layout.class_names), input_shape, conversions)
        for split, files in layout.splits.items()
    }
    conversions.refuse_unused_bits()
    validation, test = parts.get("validation"), parts.get("test")
    if test is None:
        validation, test = None, validation
    return Source(parts["train"], validation, test, layout.class_names, conversions)
