"""What every source of data gives, and how an image becomes bytes of the teacher's size."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.pixels import Conversions
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.resizing import resized_array
from n2n_edge.data.streaming import Images, Pictures
from n2n_edge.metrics.notices import Notice

__all__ = ["IN_MEMORY_BYTES", "Samples", "Source", "allocate", "fit_all"]

IN_MEMORY_BYTES = 2_000_000_000
"""Images that take more than this are kept in a temporary file, mapped into memory."""


@dataclass(frozen=True)
class Samples:
    """Images `(N, H, W, C)` as uint8 and labels `(N,)` as int64 or None, before they are split.

    `targets` `(N, K)` are labels that are values, NaN of an image that has none, `annotations` those that are more than
    a class or numbers.
    """

    images: Images
    labels: NDArray[np.int64] | None
    targets: NDArray[np.float32] | None = None
    annotations: Annotations | None = None

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Which images have a label, where some have one: all, or those with annotations or numbers."""
        everything = np.arange(len(self.images))
        if self.annotations is not None:
            told = everything[self.annotations.labelled]
        elif self.targets is not None:
            told = everything[np.isfinite(self.targets).all(axis=1)]
        else:
            return everything
        return told if len(told) else everything

    def take(self, chosen: NDArray[np.int64]) -> "Samples":
        """Give the chosen images with their labels."""
        return Samples(
            _take(self.images, chosen),
            None if self.labels is None else self.labels[chosen],
            None if self.targets is None else self.targets[chosen],
            None if self.annotations is None else self.annotations[chosen],
        )


@dataclass(frozen=True)
class Source:
    """What was read; a part that the source does not have is None. `class_names` is empty where it has none.

    `conversions` says what was converted or passed over, `notices` what is doubtful about the labels. `summary` is
    what was read of annotations.
    """

    train: Samples
    validation: Samples | None = None
    test: Samples | None = None
    class_names: tuple[str, ...] = ()
    conversions: Conversions = field(default_factory=Conversions)
    notices: tuple[Notice, ...] = ()
    summary: str = ""


def allocate(count: int, input_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Make room for `count` images of shape `(C, H, W)`: in memory while small, else in a file that goes with it."""
    channels, height, width = input_shape
    shape = (count, height, width, channels)
    if count * channels * height * width <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype=np.uint8)
    with TemporaryFile() as file:  # the mapping outlives the name: the space is freed with the last reference
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def _take(images: Images, chosen: NDArray[np.int64]) -> Images:
    if isinstance(images, Pictures):
        return images.at(chosen)
    height, width, channels = images.shape[1:]
    taken = allocate(len(chosen), (channels, height, width))
    step = 4096
    for start in range(0, len(chosen), step):
        taken[start : start + step] = images[chosen[start : start + step]]
    return taken


def fit_all(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Bring images `(H, W, C)` with the right channels to the network's size; those that have it stay as they are.

    Arrays of that size have been cropped by whoever made them.
    """
    channels, height, width = preprocessing.input_shape
    shape = (height, width, channels)
    if isinstance(images, np.ndarray) and images.shape[1:] == shape:
        return np.ascontiguousarray(images)
    fitted = allocate(len(images), preprocessing.input_shape)
    for index, image in enumerate(images):
        fitted[index] = image if image.shape == shape else resized_array(image, preprocessing)
    return fitted
