"""Distillation: it teaches, keeps the best epoch, and goes on from a checkpoint as if never stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from n2n_edge.data.dataset import Data, Split, load_data
from n2n_edge.errors import InputError
from n2n_edge.tasks.values import Values
from n2n_edge.training.compute import Engine
from n2n_edge.training.distillation import distill
from n2n_edge.training.evaluation import Evaluation, evaluate, outputs_of
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.reports import EpochReport, StepReport
from n2n_edge.training.settings import DistillSettings
from tests.training.small import small_cnn

pytestmark = pytest.mark.processor

CPU = Engine(torch.device("cpu"))
QUICK = DistillSettings(epochs=4, batch_size=32, learning_rate=0.05, kd_weight=0.5, calibration_images=128, threads=1)


def weights(model: ir.Model) -> dict[str, bytes]:
    return {name: value.const_value.tobytes() for name, value in model.graph.initializers.items() if value.const_value}


def unlabelled(data: Data) -> Data:
    return replace(
        data,
        train=Split(data.train.images, None),
        validation=Split(data.validation.images, None),
        test=Split(data.test.images, None),
    )


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("builtin:digits", input_shape=(1, 16, 16), classes=10, mean=(0.3,), std=(0.35,))


@pytest.fixture(scope="module")
def digits_teacher(digits: Data) -> ir.Model:
    """Teach a small network the digits by their labels alone (its teacher is itself, untrained, and has no say)."""
    start = small_cnn(width=16, seed=1)
    settings = DistillSettings(epochs=8, batch_size=32, learning_rate=0.1, kd_weight=0.0, threads=1)
    return distill(start, start, digits, settings).model


def test_distillation_raises_accuracy_on_real_digits(digits: Data, digits_teacher: ir.Model) -> None:
    student = small_cnn(width=8, seed=2)
    before = evaluate(student, digits.test, digits, teacher=digits_teacher)
    settings = DistillSettings(epochs=6, batch_size=32, learning_rate=0.2, threads=1)
    result = distill(student, digits_teacher, digits, settings)
    after = evaluate(result.model, digits.test, digits, teacher=digits_teacher)
    teacher = evaluate(digits_teacher, digits.test, digits)
    assert teacher.score is not None
    assert before.score is not None
    assert after.score is not None
    assert after.fidelity is not None
    assert teacher.score > 0.9
    assert before.score < 0.3
    assert after.score > 0.85
    assert after.fidelity > 0.85


def test_without_labels_the_student_follows_the_teacher(digits: Data, digits_teacher: ir.Model) -> None:
    data = unlabelled(digits)
    settings = DistillSettings(epochs=4, batch_size=32, learning_rate=0.2, threads=1)
    result = distill(small_cnn(width=8, seed=2), digits_teacher, data, settings)
    after = evaluate(result.model, data.test, data, teacher=digits_teacher)
    assert after.score is None
    assert after.fidelity is not None
    assert after.fidelity > 0.75
    assert after.metric == after.fidelity


def test_bfloat16_costs_no_accuracy(digits: Data, digits_teacher: ir.Model) -> None:
    settings = DistillSettings(epochs=6, batch_size=32, learning_rate=0.2, precision="bf16", threads=1)
    result = distill(small_cnn(width=8, seed=2), digits_teacher, digits, settings)
    accuracy = evaluate(result.model, digits.test, digits).score
    assert accuracy is not None
    assert accuracy > 0.85


def test_the_best_epoch_is_what_comes_back(striped_data: Data) -> None:
    teacher = small_cnn(width=4, classes=3)
    result = distill(small_cnn(width=4, classes=3, seed=1), teacher, striped_data, replace(QUICK, kd_weight=0.0))
    best = max(result.history, key=lambda report: (report.validation, -(report.validation_loss or 0.0)))
    assert (result.best_epoch, result.best_validation) == (best.epoch, best.validation)
    judged = evaluate(result.model, striped_data.validation, striped_data)
    assert judged.score == result.best_validation
    assert best.best


def test_a_student_that_no_epoch_improves_comes_back_as_it_was(striped_data: Data) -> None:
    teacher = small_cnn(width=4, classes=3)
    data = unlabelled(striped_data)
    settings = replace(QUICK, epochs=3, learning_rate=500.0)
    result = distill(teacher, teacher, data, settings)  # a student equal to its teacher can only lose
    assert result.best_epoch == 0
    assert weights(result.model) == weights(teacher)
    assert len(result.history) == 3  # a schedule runs to its end
    assert result.best_validation == 1.0


@pytest.mark.parametrize("labelled", [True, False])
def test_of_epochs_with_equal_validation_the_one_with_the_lowest_loss_comes_back(
    striped_data: Data, labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([9.0, 3.0, 1.0, 2.0, 1.5])  # of the student as it came, then of every epoch
    monkeypatch.setattr("n2n_edge.training.distillation.compare", lambda *given: Evaluation(0.5, 0.5, 96, next(losses)))
    data = striped_data if labelled else unlabelled(striped_data)
    result = distill(small_cnn(width=4, classes=3, seed=1), small_cnn(width=4, classes=3), data, QUICK)
    assert [report.best for report in result.history] == [True, True, False, False]
    assert (result.best_epoch, len(result.history)) == (2, 4)


def test_of_detectors_with_equal_fidelity_the_lower_error_is_kept(
    striped_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([9.0, 3.0, 2.0, 4.0, 5.0])  # all so large that the fidelity is nought
    monkeypatch.setattr(
        "n2n_edge.training.distillation.compare", lambda *given: Evaluation(None, 0.0, 96, next(errors))
    )
    teacher = small_cnn(width=4, classes=3)
    monkeypatch.setattr("n2n_edge.training.distillation.task_of", lambda model, data: Values())
    result = distill(small_cnn(width=4, classes=3, seed=1), teacher, striped_data, QUICK)
    assert result.best_epoch == 2


def test_progress_is_told(striped_data: Data) -> None:
    epochs: list[EpochReport] = []
    steps: list[StepReport] = []
    teacher = small_cnn(width=4, classes=3)
    settings = replace(QUICK, epochs=2, images_per_epoch=100)
    distill(teacher, teacher, striped_data, settings, on_epoch=epochs.append, on_step=steps.append)
    assert [(report.epoch, report.epochs) for report in epochs] == [(1, 2), (2, 2)]
    assert [(report.epoch, report.step, report.steps) for report in steps] == [
        (epoch, step, 3) for epoch in (1, 2) for step in (1, 2, 3)
    ]
    assert steps[-1].eta_s == 0
    assert steps[0].eta_s > 0


class KilledError(Exception):
    """Stands for a kill of the process."""


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_killed_run_ends_with_the_same_weights(striped_data: Data, tmp_path: Path, stop_after: int) -> None:
    teacher, student = small_cnn(width=6, classes=3), small_cnn(width=4, classes=3, seed=1)
    unbroken = distill(student, teacher, striped_data, QUICK)

    def kill(report: EpochReport | StepReport) -> None:
        # in the middle of the epoch after the last saved one
        if report.epoch > stop_after:
            raise KilledError

    path = tmp_path / "run" / "student.checkpoint"
    with pytest.raises(KilledError):
        distill(student, teacher, striped_data, QUICK, checkpoint=path, on_step=kill)
    torch.manual_seed(99)  # the state of the process has no say
    reports: list[EpochReport] = []
    resumed = distill(student, teacher, striped_data, QUICK, checkpoint=path, on_epoch=reports.append)
    assert [report.epoch for report in reports] == list(range(stop_after + 1, 5))
    assert weights(resumed.model) == weights(unbroken.model)
    assert [report.validation for report in resumed.history] == [report.validation for report in unbroken.history]

    finished = distill(student, teacher, striped_data, QUICK, checkpoint=path, on_epoch=reports.append)
    assert len(reports) == 4 - stop_after  # nothing was left to do
    assert weights(finished.model) == weights(unbroken.model)
    assert [file.name for file in path.parent.iterdir()] == ["student.checkpoint"]


class Clock:
    """Stands for the time, of which every step of a training takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def on_step(self, report: StepReport) -> None:
        self.now += 1.0 if report.epoch > 1 else 2.0


