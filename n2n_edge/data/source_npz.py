"""Images in an ``.npz`` file of numpy arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.labels.packed import PACKED, unpacked
from n2n_edge.data.labels.targets import Targets
from n2n_edge.data.labels.values import Split
from n2n_edge.data.npz import Archive, open_archive
from n2n_edge.data.pixels import Conversions, bytes_of
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.samples import Samples, Source, fit_all
from n2n_edge.errors import InputError
from n2n_edge.reading import is_file

__all__ = ["as_bytes", "as_labels", "bytes_as_given", "labelled", "read"]

_IMAGE_KEYS = ("x_train", "x", "X", "images", "data")
_LABELS_OF = {"x_train": "y_train", "x_test": "y_test", "x_val": "y_val"}
_LABEL_KEYS = ("y", "labels", "targets")


def _channels_last(where: str, images: NDArray[np.generic], input_shape: tuple[int, int, int]) -> NDArray[np.generic]:
    """Bring `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)` to `(N, H, W, C)` with the teacher's channels."""
    channels, *size = input_shape
    if images.ndim not in (3, 4):
        raise InputError(
            f"{where} has the shape {images.shape}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W)"
        )
    first = images.ndim == 4 and images.shape[1] == channels
    if images.ndim == 3:
        images = images[..., np.newaxis]
    last = images.shape[-1] == channels
    if last and first:
        fits_last, fits_first = list(images.shape[1:3]) == size, list(images.shape[2:]) == size
        if fits_last == fits_first:
            raise InputError(
                f"{where} has the shape {images.shape}: its channels may be the second or the last axis; give images "
                f"of the teacher's size, {size[0]}x{size[1]}"
            )
        last = fits_last
    if last:
        return images
    if first:
        return images.transpose(0, 2, 3, 1)
    found = images.shape[-1] if images.shape[-1] <= 4 or images.shape[1] > 4 else images.shape[1]
    raise InputError(
        f"{where} holds images of {found} channels, but the teacher takes {channels}: convert the images first"
    )


def as_bytes(
    where: str, images: NDArray[np.generic], preprocessing: Preprocessing, conversions: Conversions
) -> NDArray[np.uint8]:
    """Bring images of bytes, 16-bit values, or floats in 0..1, to `(N, H, W, C)` uint8 of the teacher's size."""
    return fit_all(bytes_as_given(where, images, preprocessing, conversions), preprocessing)


def bytes_as_given(
    where: str, images: NDArray[np.generic], preprocessing: Preprocessing, conversions: Conversions
) -> NDArray[np.uint8]:
    """Bring such images to `(N, H, W, C)` uint8 with the teacher's channels, in the size that they have."""
    if images.ndim and len(images) == 0:
        raise InputError(f"{where} holds no images")
    images = _channels_last(where, images, preprocessing.input_shape)
    if images.size == 0:
        raise InputError(f"{where} has the shape {images.shape}: its images have no pixels")
    return bytes_of(where, images, conversions)


def as_labels(where: str, labels: NDArray[np.generic], count: int) -> NDArray[np.int64]:
    """Bring class numbers `(N,)` or `(N, 1)`, or one-hot rows `(N, K)`, to `(N,)` int64."""
    if labels.dtype.kind not in "buif":
        raise InputError(f"{where} has labels of type {labels.dtype}: give class numbers from 0")
    if labels.ndim == 2 and labels.shape[1] > 0:
        labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1) if _is_one_hot(labels) else labels
    if labels.shape != (count,):
        raise InputError(f"{where} has labels of shape {labels.shape} for {count} images: give one label per image")
    if labels.dtype.kind == "f" and not np.array_equal(np.trunc(labels), labels):  # NaN is unequal to itself
        raise InputError(f"{where} has labels that are no whole numbers: give class numbers from 0")
    if labels.size and not (labels.max() < 2**31 and labels.min() >= -(2**31)):
        raise InputError(f"{where} has labels up to {labels.max():g}: give class numbers from 0")
    return labels.astype(np.int64)


def labelled(where: str, images: NDArray[np.uint8], labels: NDArray[np.generic]) -> Samples:
    """Join images and labels: class numbers or one-hot rows name classes, other numbers are values `(N, K)`."""
    count = len(images)
    numeric = labels.dtype.kind in "iufb" and labels.ndim >= 1 and len(labels) == count and labels.size > 0
    flat = labels.reshape(count, -1) if numeric else labels
    if not numeric or _is_one_hot(flat) or (flat.shape[1] == 1 and np.array_equal(flat, np.floor(flat))):
        return Samples(images, as_labels(where, labels, count))
    if not np.isfinite(flat).all():
        raise InputError(f"{where} has labels that are no finite numbers: mend or leave out these images")
    return Samples(images, None, flat.astype(np.float32))


