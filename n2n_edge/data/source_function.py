"""Images from a person's own code: ``package.module:function`` that gives a torch Dataset."""

import sys
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.pixels import Conversions, as_eight_bits
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.samples import Samples, Source, fit_all
from n2n_edge.data.source_npz import as_bytes, labelled
from n2n_edge.errors import InputError
from n2n_edge.importing import call_by_name, guarded

__all__ = ["Dataset", "read", "read_datasets"]


class Dataset(Protocol):
    """A torch Dataset of images, or of images and labels: anything with a length and items."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> object: ...


def _pixels(where: str, image: object, channels: int, conversions: Conversions) -> NDArray[np.generic]:
    """Give one image as an array: PIL images in the teacher's mode, tensors and arrays as they are."""
    if isinstance(image, Image.Image):
        modes = {1: "L", 3: "RGB"}
        image = as_eight_bits(where, image, conversions)
        return np.asarray(image.convert(modes[channels]) if channels in modes else image)
    torch: Any = sys.modules.get("torch")  # who gives tensors has imported it
    if torch is not None and isinstance(image, torch.Tensor):
        return cast("NDArray[np.generic]", cast("Any", image).detach().cpu().numpy())
    if isinstance(image, np.ndarray):
        return np.asarray(image)
    raise InputError(f"{where} gives a {type(image).__name__}: give PIL images, tensors or numpy arrays")


def _item(
    where: str, item: object, preprocessing: Preprocessing, conversions: Conversions
) -> tuple[NDArray[np.uint8], NDArray[np.generic] | None]:
    """Give an item's image and its label as a row of numbers, None where it has none."""
    image, label = (item[0], item[1]) if isinstance(item, (tuple, list)) and len(item) > 1 else (item, None)
    if isinstance(image, (tuple, list)) and len(image) == 1:
        image = image[0]
    pixels = _pixels(where, image, preprocessing.channels, conversions)[np.newaxis]
    values = as_bytes(where, pixels, preprocessing, conversions)[0]
    return values, None if label is None else _numbers(where, label)


def _numbers(where: str, label: object) -> NDArray[np.generic]:
    """Give a label as a row of numbers: one of a class, or several values such as coordinates."""
    try:
        row = np.asarray(label)
    except (TypeError, ValueError, RuntimeError):
        row = np.asarray(None)
    if row.dtype.kind not in "iufb" or not row.size:
        raise InputError(f"{where} has a label that is no number and no row of them: give class numbers from 0")
    return row.reshape(-1)


def _read_part(spec: str, dataset: object, preprocessing: Preprocessing, conversions: Conversions) -> Samples:
    with guarded(f"data '{spec}': its Dataset"):
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise InputError(f"data '{spec}' gives a {type(dataset).__name__}: give a Dataset with a length and items")
        items = cast("Dataset", dataset)
        count = len(items)
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.generic]] = []
    for index in range(count):
        where = f"item {index} of data '{spec}'"
        with guarded(where):
            image, label = _item(where, items[index], preprocessing, conversions)
        images.append(image)
        if label is not None:
            labels.append(label)
    if not images:
        raise InputError(f"data '{spec}' holds no images")
    if labels and len(labels) != len(images):
        raise InputError(f"data '{spec}' has labels for {len(labels)} of {len(images)} images: give all or none")
    pixels = fit_all(images, preprocessing)
    if not labels:
        return Samples(pixels, None)
    if len({len(label) for label in labels}) > 1:
        raise InputError(f"data '{spec}' has labels of unlike length: give one number, or equally many, for each image")
    return labelled(f"data '{spec}'", pixels, np.stack(labels))


def read(spec: str, preprocessing: Preprocessing) -> Source:
    """Call the function and read the Dataset it gives, or the training and the test Dataset."""
    return read_datasets(spec, call_by_name("data", spec), preprocessing)


def read_datasets(spec: str, result: object, preprocessing: Preprocessing) -> Source:
    """Read a Dataset, or a training and a test Dataset, which errors call `spec`."""
    conversions = Conversions()
    if issubclass(type(result), tuple):  # isinstance would ask the object itself, outside of any guard
        result = cast("tuple[object, ...]", result)
        if len(result) != 2:
            raise InputError(
                f"data '{spec}' gives {len(result)} values: give one Dataset, or a training and a test one"
            )
        train, test = (_read_part(spec, dataset, preprocessing, conversions) for dataset in result)
        if (train.labels is None, train.targets is None) != (test.labels is None, test.targets is None):
            raise InputError(f"data '{spec}' has labels for one of its two Datasets only: give them for both or none")
        source = Source(train, test=test, conversions=conversions)
    else:
        source = Source(_read_part(spec, result, preprocessing, conversions), conversions=conversions)
    conversions.refuse_unused_bits()
    return source
