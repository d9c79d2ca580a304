"""Quantization-aware distillation: it wins back what rounding loses, and what ships computes what was trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from n2n_edge.data.dataset import Data, Split
from n2n_edge.errors import InputError
from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.load import load_model
from n2n_edge.quantize.qdq import folded
from n2n_edge.tasks.choice import task_of
from n2n_edge.training.augmentation import normalise
from n2n_edge.training.compute import Engine
from n2n_edge.training.distillation import distill
from n2n_edge.training.evaluation import compare, outputs_of
from n2n_edge.training.quantization_aware import quantize_aware, quantize_aware_settings, steady_rate
from n2n_edge.training.reports import EpochReport
from n2n_edge.training.settings import DistillSettings
from tests.quantized import training_form
from tests.training import small
from tests.training.small import small_cnn

pytestmark = pytest.mark.processor

QUICK = DistillSettings(epochs=3, batch_size=32, learning_rate=0.002, kd_weight=1.0, hint_weight=0.0, threads=1)


@pytest.fixture(scope="module")
def data() -> Data:
    return small.striped_data()


@pytest.fixture(scope="module")
def teacher(data: Data) -> ir.Model:
    start = small_cnn(seed=1, classes=3)
    return distill(start, start, data, replace(QUICK, learning_rate=0.1, kd_weight=0.0)).model


def weights(model: ir.Model) -> dict[str, bytes]:
    return {name: value.const_value.tobytes() for name, value in model.graph.initializers.items() if value.const_value}


@pytest.fixture(scope="module")
def student(teacher: ir.Model, data: Data, tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    path = tmp_path_factory.mktemp("student") / "float.onnx"
    ir.save(fold_batchnorm(teacher), path)
    images = normalise(torch.from_numpy(data.train.images[:32]), data.preprocessing).numpy()
    return load_model(training_form(path, images=images))


def scaled(model: ir.Model, factor: float) -> ir.Model:
    """Return a copy of a training form whose scales are multiplied: coarser grids, or such that cut off more."""
    clone = model.clone()
    for name, value in clone.graph.initializers.items():
        if name.endswith("_scale") and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=name)
    return clone


def loss(model: ir.Model, teacher: ir.Model, data: Data) -> float:
    """Return the distillation loss on the test images, without labels."""
    engine = Engine(torch.device("cpu"))
    own, theirs = (list(outputs_of(engine.module(each), data, data.test, engine)) for each in (model, teacher))
    found = compare(own, theirs, None, task_of(teacher, data), replace(QUICK, kd_weight=1.0))
    assert found.error is not None
    return found.error


def test_it_wins_back_what_a_bad_calibration_loses(student: ir.Model, teacher: ir.Model, data: Data) -> None:
    coarse = scaled(student, 0.5)

    result = quantize_aware(coarse, teacher, data, replace(QUICK, epochs=4))

    assert loss(result.model, teacher, data) < 0.1 * loss(coarse, teacher, data)
    changed = {name for name, held in weights(coarse).items() if held != weights(result.model)[name]}
    assert {"stem.weight", "head.bias", "images_scale", "stem.weight_scale"} <= changed
    assert not any(name.endswith("zero_point") for name in changed)


def test_a_rate_that_undoes_the_calibrated_student_leaves_it_as_it_came(
    student: ir.Model, teacher: ir.Model, data: Data
) -> None:
    unlabelled = replace(data, **{name: Split(getattr(data, name).images, None) for name in ("train", "validation")})

    result = quantize_aware(student, teacher, unlabelled, replace(QUICK, epochs=1), learning_rate=3.0)

    assert result.best_epoch == 0
    assert weights(result.model) == weights(student)


def test_it_goes_on_from_a_checkpoint_bit_for_bit(
    student: ir.Model, teacher: ir.Model, data: Data, tmp_path: Path
) -> None:
    whole = quantize_aware(student, teacher, data, QUICK, checkpoint=tmp_path / "whole.pt", learning_rate=0.01)

    class StoppedError(Exception):
        pass

    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            raise StoppedError

    broken = tmp_path / "broken.pt"
    with pytest.raises(StoppedError):
        quantize_aware(student, teacher, data, QUICK, checkpoint=broken, learning_rate=0.01, on_epoch=stop)
    resumed = quantize_aware(student, teacher, data, QUICK, checkpoint=broken, learning_rate=0.01)

    assert weights(resumed.model) == weights(whole.model)
    assert [report.validation_loss for report in resumed.history] == [
        report.validation_loss for report in whole.history
    ]


def test_a_run_that_goes_on_keeps_its_rate(student: ir.Model, teacher: ir.Model, data: Data, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    settings = replace(QUICK, epochs=1)
    whole = quantize_aware(student, teacher, data, settings, checkpoint=path)

    # with as little time another rate would be taken
    again = quantize_aware(student, teacher, data, settings, checkpoint=path, seconds=1e-3)

    assert again.learning_rate == whole.learning_rate != settings.learning_rate
    assert weights(again.model) == weights(whole.model)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_scales_stay_positive_and_finite(precision: str, student: ir.Model, teacher: ir.Model, data: Data) -> None:
    settings = replace(QUICK, epochs=1, precision=precision)  # type: ignore[arg-type]

    result = quantize_aware(scaled(student, 0.1), teacher, data, settings, learning_rate=1.0)

    for name, value in result.model.graph.initializers.items():
        if name.endswith("_scale") and value.const_value is not None:
            assert np.all(value.const_value.numpy() > 0), name


def test_weights_of_7_bits_keep_to_them(student: ir.Model, teacher: ir.Model, data: Data) -> None:
    narrow = student.clone()
    for name, value in narrow.graph.initializers.items():
        if name.endswith("weight_scale") and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(127 / 64), name=name)

    result = quantize_aware(narrow, teacher, data, replace(QUICK, epochs=1), learning_rate=0.02)

    shipped = folded(result.model).graph.initializers
    weights_of = [held.numpy() for name, value in shipped.items() if (held := value.const_value) is not None
                  and name.endswith("weight_quantized")]  # fmt: skip
    assert result.best_epoch == 1
    assert len(weights_of) == 4
    assert all(np.abs(integers.astype(int)).max() <= 64 for integers in weights_of)


def test_feature_hints_reach_through_pairs(student: ir.Model, teacher: ir.Model, data: Data) -> None:
    settings = replace(QUICK, epochs=1, hint_weight=1.0)

    with_hints, without = (
        quantize_aware(student, teacher, data, settings, kept=kept, learning_rate=0.001) for kept in ({}, None)
    )

    assert with_hints.history[0].train_loss > 1.05 * without.history[0].train_loss


def test_what_is_not_in_training_form_is_refused(
    student: ir.Model, teacher: ir.Model, data: Data, tmp_path: Path
) -> None:
    source = tmp_path / "float.onnx"
    ir.save(fold_batchnorm(teacher), source)
    shipped = load_model(training_form(source, shipped=True))
    refused: list[tuple[ir.Model, str]] = [
        (fold_batchnorm(teacher), "isn't quantized in training form"),
        (shipped, "keeps its weights as integers"),
    ]
    for model, reason in refused:
        with pytest.raises(InputError, match=reason):
            quantize_aware(model, teacher, data, QUICK)


def test_a_rate_that_does_harm_is_lowered(student: ir.Model, teacher: ir.Model, data: Data) -> None:
    assert steady_rate(student, teacher, data, replace(QUICK, learning_rate=2.0)) < 0.2


def test_a_rate_that_changes_nothing_is_raised(student: ir.Model, teacher: ir.Model, data: Data) -> None:
    coarse = scaled(student, 0.5)

    assert steady_rate(coarse, teacher, data, replace(QUICK, learning_rate=1e-4)) > 1e-4


def test_settings_are_short_and_low() -> None:
    usual = DistillSettings(epochs=20)

    settings = quantize_aware_settings(usual)

    assert 1 <= settings.epochs < usual.epochs
    assert settings.learning_rate < usual.learning_rate / 10
    assert quantize_aware_settings(DistillSettings(epochs=1)).epochs == 1
