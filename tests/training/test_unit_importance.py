"""Importance of channels by data: what the layers that read a unit can make up for goes first."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from torch import nn

import n2n_edge
from n2n_edge.graph.groups import importance_order
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.reconstruct import reconstructed
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.unit_importance import data_importance
from tests.strategies import GRAPH_SETTINGS, cnn_models
from tests.training.small import random_data

pytestmark = pytest.mark.processor

SETTINGS = DistillSettings(threads=1)
COPY, OF, DEAD, FAINT = 5, 2, 3, 6


def redundant(reader: Callable[[], nn.Module]) -> Teacher:
    """A network whose unit 5 is a loud copy of unit 2, whose unit 3 is dead and whose unit 6 is faint."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, padding=1)
    with torch.no_grad():
        first.weight[COPY], first.bias[COPY] = 3 * first.weight[OF], 3 * first.bias[OF]  # type: ignore[index]
        first.weight[DEAD], first.bias[DEAD] = 4 * first.weight[DEAD], -100.0  # type: ignore[index]
        first.weight[FAINT] *= 0.6
    return Teacher.from_torch(nn.Sequential(first, nn.ReLU(), reader()).eval(), torch.zeros(1, 3, 12, 12))


READERS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: nn.Conv2d(8, 6, 3, stride=2),
    "transposed": lambda: nn.ConvTranspose2d(8, 6, 2, stride=2),
    "linear": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6)),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1)),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_others_make_up_for_goes_first(reader: str) -> None:
    teacher = redundant(READERS[reader])
    data = random_data(teacher.model)
    ranked = teacher.ranked(data_importance(teacher, data, SETTINGS))
    group = next(group for group in teacher.groups if group.width == 8)
    by_data = importance_order(group, ranked.base_graph(frozenset()).importance).tolist()
    by_weights = importance_order(group, teacher.base_graph(frozenset()).importance).tolist()
    if reader == "depthwise":  # whose filters tell the copies apart
        assert by_data[-1] == DEAD
    else:
        assert sorted(by_data[-2:]) in ([OF, DEAD], [DEAD, COPY])
    assert not {DEAD, COPY} & set(by_weights[-2:])
    narrow = teacher.full.resize(group.name, 6)
    errors = []
    for each in (ranked, teacher):
        kept = surviving(each, narrow)
        student = reconstructed(build(each, narrow), teacher.model, data, SETTINGS, kept)
        images = torch.from_numpy(data.test.images).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            own, aim = (GraphModule(model)((images - 0.5) / 0.3) for model in (student, teacher.model))
        assert isinstance(own, torch.Tensor)
        assert isinstance(aim, torch.Tensor)
        errors.append(float((own - aim).square().mean() / aim.var()))
    assert errors[0] < errors[1]
    if reader in ("convolution", "linear"):  # which are refitted
        assert errors[0] < 0.01 * errors[1]


@given(model=cnn_models())
@GRAPH_SETTINGS
def test_any_graph_gets_an_order_that_holds_without_layers(model: ir.Model) -> None:
    teacher = Teacher(model)
    data = random_data(model, images=6)
    importance = data_importance(teacher, data, SETTINGS)
    again = data_importance(teacher, data, SETTINGS)
    np.testing.assert_array_equal(importance, again)
    ranked = teacher.ranked(importance)
    removable = [layer.name for layer in teacher.layers if layer.removable]
    for removed in (frozenset[str](), teacher.repaired(frozenset(removable[::2]))):
        base = ranked.base_graph(removed)
        assert np.isfinite(base.importance).all()
        architecture = ranked.full.remove(*removed)
        for group in base.groups:
            if group.shrinkable:
                architecture = architecture.resize(group.name, max(1, group.width // 2))
        assert n2n_edge.costs(build(ranked, architecture)) == n2n_edge.costs(build(teacher, architecture))


def test_channels_without_a_plain_reader_keep_their_weights_order() -> None:
    torch.manual_seed(0)
    grouped = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1))
    teacher = Teacher.from_torch(grouped.eval(), torch.zeros(1, 3, 12, 12))
    importance = data_importance(teacher, random_data(teacher.model), SETTINGS)
    by_group = {group.name: np.isnan(importance[list(group.units)]) for group in teacher.groups if group.shrinkable}
    assert all(missing.all() or not missing.any() for missing in by_group.values())
    assert any(missing.all() for missing in by_group.values())
    assert np.isfinite(teacher.ranked(importance).base_graph(frozenset()).importance).all()
