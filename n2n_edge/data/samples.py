"""What every source of data gives, and how an image becomes bytes of the teacher's size."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.pixels import Conversions
from n2n_edge.data.streaming import Images, Pictures

__all__ = ["IN_MEMORY_BYTES", "Samples", "Source", "allocate", "fit", "fit_all"]

IN_MEMORY_BYTES = 2_000_000_000
"""Images that take more than this are kept in a temporary file, mapped into memory."""


@dataclass(frozen=True)
class Samples:
    """Images `(N, H, W, C)` as uint8 and labels `(N,)` as int64 or None, before they are split.

    `targets` `(N, K)` are labels that are values.
    """

    images: Images
    labels: NDArray[np.int64] | None
    targets: NDArray[np.float32] | None = None

    def take(self, chosen: NDArray[np.int64]) -> "Samples":
        """Give the chosen images with their labels."""
        return Samples(
            _take(self.images, chosen),
            None if self.labels is None else self.labels[chosen],
            None if self.targets is None else self.targets[chosen],
        )


@dataclass(frozen=True)
class Source:
    """What was read; a part that the source does not have is None. `class_names` is empty where it has none.

    `conversions` says what was converted or passed over.
    """

    train: Samples
    validation: Samples | None = None
    test: Samples | None = None
    class_names: tuple[str, ...] = ()
    conversions: Conversions = field(default_factory=Conversions)


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


def fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """Keep the centre of an image, as much of it as has the wanted proportions, scaled to `height` x `width`."""
    if image.size == (width, height):
        return image
    scale = max(width / image.width, height / image.height)
    kept_width = min(image.width, max(1, round(width / scale)))
    kept_height = min(image.height, max(1, round(height / scale)))
    left, top = (image.width - kept_width) // 2, (image.height - kept_height) // 2
    # cut before scaling: the filter of a scaling with a box would look beyond the box
    centre = image.crop((left, top, left + kept_width, top + kept_height))
    return centre.resize((width, height), Image.Resampling.BILINEAR)


def fit_all(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Bring images `(H, W, C)` with the right channels to the size of `shape` `(C, H, W)`."""
    channels, height, width = shape
    if isinstance(images, np.ndarray) and images.shape[1:] == (height, width, channels):
        return np.ascontiguousarray(images)
    fitted = allocate(len(images), shape)
    for place, image in enumerate(images):
        if image.shape == (height, width, channels):
            fitted[place] = image
            continue
        planes = [fit(Image.fromarray(np.ascontiguousarray(image[..., c])), height, width) for c in range(channels)]
        fitted[place] = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    return fitted
