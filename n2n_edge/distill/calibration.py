"""BatchNorm statistics counted anew, for the weights as they are now."""

import torch

from n2n_edge.distill.batches import evaluation_batches, subset
from n2n_edge.distill.data import Data
from n2n_edge.distill.executor import GraphModule

__all__ = ["recalibrate"]

_BATCH = 128


@torch.no_grad()
def recalibrate(module: GraphModule, data: Data, images: int, seed: int) -> None:
    """Set the running statistics to the average over batches of `images` training images, in float32; no weight moves.

    Leaves the module in evaluation mode. Which images are used depends on `seed` alone.
    """
    if module.has_batch_norm:
        module.train()
        chosen = subset(data.train, images, seed)
        for count, batch in enumerate(evaluation_batches(data, chosen, _BATCH), start=1):
            if count > 1 and len(batch.inputs) < _BATCH:
                break  # a small last batch would weigh as much as a full one
            with module.batch_norm_momentum(1.0 / count):
                module(batch.inputs)
    module.eval()
