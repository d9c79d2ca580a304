"""Layers refitted to the teacher's: nothing changes where nothing was cut, and most comes back where half was."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given

from n2n_edge._example import teacher_path
from n2n_edge.data.dataset import Data, load_data
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.reconstruct import reconstructed
from n2n_edge.training.settings import DistillSettings
from tests.strategies import GRAPH_SETTINGS, cnn_models
from tests.training.small import random_data

pytestmark = pytest.mark.processor

SETTINGS = DistillSettings()


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(teacher_path())


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("builtin:digits", input_shape=(1, 16, 16), classes=10, mean=(0.3,), std=(0.35,))


def halved(teacher: Teacher, removed: frozenset[str] = frozenset()) -> Architecture:
    architecture = teacher.full.remove(*removed)
    for group in teacher.base_graph(removed).groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, max(1, group.width // 2))
    return architecture


def outputs(model: ir.Model, data: Data) -> torch.Tensor:
    pixels = torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        given = GraphModule(model)((pixels - 0.5) / 0.3)
    return (given if isinstance(given, torch.Tensor) else given[0]).float()


@pytest.mark.parametrize("removing", [False, True])
def test_most_of_the_accuracy_comes_back_without_training(teacher: Teacher, data: Data, removing: bool) -> None:
    removable = [layer.name for layer in teacher.layers if layer.removable]
    architecture = halved(teacher, teacher.repaired(frozenset(removable[:2])) if removing else frozenset())
    distiller = ShortDistiller(teacher.model, data, 64, SETTINGS, passes=0)
    plain = distiller.evaluate(build(teacher, architecture), seed=0)
    refitted = distiller.evaluate(build(teacher, architecture), surviving(teacher, architecture), seed=0)
    assert refitted.accuracy > plain.accuracy + 0.2
    assert refitted.accuracy > 0.8
    assert refitted.loss < plain.loss / 2


def test_only_what_is_named_is_judged(teacher: Teacher, data: Data) -> None:
    """The same call gives the same weights, and the given model stays as it is."""
    architecture = halved(teacher)
    student = build(teacher, architecture)
    before = {name: value.const_value.numpy().copy() for name, value in student.graph.initializers.items()}  # type: ignore[union-attr]
    kept = surviving(teacher, architecture)
    first = reconstructed(student, teacher.model, data, SETTINGS, kept)
    again = reconstructed(student, teacher.model, data, replace(SETTINGS), kept)
    changed = 0
    for name, old in before.items():
        one, other = first.graph.initializers[name].const_value, again.graph.initializers[name].const_value
        assert one is not None
        assert other is not None
        assert (one.numpy() == other.numpy()).all()
        assert (student.graph.initializers[name].const_value.numpy() == old).all()  # type: ignore[union-attr]
        changed += int((one.numpy() != old).any())
    assert changed > 0


@given(model=cnn_models())
@GRAPH_SETTINGS
def test_the_whole_teacher_stays_what_it_is(model: ir.Model) -> None:
    teacher = Teacher(model)
    data = random_data(model)
    full = build(teacher, teacher.full)
    refitted = reconstructed(full, teacher.model, data, SETTINGS, surviving(teacher, teacher.full))
    expected = outputs(full, data)
    assert (outputs(refitted, data) - expected).abs().max() <= 1e-3 * expected.abs().max() + 1e-6


@given(model=cnn_models())
@GRAPH_SETTINGS
def test_any_graph_can_be_refitted(model: ir.Model) -> None:
    teacher = Teacher(model)
    removable = [layer.name for layer in teacher.layers if layer.removable]
    architecture = halved(teacher, teacher.repaired(frozenset(removable[::3])))
    data = random_data(model)
    student = build(teacher, architecture)
    refitted = reconstructed(student, teacher.model, data, SETTINGS, surviving(teacher, architecture))
    assert torch.isfinite(outputs(refitted, data)).all()


def test_a_few_steps_that_do_harm_leave_the_refitted_candidate(teacher: Teacher, data: Data) -> None:
    architecture = halved(teacher)
    student, kept = build(teacher, architecture), surviving(teacher, architecture)
    refitted = ShortDistiller(teacher.model, data, 64, SETTINGS, passes=0).evaluate(student, kept, seed=0)
    wild = replace(SETTINGS, batch_size=16, learning_rate=20.0)
    harmed = ShortDistiller(teacher.model, data, 64, wild).evaluate(student, kept, seed=0)
    assert (harmed.accuracy, harmed.loss) == (refitted.accuracy, refitted.loss)
    for name, value in refitted.model.graph.initializers.items():
        assert value.const_value is not None
        np.testing.assert_array_equal(
            harmed.model.graph.initializers[name].const_value.numpy(),  # type: ignore[union-attr]
            value.const_value.numpy(),
        )
    taught = ShortDistiller(teacher.model, data, 64, replace(SETTINGS, batch_size=16)).evaluate(student, kept, seed=0)
    assert taught.accuracy >= refitted.accuracy
