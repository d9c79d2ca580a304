"""Slopes of the loss by what layers give: how much their errors matter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from n2n_edge.data.dataset import Data
from n2n_edge.graph.teacher import Teacher
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.values import Values
from n2n_edge.training.compute import Engine
from n2n_edge.training.output_slopes import output_slopes
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.unit_importance import data_importance
from tests.training.small import random_data

pytestmark = pytest.mark.processor

SETTINGS = DistillSettings(threads=1)


def slopes_of(teacher: Teacher, data: Data) -> list[np.ndarray]:
    """Return the slopes of the layers in the order of the graph."""
    engine = Engine.of(SETTINGS)
    module = engine.module(teacher.model, "teacher").eval()
    found = output_slopes(module, task_of(teacher.model, data), data, torch.arange(len(data.train)), SETTINGS, engine)
    assert all(parameter.grad is None for parameter in module.weights())
    names = [str(node.inputs[1].name) for node in teacher.model.graph if node.op_type in ("Conv", "Gemm")]
    return [found[name].numpy() for name in names if name in found]


def test_an_error_matters_by_what_is_made_of_it() -> None:
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).eval()
    with torch.no_grad():
        pooled[3].weight[0] = torch.tensor([1.0, -2.0, 0.0, 4.0])  # type: ignore[index, operator]
    teacher = Teacher.from_torch(pooled, torch.zeros(1, 3, 12, 12))
    data = replace(random_data(teacher.model), task=Values())
    conv, last = slopes_of(teacher, data)
    np.testing.assert_allclose(conv / conv[0], [1, 4, 0, 16], rtol=1e-4, atol=1e-6)
    assert last == pytest.approx(conv[0], rel=1e-4)  # an error of all positions alike passes the pooling whole


def test_the_rise_of_the_loss_is_foretold() -> None:
    """Errors of the one layer before the outputs: all that is between them and the loss is its curvature."""
    torch.manual_seed(0)
    teacher = Teacher.from_torch(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval(),
        torch.zeros(1, 3, 12, 12),
    )
    data = random_data(teacher.model)
    task = task_of(teacher.model, data)
    engine = Engine.of(SETTINGS)
    module = engine.module(teacher.model, "teacher").eval()
    images = torch.from_numpy(data.train.images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        outputs = module((images - 0.5) / 0.3)
    assert isinstance(outputs, torch.Tensor)
    error = 0.3 * outputs.std(dim=0) * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    rise = float(task.loss([outputs + error], [outputs], None, SETTINGS))
    foretold = float((torch.from_numpy(slopes_of(teacher, data)[-1]) * error.square().mean(dim=0)).sum()) / 2
    assert foretold == pytest.approx(rise, rel=1.0)


class Scaled(nn.Module):
    """Two maps of other sizes, multiplied by the same constants, as the heads of detectors are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.strided = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, stride=2)
        self.scale = nn.Parameter(torch.arange(1.0, 5.0).view(1, 4, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        large = self.conv(images)
        small = self.strided(large)
        return torch.cat([(large * self.scale).flatten(2), (small * self.scale).flatten(2)], dim=2)


def test_a_scale_that_several_maps_share_is_no_layer() -> None:
    torch.manual_seed(0)
    teacher = Teacher.from_torch(Scaled().eval(), torch.zeros(1, 3, 12, 12))
    scales = [node.inputs[1] for node in teacher.model.graph if node.op_type == "Mul"]
    assert len(scales) == 2
    assert scales[0] is scales[1]
    data = replace(random_data(teacher.model), task=Values())
    assert [len(slope) for slope in slopes_of(teacher, data)] == [4, 4]


def test_a_reader_that_nothing_follows_has_no_say() -> None:
    torch.manual_seed(0)

    class TwoReaders(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.read, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
            self.last = nn.Conv2d(12, 4, 1)
            with torch.no_grad():
                self.read.weight[:, :4] *= 0.05
                self.other.weight[:, 4:] *= 0.05
                self.last.weight[:, 6:] = 1e-4

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            map_ = torch.relu(self.first(image))
            return torch.as_tensor(self.last(torch.relu(torch.cat([self.read(map_), self.other(map_)], dim=1))))

    teacher = Teacher.from_torch(TwoReaders().eval(), torch.zeros(1, 3, 12, 12))
    importance = data_importance(teacher, random_data(teacher.model), SETTINGS)
    group = next(group for group in teacher.groups if group.width == 8)
    found = importance[list(group.units)]
    assert max(found[:4]) < min(found[4:])  # the other reader, whose weights are as large, reads the first four
