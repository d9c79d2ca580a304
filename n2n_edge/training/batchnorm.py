"""BatchNorm statistics counted anew, for the weights as they are now."""

import torch

from n2n_edge.data.dataset import Data
from n2n_edge.training.augmentation import Augmenter, normalise
from n2n_edge.training.batches import images_of
from n2n_edge.training.compute import Engine, generator
from n2n_edge.training.evaluation import batch_for
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import step

__all__ = ["recalibrate", "recalibrated_on"]

_BATCH = 128
_STREAM = 2**33
"""Tells this use of the seed from others."""


def recalibrated_on(data: Data, settings: DistillSettings, randomness: torch.Generator | None = None) -> torch.Tensor:
    """Return the numbers of the training images that `recalibrate` looks at, in its order."""
    drawn = generator(settings.seed, _STREAM) if randomness is None else randomness
    return torch.randperm(len(data.train), generator=drawn)[: settings.calibration_images]


@torch.no_grad()
def recalibrate(module: GraphModule, data: Data, settings: DistillSettings, epoch: int, engine: Engine) -> None:
    """Set the running statistics to the average over batches of training images, in float32; no weight moves.

    The images are what the weights were trained under: in random order, since batches of one class vary less than the
    data does, and augmented like those of `epoch`. The seed alone decides which. Leaves the module in evaluation mode.
    """
    if module.has_batch_norm:
        module.train()
        augment = Augmenter(settings, data)
        randomness = generator(settings.seed, _STREAM)
        order = recalibrated_on(data, settings, randomness)
        size = batch_for(data, _BATCH)
        # a small last batch would weigh as much as a full one
        batches = [chosen for place, chosen in enumerate(torch.split(order, size)) if not place or len(chosen) == size]
        for count, images in enumerate(images_of(data.train, batches), start=1):
            if settings.augments(epoch):
                images = augment(images, randomness)
            with step("recounting of BatchNorm statistics"), module.batch_norm_momentum(1.0 / count):
                module(engine.moved(normalise(images, data.preprocessing)))
    module.eval()
