"""Images in a folder: one sub-folder per class, or no classes at all; with or without ``train/`` and ``test/``."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.folder_layout import Files, find_layout
from n2n_edge.data.labels.pictures import pictures_in
from n2n_edge.data.loading import Loading, quiet, refuse_unreadable
from n2n_edge.data.pictures import MODES, UNREADABLE, read_picture, unreadable
from n2n_edge.data.pixels import GREY_MODES, Conversions
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.samples import Samples, Source, allocate
from n2n_edge.data.streaming import Images, Pictures, Store
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable

__all__ = ["AT_ONCE_BYTES", "FileReader", "pictures_of", "read", "unlabelled"]

_LOOKED_AT = 16
_CHUNK = 64
AT_ONCE_BYTES = 256_000_000
"""Decoded images up to this are read at once; of more, each is when it is needed."""

_SAMPLE = 256
_PRINT_BYTES, _SAMPLED_BYTES = 16, 4096
_HASHED_WHOLE = 1_000_000_000
"""Files of more bytes in sum are told apart by size, start, middle and end."""

_USUAL_KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class _Decoder:
    """Reads a file for a network."""

    preprocessing: Preprocessing

    def __call__(self, path: str, conversions: Conversions) -> NDArray[np.uint8]:
        return read_picture(path, self.preprocessing, conversions)


class FileReader:
    """Reads the files of a folder, or looks at them where they are to be decoded when they are needed."""

    def __init__(self, preprocessing: Preprocessing, loading: Loading, conversions: Conversions) -> None:
        self.shape, self.loading, self.conversions = preprocessing.input_shape, loading, conversions
        self.decoder = _Decoder(preprocessing.of_pixels)

    def decode_all(self, paths: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the images, and which of the files they are: all that can be read."""
        images, errors = allocate(len(paths), self.shape), dict[int, str]()

        def decode(index: int, noted: Conversions) -> None:
            try:
                images[index] = self.decoder(paths[index], noted)
            except InputError as error:
                errors[index] = str(error)

        self._each(len(paths), decode)
        good = self._good(len(paths), errors)
        return (images[good] if errors else images), good

    def look_at(self, paths: Sequence[str], kinds: NDArray[np.int64]) -> tuple[Store, NDArray[np.int64]]:
        """Return what reads the files when they are needed, and which of them can be opened at all.

        Some are decoded, which says what is converted, and refuses what none can be read of.
        """
        prints, errors = np.zeros((len(paths), _PRINT_BYTES), np.uint8), dict[int, str]()
        apart = max(1, len(paths) // _SAMPLE)
        whole = apart * sum(Path(path).stat().st_size for path in paths[::apart]) <= _HASHED_WHOLE

        def look(index: int, _noted: Conversions) -> None:
            try:
                prints[index] = _fingerprint(paths[index], whole=whole)
            except UNREADABLE as error:
                errors[index] = unreadable(f"image '{printable(paths[index])}'", error)

        self._each(len(paths), look)
        good = self._good(len(paths), errors)
        name = hashlib.sha256(prints[good].tobytes() + repr(self.decoder.preprocessing).encode()).hexdigest()[:16]
        kept = [paths[index] for index in good]
        store = Store(kept, kinds[good], prints[good], self.shape, self.decoder, self.loading, name)
        step = max(1, len(kept) // _SAMPLE)
        looked_at = Pictures(store)[::step][:_SAMPLE]
        np.asarray(looked_at)
        for kind, count in store.conversions.counts.items():
            self.conversions.counts[f"of {len(looked_at)} looked at {kind}"] += count
        self.conversions.example = store.conversions.example
        self.conversions.highest, self.conversions.widened = store.conversions.highest, store.conversions.widened
        return store, good

    def _good(self, count: int, errors: Mapping[int, str]) -> NDArray[np.int64]:
        refuse_unreadable([errors[index] for index in sorted(errors)], count, self.loading.strict)
        if errors:
            first = errors[min(errors)].split(": repair")[0]
            self.conversions.passed_over[f"unreadable images, the first: {first}"] += len(errors)
        return np.array([index for index in range(count) if index not in errors], np.int64)

    def _each(self, count: int, work: Callable[[int, Conversions], None]) -> None:
        """Do something for each of so many files, in threads, and tell of the progress."""

        def chunk(start: int) -> Conversions:
            noted = Conversions()
            for index in range(start, min(start + _CHUNK, count)):
                work(index, noted)
            return noted

        with ThreadPoolExecutor(max_workers=max(1, self.loading.threads)) as pool:
            jobs = [pool.submit(chunk, start) for start in range(0, count, _CHUNK)]
            try:
                for done, job in enumerate(jobs, start=1):
                    self.conversions.add(job.result())
                    if self.loading.on_scan is not None:
                        self.loading.on_scan(min(done * _CHUNK, count), count)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _fingerprint(path: str, *, whole: bool) -> NDArray[np.uint8]:
    """Return a digest of a picture's size and bytes, or of some of these; raises one of `UNREADABLE`."""
    with Path(path).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.blake2b(str(size).encode(), digest_size=_PRINT_BYTES)
        head = file.read(size if whole else _SAMPLED_BYTES)
        if not _begins_like_a_picture(head):
            with Image.open(path):
                pass
        digest.update(head)
        for start in () if whole else (size // 2, max(0, size - _SAMPLED_BYTES)):
            file.seek(start)
            digest.update(file.read(_SAMPLED_BYTES))
    return np.frombuffer(digest.digest(), np.uint8)


def _begins_like_a_picture(head: bytes) -> bool:
    """Tell by its first bytes whether a file is of a usual kind, in a twentieth of the time that opening it takes."""
    accepting = (Image.OPEN[name][1] for name in _USUAL_KINDS if name in Image.OPEN)
    return any(accepts is not None and accepts(head[:16]) is True for accepts in accepting)


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


def _samples(splits: Mapping[str, Files], labelled: bool, reader: FileReader, streams: bool) -> dict[str, Samples]:
    labels = {
        split: np.repeat(np.arange(len(files.paths), dtype=np.int64), [len(paths) for paths in files.paths])
        for split, files in splits.items()
    }
    paths = {split: [path for each in files.paths for path in each] for split, files in splits.items()}
    samples: dict[str, Samples] = {}
    for each in paths.values():
        _check_channels(each, reader.shape[0])
    for split, files in paths.items():
        if not streams:
            images, good = reader.decode_all(files)
            samples[split] = Samples(images, labels[split][good] if labelled else None)
    if streams:
        kinds = np.concatenate([labels[split] + 2**32 * place for place, split in enumerate(paths)])
        store, good = reader.look_at([path for each in paths.values() for path in each], kinds)
        for place, split in enumerate(paths):
            rows = np.flatnonzero(store.kinds >> 32 == place)
            own = store.kinds[rows] - 2**32 * place
            samples[split] = Samples(Pictures(store, rows), own if labelled else None)
    return samples


def pictures_of(folder: Path) -> list[str]:
    """Return the pictures in a folder and those in it, whatever that is called; raises InputError where none are."""
    paths = [str(path) for path in pictures_in(folder)]
    if not paths:
        raise InputError(f"folder '{printable(folder)}' holds no images that can be read: give one with images")
    return paths


def unlabelled(paths: Sequence[str], reader: "FileReader", *, streams: bool) -> Images:
    """Read images that have no labels."""
    _check_channels(paths, reader.shape[0])
    if not streams:
        return reader.decode_all(paths)[0]
    store, _ = reader.look_at(paths, np.zeros(len(paths), np.int64))
    return Pictures(store)


def read(
    folder: Path,
    preprocessing: Preprocessing,
    class_names: Sequence[str] | None = None,
    loading: Loading | None = None,
    more: int = 0,
) -> Source:
    """Read a folder of images, converted to the teacher's channels (grey or RGB) and size.

    With both ``val/`` and ``test/`` the first is the validation split; ``val/`` alone is the test split. `class_names`
    gives the order of the classes, of which some may be absent; by default they are sorted by name. `more` images will
    join them.
    """
    if preprocessing.channels not in MODES:
        raise InputError(
            f"the teacher takes {preprocessing.channels} channels, images in a folder have 1 or 3: use an .npz file"
        )
    layout = find_layout(folder, class_names)
    conversions = Conversions()
    conversions.passed_over.update(layout.passed_over)
    reader = FileReader(preprocessing, loading or Loading(), conversions)
    count = sum(len(paths) for files in layout.splits.values() for paths in files.paths)
    with quiet():
        streams = (count + more) * int(np.prod(preprocessing.input_shape)) > AT_ONCE_BYTES
        parts = _samples(layout.splits, bool(layout.class_names), reader, streams)
    conversions.refuse_unused_bits()
    validation, test = parts.get("validation"), parts.get("test")
    if test is None:
        validation, test = None, validation
    return Source(parts["train"], validation, test, layout.class_names, conversions)
