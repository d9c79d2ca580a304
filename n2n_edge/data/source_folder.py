"""Images in a folder: one sub-folder per class, or no classes at all; with or without ``train/`` and ``test/``."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.folder_layout import Files, find_layout
from n2n_edge.data.pixels import GREY_MODES, Conversions
from n2n_edge.data.samples import Samples, Source, allocate
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable

__all__ = ["read"]

_LOOKED_AT = 16
_CHUNK = 256


def _decode_all(paths: Sequence[str], preprocessing: Preprocessing, conversions: Conversions) -> NDArray[np.uint8]:
    with warnings.catch_warnings():  # Pillow warns of large pictures and odd notes in them
        warnings.simplefilter("ignore")
        _check_channels(paths, preprocessing.channels)
        images = allocate(len(paths), preprocessing.input_shape)

        def decode_chunk(start: int) -> Conversions:
            noted = Conversions()
            for index in range(start, min(start + _CHUNK, len(paths))):
                images[index] = read_picture(paths[index], preprocessing, noted)
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
        except UNREADABLE:
            return  # decoding says which one, and why
    if found and channels not in found:
        raise InputError(
            f"images such as '{printable(paths[0])}' have {found.pop()} channel(s), but the teacher takes {channels}: "
            "convert them, or give the data it was trained on"
        )


def _samples(files: Files, labelled: bool, preprocessing: Preprocessing, conversions: Conversions) -> Samples:
    labels = np.repeat(np.arange(len(files.paths), dtype=np.int64), [len(paths) for paths in files.paths])
    images = _decode_all([path for paths in files.paths for path in paths], preprocessing, conversions)
    return Samples(images, labels if labelled else None)


def read(folder: Path, preprocessing: Preprocessing, class_names: Sequence[str] | None = None) -> Source:
    """Read a folder of images, converted to the teacher's channels (grey or RGB) and size.

    With both ``val/`` and ``test/`` the first is the validation split; ``val/`` alone is the test split. `class_names`
    gives the order of the classes, of which some may be absent; by default they are sorted by name.
    """
    if preprocessing.channels not in MODES:
        raise InputError(
            f"the teacher takes {preprocessing.channels} channels, images in a folder have 1 or 3: use an .npz file"
        )
    layout = find_layout(folder, class_names)
    conversions = Conversions()
    conversions.passed_over.update(layout.passed_over)
    parts = {
        split: _samples(files, bool(layout.class_names), preprocessing, conversions)
        for split, files in layout.splits.items()
    }
    conversions.refuse_unused_bits()
    validation, test = parts.get("validation"), parts.get("test")
    if test is None:
        validation, test = None, validation
    return Source(parts["train"], validation, test, layout.class_names, conversions)
