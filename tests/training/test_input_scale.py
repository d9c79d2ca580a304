"""Layers with large inputs: a network that takes pixels in 0..255 learns as one that takes them in 0..1."""

import numpy as np
import pytest
import torch
from torch import nn

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.graph.teacher import Teacher
from n2n_edge.tasks.values import Values
from n2n_edge.training.distillation import distill
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.input_scale import input_scales
from n2n_edge.training.settings import DistillSettings

pytestmark = pytest.mark.processor

SETTINGS = DistillSettings(
    epochs=2, batch_size=16, learning_rate=0.02, weight_decay=0.0, augment="none", precision="fp32", device="cpu",
    threads=1,
)  # fmt: skip


def network(divisor: float, seed: int) -> Teacher:
    """A network whose first weights are divided by `divisor`, for inputs that are as many times as large."""
    torch.manual_seed(seed)
    first = nn.Conv2d(3, 8, 3, stride=2)
    with torch.no_grad():
        first.weight /= divisor
    layers = nn.Sequential(first, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
    return Teacher.from_torch(layers.eval(), torch.zeros(1, 3, 12, 12))


def images(pixels: str) -> Data:
    drawn = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3), dtype=np.uint8)
    split = Split(drawn, None)
    preprocessing = Preprocessing((12, 12), pixels=pixels, mean=(0.0,) * 3, std=(1.0,) * 3)  # type: ignore[arg-type]
    return Data(split, split, split, (), preprocessing, task=Values())


def test_large_inputs_are_seen_and_usual_ones_are_not() -> None:
    large, usual = network(255.0, 0), network(1.0, 0)
    given = torch.rand(4, 3, 12, 12)
    assert input_scales(GraphModule(usual.model), given) == {}
    scales = input_scales(GraphModule(large.model), 255 * given)
    assert len(scales) == 1
    assert next(iter(scales.values())) == pytest.approx(255 * float(given.square().mean().sqrt()), rel=1e-3)


def test_a_network_of_bytes_learns_as_one_of_fractions() -> None:
    """The step is that of the weights of inputs of size one, so the two differ by the size of the fractions alone."""
    students = []
    for pixels, divisor in (("0..1", 1.0), ("0..255", 255.0)):
        data = images(pixels)
        result = distill(network(divisor, 1).model, network(divisor, 0).model, data, SETTINGS)
        students.append([report.validation_loss or 0.0 for report in result.history])
    untrained = (
        distill(
            network(255.0, 1).model,
            network(255.0, 0).model,
            images("0..255"),
            DistillSettings(epochs=1, learning_rate=1e-9),
        )
        .history[0]
        .validation_loss
    )
    assert untrained is not None
    fractions, byte_values = students
    assert byte_values[-1] < 0.7 * untrained
    assert byte_values[-1] == pytest.approx(fractions[-1], rel=0.25)
