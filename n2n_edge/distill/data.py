"""The data of a run: three splits of images held as bytes, and how they are normalised."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_edge.distill import source_digits, source_folder, source_function, source_npz
from n2n_edge.distill.importing import is_function_name
from n2n_edge.distill.outputs import OutputsName
from n2n_edge.distill.samples import Samples, Source
from n2n_edge.errors import InputError
from n2n_edge.reading import expanded

__all__ = ["Data", "Split", "load_data"]

TEST_FRACTION = 0.1
"""Share of the images that becomes the test split when the data has none."""


@dataclass(frozen=True)
class Split:
    """Images `(N, H, W, C)` as uint8 and labels `(N,)` as int64, or None where there are none.

    `targets` `(N, K)` are labels that are values, such as coordinates.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    targets: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: NDArray[np.int64]) -> "Split":
        """Give the chosen images with their labels."""
        return Split(
            self.images[chosen],
            None if self.labels is None else self.labels[chosen],
            None if self.targets is None else self.targets[chosen],
        )


@dataclass(frozen=True)
class Data:
    """Training, validation and test images; a pixel x goes in as ``(x / 255 - mean) / std`` per channel.

    `outputs` is what a model's outputs for them are taken as; None goes by the model's graph.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    outputs: OutputsName | None = None

    @property
    def labelled(self) -> bool:
        """Whether the training and validation images carry labels."""
        return self.train.labels is not None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape `(C, H, W)` of one image as the model takes it."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width


def _stratified(labels: NDArray[np.int64] | None, count: int, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose about `fraction` of `count` items, of each class alike where there are labels; at least one."""
    # RandomState is frozen by numpy's promise: the same seed gives the same split in every version
    random = np.random.RandomState(seed)
    chosen = np.zeros(count, dtype=np.bool_)
    kinds = [np.arange(count)] if labels is None else [np.flatnonzero(labels == kind) for kind in np.unique(labels)]
    for members in kinds:
        chosen[random.permutation(members)[: round(len(members) * fraction)]] = True
    if not chosen.any():
        chosen[random.randint(count)] = True
    return chosen


def _cut(samples: Samples, fraction: float, seed: int) -> tuple[Samples, Samples]:
    chosen = _stratified(samples.labels, len(samples.images), fraction, seed)
    return samples.take(np.flatnonzero(~chosen)), samples.take(np.flatnonzero(chosen))


def _check_labels(spec: str, source: Source, classes: int | None, *, may_be_values: bool) -> None:
    """Refuse labels that are no classes of the teacher, and data of a single class."""
    labels = source.train.labels
    if classes is None:
        return
    if source.train.targets is not None and not may_be_values:
        raise InputError(
            f"data '{spec}' has labels that are no whole numbers and not one-hot: give class numbers from 0"
        )
    if labels is None:
        return
    parts = [part.labels for part in (source.train, source.validation, source.test) if part and part.labels is not None]
    low, high = min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
    if low < 0:
        raise InputError(f"data '{spec}' has the label {low}: labels must be numbered from 0")
    found = len(source.class_names) or high + 1
    if len(np.unique(labels)) < 2:
        raise InputError(f"data '{spec}' holds one class only: give images of at least two classes")
    if high >= classes:
        raise InputError(
            f"data '{spec}' has labels up to {high}, but the teacher has {classes} outputs: labels must be below that; "
            "outputs that aren't scores of classes need --outputs values"
        )
    if found != classes:
        raise InputError(
            f"data '{spec}' has {found} classes, but the teacher has {classes} outputs: give the data it was trained "
            "on; outputs that aren't scores of classes need --outputs values"
        )


def _check_normalisation(
    name: str, values: tuple[float, ...] | None, channels: int, default: float
) -> tuple[float, ...]:
    if values is None:
        return (default,) * channels
    if len(values) == 1:
        values = values * channels
    if len(values) != channels:
        raise InputError(f"{name} has {len(values)} values, but images have {channels} channels: give one per channel")
    if name == "std" and min(values) <= 0:
        raise InputError(f"std has the value {min(values)}: every value must be above 0")
    return tuple(float(value) for value in values)


def _read(spec: str, input_shape: tuple[int, int, int]) -> Source:
    if spec.startswith("builtin:"):
        return source_digits.read(spec, input_shape)
    path = expanded(spec)
    if path.is_dir():
        return source_folder.read(path, input_shape)
    if path.is_file() or path.suffix == ".npz":
        return source_npz.read(path, input_shape)
    if is_function_name(spec):
        return source_function.read(spec, input_shape)
    raise InputError(f"no data '{spec}': give a folder of images, an .npz file, or package.module:function")


def load_data(
    spec: str,
    *,
    input_shape: tuple[int, int, int],
    classes: int | None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    may_be_values: bool = False,
) -> Data:
    """Load images for a teacher that takes `input_shape` `(C, H, W)` and tells `classes` apart (None: no classifier).

    `spec` is a folder (of images per class, or of images; with or without ``train/`` and ``test/``), an ``.npz`` file,
    ``package.module:function`` that gives a torch Dataset (or a training and a test one), or ``builtin:digits``. What
    has no validation or test split gets one, cut by `seed`, of each class alike; the digits are always split the same.
    `mean` and `std` are per channel, on pixels in 0..1; None leaves these as they are. Labels of values
    are taken where there are no `classes`, or with `may_be_values`. Raises InputError.
    """
    if not 0 < validation_fraction < 1:
        raise InputError(f"validation fraction {validation_fraction}: must lie between 0 and 1")
    channels = input_shape[0]
    mean = _check_normalisation("mean", mean, channels, 0.0)
    std = _check_normalisation("std", std, channels, 1.0)
    source = _read(spec, input_shape)
    _check_labels(spec, source, classes, may_be_values=may_be_values)
    train, validation, test = source.train, source.validation, source.test
    if len(train.images) < 3:
        raise InputError(f"data '{spec}' holds {len(train.images)} images: too few to train, validate and test with")
    if test is None:
        train, test = _cut(train, TEST_FRACTION, seed + 1)
    if validation is None:
        train, validation = _cut(train, validation_fraction, seed)
    names = source.class_names
    if not names and train.labels is not None:
        names = tuple(str(kind) for kind in range(classes or int(train.labels.max()) + 1))
    return Data(
        train=Split(train.images, train.labels, train.targets),
        validation=Split(validation.images, validation.labels, validation.targets),
        test=Split(test.images, test.labels, test.targets),
        class_names=names,
        mean=mean,
        std=std,
    )