def test_epochs_that_take_longer_than_planned_are_fewer_and_come_to_the_low_rates(
    striped_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = small_cnn(width=6, classes=3), small_cnn(width=4, classes=3, seed=1)
    settings = replace(QUICK, epochs=8, images_per_epoch=128)  # of four steps each, 32 s in all
    path = tmp_path / "checkpoint"
    clock = Clock()
    monkeypatch.setattr("n2n_edge.training.distillation.time", clock)
    planned = distill(student, teacher, striped_data, settings, seconds=100.0, on_step=clock.on_step)
    unlimited = distill(student, teacher, striped_data, settings)
    assert weights(planned.model) == weights(unlimited.model)
    assert len(planned.history) == 8

    clock.now = 0.0
    reports: list[EpochReport] = []

    def kill(report: EpochReport) -> None:
        reports.append(report)
        if report.epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        distill(
            student, teacher, striped_data, settings,
            checkpoint=path, seconds=25.0, on_step=clock.on_step, on_epoch=kill,
        )  # fmt: skip
    assert [report.epochs for report in reports] == [3, 3]  # the first took eight seconds, 17 were left
    resumed = distill(student, teacher, striped_data, settings, checkpoint=path)
    clock.now = 0.0
    cut = distill(student, teacher, striped_data, settings, seconds=25.0, on_step=clock.on_step)
    assert weights(resumed.model) == weights(cut.model)
    assert [report.epoch for report in cut.history] == [1, 2, 3]
    rates = [report.learning_rate or 0.0 for report in cut.history]
    assert rates[0] == planned.history[0].learning_rate
    assert rates[2] < rates[1] < rates[0]
    assert rates[2] < 0.05 * QUICK.learning_rate


def test_a_checkpoint_of_something_else_is_refused(striped_data: Data, tmp_path: Path) -> None:
    teacher, path = small_cnn(width=4, classes=3), tmp_path / "checkpoint"
    settings = replace(QUICK, epochs=1)
    distill(teacher, teacher, striped_data, settings, checkpoint=path)
    with pytest.raises(InputError, match="belongs to another"):
        distill(small_cnn(width=4, classes=3, seed=5), teacher, striped_data, settings, checkpoint=path)
    with pytest.raises(InputError, match="belongs to another"):
        distill(teacher, teacher, striped_data, replace(settings, seed=3), checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="can't be read"):
        distill(teacher, teacher, striped_data, settings, checkpoint=path)


def test_settings_are_checked() -> None:
    for name, value in (("epochs", 0), ("learning_rate", 0.0), ("kd_weight", 1.5), ("weight_decay", -1.0)):
        with pytest.raises(InputError, match=name):
            replace(QUICK, **{name: value})  # type: ignore[arg-type]
    assert QUICK.flips(3)
    assert not QUICK.flips(1)
    assert replace(QUICK, flip=True).flips(1)


def test_a_short_judgement_depends_on_candidate_and_seed_alone(striped_data: Data) -> None:
    teacher = small_cnn(width=6, classes=3)
    short = ShortDistiller(teacher, striped_data, 96, QUICK, validation_images=64)
    one, other = small_cnn(width=4, classes=3, seed=1), small_cnn(width=5, classes=3, seed=2)
    untouched = weights(one)
    first = short.evaluate(one, seed=3)
    short.evaluate(other, seed=3)
    again = ShortDistiller(teacher, striped_data, 96, QUICK, validation_images=64).evaluate(one, seed=3)
    assert weights(first.model) == weights(again.model)
    assert (first.accuracy, first.loss) == (again.accuracy, again.loss)
    assert weights(one) == untouched
    assert weights(short.evaluate(one, seed=4).model) != weights(first.model)


def test_what_ships_of_a_candidate_is_what_is_judged(striped_data: Data) -> None:
    teacher, stranger = small_cnn(width=6, classes=3), small_cnn(width=6, classes=3, seed=9)
    short = ShortDistiller(teacher, striped_data, 96, QUICK, validation_images=64)
    plain = short.evaluate(small_cnn(width=4, classes=3, seed=1), seed=3)
    given: list[ir.Model] = []

    def shipped(model: ir.Model, data: Data) -> ir.Model:
        given.append(model)
        return stranger

    found = short.evaluate(small_cnn(width=4, classes=3, seed=1), seed=3, shipped=shipped)
    assert weights(given[0]) == weights(plain.model) == weights(found.model)
    assert found.loss == pytest.approx(short.loss_at(stranger, None))
    assert found.loss != plain.loss


@pytest.mark.parametrize("labelled", [True, False])
def test_a_constant_loses_what_the_mean_output_of_the_teacher_does(
    digits: Data, digits_teacher: ir.Model, labelled: bool
) -> None:
    data = digits if labelled else unlabelled(digits)
    count = len(data.validation)
    short = ShortDistiller(digits_teacher, data, 32, DistillSettings(threads=1), validation_images=count)
    outputs = torch.cat([batch[0] for batch in outputs_of(GraphModule(digits_teacher), data, data.validation, CPU)])
    constant = digits_teacher.clone()
    for name, value in (("head.weight", np.zeros((10, 32), np.float32)), ("head.bias", outputs.mean(dim=0).numpy())):
        constant.graph.initializers[name].const_value = ir.tensor(value, name=name)
    assert short.constant_loss == pytest.approx(short.loss_at(constant, None), rel=1e-4)
    assert short.constant_loss > 10 * short.teacher_loss


def test_a_short_judgement_tells_good_candidates_from_bad_ones(digits: Data, digits_teacher: ir.Model) -> None:
    settings = DistillSettings(batch_size=32, learning_rate=0.05, threads=1)
    short = ShortDistiller(digits_teacher, digits, 640, settings, passes=1)
    itself = short.evaluate(digits_teacher, seed=0)
    stranger = short.evaluate(small_cnn(width=2, seed=3), seed=0)
    assert itself.accuracy > stranger.accuracy + 0.2
    assert itself.loss < stranger.loss
    assert short.teacher.score is not None
    assert itself.accuracy > short.teacher.score - 0.1


def test_recalibration_repairs_statistics_before_a_judgement(digits: Data, digits_teacher: ir.Model) -> None:
    broken = digits_teacher.clone()
    mean = broken.graph.initializers["stem.mean"]
    mean.const_value = ir.tensor(np.full(16, 50.0, np.float32), name="stem.mean")
    damaged = evaluate(broken, digits.validation, digits).score
    assert damaged is not None
    assert damaged < 0.5
    settings = DistillSettings(batch_size=32, learning_rate=1e-9, precision="fp32", threads=1)
    assert ShortDistiller(digits_teacher, digits, 32, settings).evaluate(broken, seed=0).accuracy > 0.85


def test_few_images_make_smaller_batches_unless_a_large_one_was_asked_for() -> None:
    usual = DistillSettings()
    assert (usual.for_images(142).batch_size, usual.for_images(142).learning_rate) == (16, usual.learning_rate / 8)
    assert usual.for_images(5000).for_images(142) == usual.for_images(142)
    assert usual.for_images(1024) == usual
    asked = DistillSettings(batch_size=256)
    assert asked.for_images(142) == asked
