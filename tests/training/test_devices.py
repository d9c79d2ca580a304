"""Every training path, on every device there is: nothing is calculated on another than the one that was chosen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from n2n_edge.data.dataset import Data
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.runs.schedule import timed_pace
from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.tasks.values import Values
from n2n_edge.training import compute
from n2n_edge.training.checkpoint import last_checkpoint
from n2n_edge.training.compute import Engine
from n2n_edge.training.distillation import distill, training_engine
from n2n_edge.training.evaluation import evaluate, scale_warnings
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.optimiser import Lesson, Optimiser
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.reconstruct import reconstructed
from n2n_edge.training.reports import EpochReport, StepReport
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.step_memory import step_memory
from tests.training import small
from tests.training.second_device import DEVICE, MixedDevicesError, second_device
from tests.training.small import small_cnn
from tests.training.test_ops import CASES, Case
from tests.training.test_ops import build as build_node

SETTINGS = DistillSettings(
    epochs=4, batch_size=32, teacher_images=200, calibration_images=64, device="cpu", precision="fp32", threads=1
)
DEVICES = [
    "second",
    pytest.param(
        "cuda",
        marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]


@contextmanager
def on(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DistillSettings]:
    """Give settings of a device that is there, or stands for one."""
    if device != "second":
        yield replace(SETTINGS, device=device)
        return
    with monkeypatch.context() as patch, second_device():
        patch.setattr(compute, "chosen_device", lambda wanted: DEVICE)
        patch.setattr("lightning_fabric.accelerators.cpu.CPUAccelerator.setup_device", lambda self, device: None)
        yield SETTINGS


def cut(model: ir.Model) -> tuple[Teacher, ir.Model, dict[str, np.ndarray]]:
    teacher = Teacher(model)
    architecture = teacher.full.resize(teacher.groups[0].name, 4)
    return teacher, build(teacher, architecture), dict(surviving(teacher, architecture))


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value is not None}


def final_distillation(settings: DistillSettings, data: Data, folder: Path) -> dict[str, np.ndarray]:
    teacher, student, kept = cut(small_cnn(width=8, classes=3))
    result = distill(student, teacher.model, data, settings, kept=kept, checkpoint=folder / "checkpoint")
    again = distill(student, teacher.model, data, settings, kept=kept, checkpoint=folder / "checkpoint")
    assert weights(again.model).keys() == weights(result.model).keys()
    return weights(result.model)


def in_parts(settings: DistillSettings, data: Data, folder: Path) -> dict[str, np.ndarray]:
    return final_distillation(replace(settings, images_at_once=8, epochs=2), data, folder)


def of_values(settings: DistillSettings, data: Data, folder: Path) -> dict[str, np.ndarray]:
    teacher, student, kept = cut(small_cnn(width=8, classes=3))
    values = replace(data, task=Values())
    engine = Engine.of(settings)
    scale_warnings(teacher.model, values, engine)
    evaluate(student, values.validation, values, teacher=teacher.model, engine=engine)
    return weights(distill(student, teacher.model, values, replace(settings, epochs=2), kept=kept).model)


def proxy_evaluation(settings: DistillSettings, data: Data, folder: Path) -> dict[str, np.ndarray]:
    teacher, student, kept = cut(small_cnn(width=8, classes=3))
    short = ShortDistiller(teacher.model, data, 96, settings, validation_images=64)
    refit = ShortDistiller.refitting(teacher.model, data, settings)
    assert refit.evaluate(student, kept, seed=0).loss >= 0
    return weights(short.evaluate(student, kept, seed=0).model)


def refitting(settings: DistillSettings, data: Data, folder: Path) -> dict[str, np.ndarray]:
    teacher, student, kept = cut(small_cnn(width=8, classes=3))
    return weights(reconstructed(student, teacher.model, data, settings, kept))


def schedule(settings: DistillSettings, data: Data, folder: Path) -> dict[str, np.ndarray]:
    teacher, _, _ = cut(small_cnn(width=8, classes=3))
    engine = training_engine(settings, teacher.model, data)
    assert step_memory(teacher.model, teacher.model, data, engine).image_bytes > 0
    assert timed_pace(teacher, data, settings, engine, 32).train_s > 0
    found = evaluate(teacher.model, data.test, data, engine=engine)
    return {"accuracy": np.array(found.score)}


PATHS: list[Callable[[DistillSettings, Data, Path], dict[str, np.ndarray]]] = [
    final_distillation, in_parts, of_values, proxy_evaluation, refitting, schedule,
]  # fmt: skip
LONG = (final_distillation, of_values, proxy_evaluation)
"""The first is what `in_parts` is, in one part."""


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.__name__, marks=pytest.mark.slow if path in LONG else ()) for path in PATHS],
)
def test_a_path_gives_on_every_device_what_it_gives_on_the_processor(
    path: Callable[[DistillSettings, Data, Path], dict[str, np.ndarray]],
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = small.striped_data()
    expected = path(SETTINGS, data, tmp_path / "here")
    with on(device, monkeypatch) as settings:
        found = path(settings, data, tmp_path / "there")
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=5e-3, atol=1e-3, err_msg=name)


def test_an_operator_that_meets_two_devices_is_noticed() -> None:
    with second_device() as device:
        there = torch.ones(2, device=device)
        assert (there + there).device == device
        assert (there.cpu() + torch.ones(2)).device.type == "cpu"
        with pytest.raises(MixedDevicesError):
            there + torch.ones(2)
        with pytest.raises(MixedDevicesError):
            there[torch.tensor([0])]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnsuitableEnvironmentError, match=r"train_device cuda:1: .*CUDA"):
        Engine.of(replace(SETTINGS, device="cuda:1"))
    assert Engine.of(replace(SETTINGS, device="auto")).device.type in ("cpu", "mps")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "gpu"}, "train_device gpu: no such device"),
        ({"device": "cuda:x"}, "train_device cuda:x: no such device"),
        ({"precision": "int8"}, "train_precision int8: no such format"),
        ({"processes": 0}, "gpus 0: must be at least 1"),
        ({"images_at_once": 0}, "images_at_once is 0"),
    ],
)
def test_settings_of_no_device_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DistillSettings(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_operator_calculates_where_its_inputs_are(case: Case) -> None:
    model, feed = build_node(case)
    module = GraphModule(ir.from_proto(model))
    with torch.no_grad():
        expected = as_tuple(module(*map(torch.from_numpy, feed.values())))
    with second_device() as device, torch.no_grad():
        found = as_tuple(module.to(device)(*(torch.from_numpy(array).to(device) for array in feed.values())))
        assert all(output.device == device for output in found)
        here = [output.cpu() for output in found]
    for wanted, got in zip(expected, here, strict=True):
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_float16_scales_its_losses_and_goes_on_with_the_scale(tmp_path: Path) -> None:
    data = small.striped_data()
    teacher, student, kept = cut(small_cnn(width=8, classes=3))
    settings = replace(SETTINGS, precision="fp16", learning_rate=0.02)

    def kill(report: EpochReport | StepReport) -> None:
        if report.epoch > 2:
            raise InterruptedError

    path = tmp_path / "checkpoint"
    unbroken = distill(student, teacher.model, data, settings, kept=kept)
    with pytest.raises(InterruptedError):
        distill(student, teacher.model, data, settings, kept=kept, checkpoint=path, on_step=kill)
    assert last_checkpoint(path).optimiser["precision"]["scale"] > 1
    again = distill(student, teacher.model, data, settings, kept=kept, checkpoint=path)
    for name, array in weights(unbroken.model).items():
        assert array.tobytes() == weights(again.model)[name].tobytes(), name
    full = distill(student, teacher.model, data, replace(settings, precision="fp32"), kept=kept)
    losses = [[report.train_loss for report in result.history] for result in (unbroken, full)]
    np.testing.assert_allclose(*losses, rtol=0.1)
    assert weights(full.model)["head.weight"].tobytes() != weights(unbroken.model)["head.weight"].tobytes()


def test_a_loss_that_float16_cannot_hold_changes_no_weight_and_shrinks_the_scale() -> None:
    engine = Engine(torch.device("cpu"), "fp16")
    module = engine.module(small_cnn(width=4, classes=3))
    optimiser = Optimiser(module, SETTINGS, steps=2, task=Classification(), engine=engine)
    module.train()
    before = {name: tensor.clone() for name, tensor in module.learned().items() if name.endswith("weight")}
    images, said = torch.rand(8, 1, 16, 16), torch.full((8, 3), float("inf"))
    scale = optimiser.state()["precision"]["scale"]
    optimiser.step(0, [Lesson(images, None, (said,))], 8)
    assert all(torch.equal(module.learned()[name], tensor) for name, tensor in before.items())
    assert optimiser.state()["precision"]["scale"] < scale
    optimiser.step(1, [Lesson(images, None, (torch.rand(8, 3),))], 8)
    assert not all(torch.equal(module.learned()[name], tensor) for name, tensor in before.items())
