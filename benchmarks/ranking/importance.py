"""Other ways than norms to tell which channels matter: scores for `Teacher.scored`."""

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from n2n_edge.data.dataset import Data
from n2n_edge.training.augmentation import normalise
from n2n_edge.training.executor import GraphModule

Scores = dict[str, NDArray[np.float32]]
"""A figure for every element of the weights named."""

IMAGES, BATCH = 512, 32


def taylor_scores(teacher: ir.Model, data: Data) -> Scores:
    """Return ``(w dL/dw)^2``, averaged over small batches, L being the cross entropy.

    To first order that is the squared change of the loss when a weight goes (Molchanov et al., Importance Estimation
    for Neural Network Pruning, CVPR 2019, section 3.1).
    """
    assert data.train.labels is not None
    module = GraphModule(teacher)
    weights = {name: tensor for name, tensor in module.learned().items() if tensor.is_floating_point()}
    parameters = {parameter.data_ptr(): parameter for parameter in module.parameters()}
    found = {name: parameters[tensor.data_ptr()] for name, tensor in weights.items() if tensor.data_ptr() in parameters}
    scores = {name: torch.zeros_like(tensor) for name, tensor in found.items()}
    chosen = np.random.default_rng(0).permutation(len(data.train))[:IMAGES]
    for part in np.split(chosen, IMAGES // BATCH):
        images = torch.from_numpy(data.train.images[part])
        outputs = module(normalise(images, data.preprocessing))
        assert isinstance(outputs, torch.Tensor)
        loss = F.cross_entropy(outputs, torch.from_numpy(data.train.labels[part]))
        module.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in found.items():
            assert parameter.grad is not None
            scores[name] += (parameter.detach() * parameter.grad).square()
    return {name: score.numpy() for name, score in scores.items()}


def norm_scores(teacher: ir.Model) -> Scores:
    """Return the squared scales of all BatchNorms (Liu et al., Network Slimming, ICCV 2017)."""
    scores = {}
    for node in teacher.graph:
        scale = node.inputs[1] if node.op_type == "BatchNormalization" else None
        if scale is not None and scale.const_value is not None and scale.name is not None:
            scores[scale.name] = np.square(scale.const_value.numpy())
    return scores