def _is_one_hot(rows: NDArray[np.generic]) -> bool:
    """Tell whether every row of `(N, K)` is one 1 among noughts."""
    if rows.ndim != 2 or rows.shape[1] < 2:
        return False
    ones = rows == 1
    return bool((ones | (rows == 0)).all() and (ones.sum(1) == 1).all())


@dataclass(frozen=True)
class _Reader:
    """An open file, and what its images and labels are read by."""

    archive: Archive
    preprocessing: Preprocessing
    conversions: Conversions
    targets: Targets

    def where(self, key: str) -> str:
        return f"'{key}' of '{self.archive.path}'"

    def part(self, key: str, label_key: str | None, suffix: str, split: Split | None) -> tuple[Samples, int]:
        """Return images and labels, and how many labels they have that are more than a class or numbers."""
        archive = self.archive
        declared = archive.shape(key)
        if len(declared) not in (3, 4):  # before gigabytes are unpacked
            raise InputError(
                f"{self.where(key)} has the shape {declared}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W)"
            )
        images = bytes_as_given(self.where(key), archive.read(key), self.preprocessing, self.conversions)
        pixels, height, width = fit_all(images, self.preprocessing), *images.shape[1:3]
        held = {name: archive.read(name + suffix) for name in PACKED if name + suffix in archive.names}
        labels = None if label_key is None or label_key not in archive.names else archive.read(label_key)
        if labels is not None and labels.ndim and len(labels) and self.targets.are(labels[0], (height, width)):
            held["y"] = labels
        names = {name: name + suffix for name in PACKED} | {"y": label_key or ""}
        told = unpacked(lambda name: self.where(names[name]), held, len(images)) if held else None
        if told is None:
            return Samples(pixels, None) if labels is None else labelled(self.where(label_key or ""), pixels, labels), 0
        for place, target in enumerate(told):
            where = f"image {place} of {self.where(key)}"
            self.targets.add(where, target, (height, width), self.preprocessing, split)
        return Samples(pixels, None), len(told)


def read(
    path: Path, preprocessing: Preprocessing, classes: Callable[[], int | Sequence[str] | None] = lambda: None
) -> Source:
    """Read ``x_train, y_train, x_test, y_test`` (and ``x_val, y_val``), or one pair such as ``images, labels``.

    Labels of images' size are masks; for boxes and points see `packed`, with names that end as those of the images do.
    `classes` gives how many classes of objects or pixels the teacher has, or their names.
    """
    if not is_file(path):
        raise InputError(f"no such file '{path}': give a folder of images, an .npz file, or package.module:function")
    conversions, targets = Conversions(), Targets(f"data '{path}'", classes)
    with open_archive(path) as archive:
        source = _read_arrays(_Reader(archive, preprocessing, conversions, targets))
    conversions.refuse_unused_bits()
    return source


def _read_arrays(reader: _Reader) -> Source:
    path, names = reader.archive.path, reader.archive.names
    key = next((key for key in _IMAGE_KEYS if key in names), None)
    if key is None:
        raise InputError(
            f"'{path}' holds the arrays {', '.join(sorted(names)) or 'none'}: name them x_train, y_train, x_test, "
            f"y_test, or images, labels"
        )
    labels_of = dict(_LABELS_OF)
    splits: dict[str, Split | None] = {"x_train": "train", "x_test": "test", "x_val": "validation"}
    if key != "x_train":
        labels_of, splits = {key: next((name for name in _LABEL_KEYS if name in names), _LABEL_KEYS[0])}, {key: None}
    suffixes = {name: name[1:] if key == "x_train" else "" for name in labels_of}
    used = {*labels_of, *labels_of.values(), *(name + end for name in PACKED for end in suffixes.values())}
    reader.conversions.passed_over["other arrays"] = len(set(names) - used)
    parts, counts = dict[str, Samples](), dict[str, int]()
    for name in labels_of:
        if name in names:
            parts[name], counts[name] = reader.part(name, labels_of[name], suffixes[name], splits[name])
    source = Source(parts[key], conversions=reader.conversions)
    if any(counts.values()):
        told, start = reader.targets.annotated(), 0
        for name, count in counts.items():
            if count:
                rows = slice(start, start + count)
                labels = Annotations.in_place(told.labels[rows], told.images[rows])
                parts[name] = replace(parts[name], annotations=labels)
            start += count
        source = replace(source, class_names=told.names, notices=told.notices, summary=told.summary)
    if len({(part.labels is None, part.targets is None, part.annotations is None) for part in parts.values()}) > 1:
        raise InputError(f"'{path}' has labels for some of {', '.join(parts)} only: give them for all or for none")
    return replace(source, train=parts[key], validation=parts.get("x_val"), test=parts.get("x_test"))
