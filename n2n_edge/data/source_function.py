"""Images from a person's own code: ``package.module:function`` that gives a torch Dataset."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.labels.targets import Targets
from n2n_edge.data.labels.values import Annotated, Split
from n2n_edge.data.pixels import Conversions, as_eight_bits
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.samples import Samples, Source, fit_all
from n2n_edge.data.source_npz import bytes_as_given, labelled
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
) -> tuple[NDArray[np.uint8], object]:
    """Give an item's image as bytes of the size that it has, and its label, None where it has none."""
    image, label = (item[0], item[1]) if isinstance(item, (tuple, list)) and len(item) > 1 else (item, None)
    if isinstance(image, (tuple, list)) and len(image) == 1:
        image = image[0]
    pixels = _pixels(where, image, preprocessing.channels, conversions)[np.newaxis]
    return bytes_as_given(where, pixels, preprocessing, conversions), label


def _numbers(where: str, label: object) -> NDArray[np.generic]:
    """Give a label as a row of numbers: one of a class, or several values such as coordinates."""
    try:
        row = np.asarray(label)
    except (TypeError, ValueError, RuntimeError):
        row = np.asarray(None)
    if row.dtype.kind not in "iufb" or not row.size:
        raise InputError(f"{where} has a label that is no number and no row of them: give class numbers from 0")
    return row.reshape(-1)


@dataclass(frozen=True)
class _Part:
    """What a Dataset gives: images, and for each of them a row of numbers, or a label that is more, or None."""

    images: NDArray[np.uint8]
    rows: Sequence[NDArray[np.generic] | None]
    annotated: Sequence[bool]


def _read_part(
    spec: str,
    dataset: object,
    preprocessing: Preprocessing,
    conversions: Conversions,
    targets: Targets,
    split: Split | None,
) -> _Part:
    with guarded(f"data '{spec}': its Dataset"):
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise InputError(f"data '{spec}' gives a {type(dataset).__name__}: give a Dataset with a length and items")
        items = cast("Dataset", dataset)
        count = len(items)
    images: list[NDArray[np.uint8]] = []
    rows: list[NDArray[np.generic] | None] = []
    annotated: list[bool] = []
    kind = {None: "item", "train": "training item", "test": "test item"}
    for index in range(count):
        where = f"{kind.get(split)} {index} of data '{spec}'"
        with guarded(where):
            image, label = _item(where, items[index], preprocessing, conversions)
            height, width = image.shape[1:3]
            annotated.append(targets.are(label, (height, width)))
            targets.add(where, label if annotated[-1] else None, (height, width), preprocessing, split)
            rows.append(None if label is None or annotated[-1] else _numbers(where, label))
        images.append(fit_all(image, preprocessing)[0])
    if not images:
        raise InputError(f"data '{spec}' holds no images")
    return _Part(fit_all(images, preprocessing), rows, annotated)


def _of_numbers(spec: str, part: _Part) -> Samples:
    """Return images with classes or numbers, or without any."""
    labels = [row for row in part.rows if row is not None]
    if labels and len(labels) != len(part.images):
        raise InputError(f"data '{spec}' has labels for {len(labels)} of {len(part.images)} images: give all or none")
    if not labels:
        return Samples(part.images, None)
    if len({len(label) for label in labels}) > 1:
        raise InputError(f"data '{spec}' has labels of unlike length: give one number, or equally many, for each image")
    return labelled(f"data '{spec}'", part.images, np.stack(labels))


def read(
    spec: str, preprocessing: Preprocessing, classes: Callable[[], int | Sequence[str] | None] = lambda: None
) -> Source:
    """Call the function and read the Dataset it gives, or the training and the test Dataset.

    `classes` gives how many classes of objects or pixels the teacher has, or their names.
    """
    return read_datasets(spec, call_by_name("data", spec), preprocessing, classes)


def read_datasets(
    spec: str,
    result: object,
    preprocessing: Preprocessing,
    classes: Callable[[], int | Sequence[str] | None] = lambda: None,
) -> Source:
    """Read a Dataset, or a training and a test Dataset, which errors call `spec`."""
    conversions, targets = Conversions(), Targets(f"data '{spec}'", classes)
    datasets: list[tuple[object, Split | None]] = [(result, None)]
    if issubclass(type(result), tuple):  # isinstance would ask the object itself, outside of any guard
        result = cast("tuple[object, ...]", result)
        if len(result) != 2:
            raise InputError(
                f"data '{spec}' gives {len(result)} values: give one Dataset, or a training and a test one"
            )
        datasets = [(result[0], "train"), (result[1], "test")]
    parts = [_read_part(spec, each, preprocessing, conversions, targets, split) for each, split in datasets]
    source = Source(Samples(parts[0].images, None), conversions=conversions)
    if any(any(part.annotated) for part in parts):
        samples, told = _annotated(spec, parts, targets)
        source = replace(source, class_names=told.names, notices=told.notices, summary=told.summary)
    else:
        samples = [_of_numbers(spec, part) for part in parts]
    kinds = {(part.labels is None, part.targets is None, part.annotations is None) for part in samples}
    if len(kinds) > 1:
        raise InputError(f"data '{spec}' has labels for one of its two Datasets only: give them for both or none")
    conversions.refuse_unused_bits()
    return replace(source, train=samples[0], test=samples[1] if len(samples) > 1 else None)


def _annotated(spec: str, parts: Sequence[_Part], targets: Targets) -> tuple[list[Samples], Annotated]:
    """Return images with labels that are more than a class, in pixels of the network's input."""
    if any(row is not None for part in parts for row in part.rows):
        raise InputError(f"data '{spec}' has dicts or masks as labels, and numbers: give the same kind for every image")
    told, samples, start = targets.annotated(), list[Samples](), 0
    for part in parts:
        rows = slice(start, start + len(part.images))
        labels = Annotations.in_place(told.labels[rows], told.images[rows]) if any(part.annotated) else None
        samples.append(Samples(part.images, None, None, labels))
        start = rows.stop
    return samples, told
