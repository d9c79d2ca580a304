"""Batches of images on their way into a model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.labels.values import Floats
from n2n_edge.data.streaming import batches_of
from n2n_edge.tasks.classification import Classification
from n2n_edge.training.augmentation import Augmenter, normalise
from n2n_edge.training.compute import generator
from n2n_edge.training.settings import DistillSettings

__all__ = [
    "Batch",
    "Order",
    "as_bytes",
    "evaluation_batches",
    "images_of",
    "subset",
    "taught_labels",
    "training_batches",
    "training_order",
]


@dataclass(frozen=True)
class Batch:
    """Normalised images `(N, C, H, W)` and their labels as the loss takes them (see `Task.taught`) or None."""

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


def images_of(split: Split, order: Iterable[Tensor]) -> Iterator[Tensor]:
    """Give the images of batches `(N, H, W, C)`; where they are decoded, some of those to come are meanwhile."""
    return map(torch.from_numpy, batches_of(split.images, (chosen.numpy() for chosen in order)))


def taught_labels(
    data: Data,
    settings: DistillSettings,
    split: Split,
    chosen: Tensor,
    moves: Sequence[Floats | None] | None = None,
) -> Tensor | None:
    """Give the labels of the chosen images as the loss of the data's task takes them, None where it takes none.

    `moves` are what augmentation did to the images (see `Augmenter.moved`), which their labels follow.
    """
    task = data.task or Classification()
    labels = task.labels(split) if settings.kd_weight < 1 else None
    if labels is None:
        return None
    rows = chosen.numpy()
    some = labels[rows] if isinstance(labels, np.ndarray | Annotations) else [labels[row] for row in rows]
    if moves is not None:
        size, flip_index = data.preprocessing.size, labels.flip_index if isinstance(labels, Annotations) else None
        some = [task.moved(*pair, size, flip_index) for pair in zip(some, moves, strict=True)]
    return task.taught(some, torch.device("cpu"))


def subset(split: Split, images: int, seed: int) -> Split:
    """Choose at most `images` of a split; `seed` alone decides which."""
    if images >= len(split):
        return split
    return split.take(torch.randperm(len(split), generator=generator(seed))[:images].sort().values.numpy())


def training_order(count: int, settings: DistillSettings, epoch: int) -> Order:
    """Give the order of an epoch over `count` images; (seed, epoch) alone decide it."""
    chosen = torch.randperm(count, generator=generator(settings.seed, epoch, 0))
    return Order(chosen[: settings.images_per_epoch or count], settings.batch_size)


def training_batches(
    data: Data, settings: DistillSettings, epoch: int, share: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Give the batches of an epoch, augmented from the second on; (seed, epoch) alone decide them.

    `share`: of each batch the equal part that one of several processes takes, its number from nought and how many they
    are; the others' images aren't read.
    """
    randomness = generator(settings.seed, epoch, 1)
    augment = Augmenter(settings, data)
    order = training_order(len(data.train), settings, epoch)
    rank, processes = share
    each = min(order.batch_size, len(order.chosen)) // processes
    own = [chosen[rank * each : (rank + 1) * each] if processes > 1 else chosen for chosen in order]
    for whole, chosen, images in zip(order, own, images_of(data.train, own), strict=True):
        moves = None
        if settings.augments(epoch):
            images, moves = augment.moved(images, randomness, of=(rank * each, len(whole)))
        labels = taught_labels(data, settings, data.train, chosen, moves)
        yield Batch(normalise(images, data.preprocessing), labels)


def evaluation_batches(data: Data, split: Split, batch_size: int) -> Iterator[Batch]:
    """Give the whole split in order, as it is, without labels."""
    for images in images_of(split, torch.split(torch.arange(len(split)), batch_size)):
        yield Batch(normalise(images, data.preprocessing), None)
