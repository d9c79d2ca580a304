"""Batches of images on their way into a model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.streaming import batches_of
from n2n_edge.training.augmentation import augmenter, normalise
from n2n_edge.training.compute import generator
from n2n_edge.training.settings import DistillSettings

__all__ = ["Batch", "Order", "as_bytes", "evaluation_batches", "subset", "training_batches", "training_order"]


@dataclass(frozen=True)
class Batch:
    """Normalised images `(N, C, H, W)` and their labels `(N,)` or None."""

    inputs: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Order:
    """The order of one epoch: which image is in which batch. A last batch that isn't full is left out."""

    chosen: Tensor
    batch_size: int

    @property
    def steps(self) -> int:
        """Batches in this order."""
        return max(1, len(self.chosen) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for step in range(self.steps):
            yield self.chosen[step * self.batch_size : (step + 1) * self.batch_size]


def as_bytes(split: Split, chosen: Tensor) -> Tensor:
    """Copy the chosen images of a split into a tensor `(N, H, W, C)`."""
    return torch.from_numpy(np.ascontiguousarray(split.images[chosen.numpy()]))


def _read(split: Split, order: Iterable[Tensor]) -> Iterator[Tensor]:
    """Give the images of batches; where they are decoded, some of those to come are meanwhile."""
    return map(torch.from_numpy, batches_of(split.images, (chosen.numpy() for chosen in order)))


def _labels(split: Split, chosen: Tensor) -> Tensor | None:
    return None if split.labels is None else torch.from_numpy(split.labels[chosen.numpy()])


def subset(split: Split, images: int, seed: int) -> Split:
    """Choose at most `images` of a split; `seed` alone decides which."""
    if images >= len(split):
        return split
    return split.take(torch.randperm(len(split), generator=generator(seed))[:images].sort().values.numpy())


def training_order(count: int, settings: DistillSettings, epoch: int) -> Order:
    """Give the order of an epoch over `count` images; (seed, epoch) alone decide it."""
    chosen = torch.randperm(count, generator=generator(settings.seed, epoch, 0))
    return Order(chosen[: settings.images_per_epoch or count], settings.batch_size)


def training_batches(data: Data, settings: DistillSettings, epoch: int) -> Iterator[Batch]:
    """Give the batches of an epoch, augmented from the second on; (seed, epoch) alone decide them."""
    randomness = generator(settings.seed, epoch, 1)
    augment = augmenter(settings, data)
    order = training_order(len(data.train), settings, epoch)
    for chosen, images in zip(order, _read(data.train, order), strict=True):
        if settings.augments(epoch):
            images = augment(images, randomness)
        yield Batch(normalise(images, data.preprocessing), _labels(data.train, chosen))


def evaluation_batches(data: Data, split: Split, batch_size: int) -> Iterator[Batch]:
    """Give the whole split in order, as it is."""
    order = torch.split(torch.arange(len(split)), batch_size)
    for chosen, images in zip(order, _read(split, order), strict=True):
        yield Batch(normalise(images, data.preprocessing), _labels(split, chosen))
