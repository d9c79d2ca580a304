"""Layers with large inputs: a network that takes pixels in 0..255 learns as one that takes them in 0..1."""

import pickle

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.graph.merging import merges_of
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.search.evaluations import Candidate
from n2n_edge.tasks.values import Values
from n2n_edge.training.distillation import distill
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.input_scale import input_scales
from n2n_edge.training.settings import DistillSettings
from tests.strategies import GraphBuilder, Tensor

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


def test_a_merged_layer_learns_as_slowly_as_its_taps_ask_wherever_it_is_trained() -> None:
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=True, activation="Clip")
    x = s.conv(Tensor("input", 3, (16, 16)), 8)
    y = s.conv(s.conv(x, 48, kernel=1), 48, groups=48)
    x = s.add(s.conv(y, 8, kernel=1, act=False), x)
    output = s.dense(s.flatten(s.global_pool(x, "GlobalAveragePool")), 4)
    teacher = Teacher(ir.from_proto(s.to_proto(3, 16, output, free_batch=True, batch=1)))
    merge = max(merges_of(teacher.links), key=lambda each: len(each.layers))
    architecture = teacher.full.linearise(*merge.linear)
    group = next(group for group in teacher.base_graph(frozenset(), architecture.linear).groups if group.shrinkable)
    narrower = architecture.resize(group.name, group.width // 2)
    given = torch.rand(4, 3, 16, 16)
    assert input_scales(GraphModule(teacher.model), given) == {}
    for merged in (build(teacher, architecture), build(teacher, narrower)):
        sent = pickle.loads(pickle.dumps(Candidate(merged, {}, 0))).model  # to another process
        for model in (merged, sent):
            scales = input_scales(GraphModule(model), given)
            assert list(scales.values()) == [pytest.approx(3.0)]  # 3x3 where the last layer is 1x1


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
