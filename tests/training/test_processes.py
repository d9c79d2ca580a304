"""Processes that train together end where one does, and go on where they were killed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.data.dataset import Data
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.training.distillation import distill
from n2n_edge.training.reports import EpochReport, StepReport
from n2n_edge.training.settings import DistillSettings
from tests.training import small
from tests.training.small import small_cnn

SETTINGS = DistillSettings(
    epochs=3, batch_size=32, calibration_images=64, precision="fp32", device="cpu", threads=1, learning_rate=0.02
)


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value is not None}


def trained(data: Data, settings: DistillSettings, **more: object) -> dict[str, np.ndarray]:
    teacher = Teacher(small_cnn(width=8, classes=3))
    architecture = teacher.full.resize(teacher.groups[0].name, 4)
    student, kept = build(teacher, architecture), surviving(teacher, architecture)
    return weights(distill(student, teacher.model, data, settings, kept=kept, **more).model)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def together() -> dict[str, np.ndarray]:
    return trained(small.striped_data(), replace(SETTINGS, processes=2))


def test_two_processes_end_with_the_weights_of_one(together: dict[str, np.ndarray]) -> None:
    alone = trained(small.striped_data(), SETTINGS)
    for name, expected in alone.items():
        np.testing.assert_allclose(together[name], expected, rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_processes_without_time_end_together(tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    trained(small.striped_data(), replace(SETTINGS, processes=2), seconds=0.001, on_epoch=reports.append)
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 1)]


@pytest.mark.slow
def test_killed_processes_go_on_to_the_same_bytes(together: dict[str, np.ndarray], tmp_path: Path) -> None:
    settings = replace(SETTINGS, processes=2)

    def kill(report: EpochReport | StepReport) -> None:
        if report.epoch > 1:
            raise InterruptedError

    path = tmp_path / "checkpoint"
    with pytest.raises(InterruptedError):
        trained(small.striped_data(), settings, checkpoint=path, on_step=kill)
    again = trained(small.striped_data(), settings, checkpoint=path)
    assert {name: array.tobytes() for name, array in again.items()} == {
        name: array.tobytes() for name, array in together.items()
    }
