"""Images in an ``.npz`` file of numpy arrays."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from n2n_edge.distill.samples import Samples, Source, fit_all
from n2n_edge.errors import InputError

__all__ = ["as_bytes", "as_labels", "labelled", "read"]

_IMAGE_KEYS = ("x_train", "x", "X", "images", "data")
_LABELS_OF = {"x_train": "y_train", "x_test": "y_test", "x_val": "y_val"}
_LABEL_KEYS = ("y", "labels", "targets")


def _channels_last(where: str, images: NDArray[np.generic], channels: int) -> NDArray[np.generic]:
    """Bring `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)` to `(N, H, W, C)` with the teacher's channels."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4:
        raise InputError(
            f"{where} has the shape {images.shape}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W)"
        )
    if images.shape[-1] == channels:
        return images
    if images.shape[1] == channels:
        return images.transpose(0, 2, 3, 1)
    found = images.shape[-1] if images.shape[-1] <= 4 or images.shape[1] > 4 else images.shape[1]
    raise InputError(
        f"{where} holds images of {found} channels, but the teacher takes {channels}: convert the images first"
    )


def as_bytes(where: str, images: NDArray[np.generic], input_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Bring images of bytes, or of floats in 0..1, to `(N, H, W, C)` uint8 of the teacher's size."""
    if len(images) == 0:
        raise InputError(f"{where} holds no images")
    images = _channels_last(where, images, input_shape[0])
    if images.dtype == np.uint8:
        return fit_all(images.astype(np.uint8, copy=False), input_shape)
    low, high = float(images.min()), float(images.max())
    if np.issubdtype(images.dtype, np.integer) and low >= 0 and high <= 255:
        return fit_all(images.astype(np.uint8), input_shape)
    if np.issubdtype(images.dtype, np.floating) and low >= 0 and high <= 1:  # NaN fails the comparison
        return fit_all(np.rint(images.astype(np.float32) * 255).astype(np.uint8), input_shape)
    raise InputError(
        f"{where} holds {images.dtype} values from {low:g} to {high:g}: give bytes, or floats from 0 to 1 "
        f"(normalisation is applied later, from mean and std)"
    )


def as_labels(where: str, labels: NDArray[np.generic], count: int) -> NDArray[np.int64]:
    """Bring class numbers `(N,)` or `(N, 1)`, or one-hot rows `(N, K)`, to `(N,)` int64."""
    if labels.ndim == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1) if _is_one_hot(labels) else labels
    if labels.shape != (count,):
        raise InputError(f"{where} has labels of shape {labels.shape} for {count} images: give one label per image")
    if not np.issubdtype(labels.dtype, np.number):
        raise InputError(f"{where} has labels of type {labels.dtype}: give class numbers from 0")
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise InputError(f"{where} has labels that are no whole numbers: give class numbers from 0")
    return whole


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


def _read_part(
    path: Path, arrays: dict[str, NDArray[np.generic]], key: str, label_key: str | None, shape: tuple[int, int, int]
) -> Samples:
    images = as_bytes(f"'{key}' of '{path}'", arrays[key], shape)
    if label_key is None or label_key not in arrays:
        return Samples(images, None)
    return labelled(f"'{label_key}' of '{path}'", images, arrays[label_key])


def read(path: Path, input_shape: tuple[int, int, int]) -> Source:
    """Read ``x_train, y_train, x_test, y_test`` (and ``x_val, y_val``), or one pair such as ``images, labels``."""
    if not path.is_file():
        raise InputError(f"no such file '{path}': give a folder of images, an .npz file, or package.module:function")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"'{path}' can't be read as an .npz file of plain arrays ({error}): write it anew") from error
    key = next((key for key in _IMAGE_KEYS if key in arrays), None)
    if key is None:
        raise InputError(
            f"'{path}' holds the arrays {', '.join(sorted(arrays)) or 'none'}: name them x_train, y_train, x_test, "
            f"y_test, or images, labels"
        )
    if key != "x_train":
        label_key = next((name for name in _LABEL_KEYS if name in arrays), None)
        return Source(train=_read_part(path, arrays, key, label_key, input_shape))
    parts = {
        name: _read_part(path, arrays, name, _LABELS_OF[name], input_shape) for name in _LABELS_OF if name in arrays
    }
    if len({(part.labels is None, part.targets is None) for part in parts.values()}) > 1:
        raise InputError(f"'{path}' has labels for some of {', '.join(parts)} only: give them for all or for none")
    return Source(parts["x_train"], parts.get("x_val"), parts.get("x_test"))
