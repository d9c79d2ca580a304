"""The schedule of a run: what it is going to do, said before it starts and kept with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import n2n_edge
from n2n_edge.runs import schedule as module
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.final import FinalPlan, final_plan, plan_in_words
from n2n_edge.runs.schedule import Pace, Schedule, make_schedule, retimed, with_tail, with_tests_within
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.search.store import Fact, Journal
from tests.runs.small import images_npz, teacher_file
from tests.runs.stopping import begun

SLOW = Pace(load_s=0.001, evaluate_s=0.02, teach_s=0.02, train_s=0.06)
"""A network of 80 million multiply-accumulates at 224 pixels, on one core."""


class Messages(RunCallback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def given(tmp_path: Path) -> dict[str, object]:
    return {
        "teacher": str(teacher_file(tmp_path / "teacher.onnx")),
        "data": str(images_npz(tmp_path / "images.npz")),
        "max_params": 3000.0,
        "effort": "quick",
        "candidates": 2,
        "train_device": "cpu",
        "train_precision": "fp32",
    }


def test_a_run_says_with_how_many_threads_it_times_candidates(given: dict[str, object], tmp_path: Path) -> None:
    latency = {"max_params": None, "max_latency_ms": 1000.0}
    threads = n2n_edge.load_profile("cpu").default_threads
    timed = f"; latency is timed here: cpu with {threads} thread{'s' if threads > 1 else ''}"
    for number, (own, said) in enumerate(
        [
            ({**latency, "device": "cpu"}, timed),
            ({**latency, "device": ("raspberry-pi-4", "cpu")}, timed),
            ({**latency, "device": "raspberry-pi-4"}, ""),
            ({"device": "cpu"}, ""),  # its latency counts for nothing
        ]
    ):
        messages = Messages()
        begun(tmp_path / str(number), callbacks=[messages], **{**given, **own})
        (searching,) = [text for text in messages.texts if text.startswith("searching with policy ")]
        assert searching.endswith(said)
        assert ("timed" in searching) == bool(said)


def test_a_run_tells_its_plan_and_goes_on_with_it(given: dict[str, object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out, **given, batch=16)
    with Journal.read(out / "journal.sqlite") as journal:
        kept = Schedule.of_journal(journal, n2n_edge.Run.open(out).settings)
    assert kept is not None
    assert (kept.device, kept.images_at_once, kept.short_images) == ("cpu", 16, 1024)
    assert (kept.validation_images, kept.rung_validation, kept.feature_images) == (8, 8, 64)  # all that there are
    messages = Messages()
    run = n2n_edge.compress(out=tmp_path / "other", callbacks=[messages], **{**given, "epochs": 1})  # type: ignore[arg-type]
    (plan,) = [text for text in messages.texts if text.startswith("plan: ")]
    assert plan.startswith("plan: up to 2 candidates of 1,024 images, then 1 epochs of ")
    assert "images/s on cpu in fp32" in plan
    assert "GB of memory" in plan
    assert "GB of disk" in plan
    assert run.met


@pytest.mark.parametrize(("minutes", "short_images"), [(600.0, 1024), (5.0, 64), (1.0, 32), (20.0, 256)])
def test_minutes_hold_for_the_whole_run(
    minutes: float, short_images: int, given: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepared_run(given, tmp_path)
    monkeypatch.setattr(module, "timed_pace", lambda *_: SLOW)
    of_share = module._of_share
    monkeypatch.setattr(module, "_of_share", lambda share, plan, data: of_share(share, plan, LARGE_DATA))
    settings = CompressSettings(**{**given, "minutes": minutes, "candidates": 20})  # type: ignore[arg-type]
    schedule, _ = make_schedule(settings, prepared, 10.0)
    assert schedule.short_images == short_images
    searched = module._setup_s(schedule, SLOW) + 12 * module._candidate_s(schedule, prepared, SLOW)
    assert searched < 0.4 * minutes * 60 or short_images == 32
    assert schedule.tail_s < 0.31 * minutes * 60
    # a final distillation of many images is cut to what is left
    many = replace(prepared, data=replace(prepared.data, train=LONG))  # type: ignore[arg-type]
    with Journal.create(tmp_path / "journal.sqlite", {}) as journal:
        architecture = prepared.teacher.full
        journal.store(Fact.SCORE, architecture.key, {"training_seconds": 0.05 * short_images})
        journal.store(Fact.FINAL, "teaching", {"seconds": 0.02, "bytes": 400.0})
        left = 0.5 * minutes * 60
        plan = final_plan(settings, many, architecture, journal, schedule, left)
    taken = plan.epochs * (
        (plan.images or len(LONG)) * 0.07 + ((plan.validation or 0) + plan.calibration) * schedule.evaluate_s
    )
    assert taken + schedule.tail_s <= left or plan.images == 16


def test_a_busier_machine_tests_fewer_images(
    given: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepared_run(given, tmp_path)
    many = replace(prepared.data.test, images=np.repeat(prepared.data.test.images, 40, axis=0), labels=None)  # type: ignore[call-overload]
    prepared = replace(prepared, data=replace(prepared.data, test=many))
    planned = Schedule("cpu", 16, 64, tail_s=130.0, evaluate_s=0.01, condition_images=1000)
    monkeypatch.setattr(module, "_evaluation_s", lambda *_: 0.02)
    busier = retimed(planned, prepared)
    assert (busier.evaluate_s, busier.tail_s) == (0.02, 260.0)
    same, schedule = with_tests_within(prepared, busier, 300.0)
    assert same is prepared
    assert schedule is busier
    fewer, schedule = with_tests_within(prepared, busier, 145.0)
    assert len(fewer.data.test) == max(64, len(many) // 2)
    assert schedule.condition_images == 500
    least, schedule = with_tests_within(prepared, busier, -10.0)
    assert (len(least.data.test), schedule.condition_images) == (64, 16)
    monkeypatch.setattr(module, "_evaluation_s", lambda *_: 0.001)
    assert retimed(planned, prepared) == planned  # what was planned is never made more


def test_a_candidate_of_few_steps_is_planned_with_both_its_validations(
    given: dict[str, object], tmp_path: Path
) -> None:
    prepared = prepared_run(given, tmp_path)
    plan = Schedule("cpu", 16, 64, validation_images=500, feature_images=0, calibration_images=0)
    only_evaluating = Pace(load_s=0.0, evaluate_s=1.0, teach_s=0.0, train_s=0.0)
    assert module._candidate_s(plan, prepared, only_evaluating) == 1000.0
    many_steps = replace(plan, short_images=1024)
    assert module._candidate_s(many_steps, prepared, only_evaluating) == 500.0


def test_a_shipped_candidate_is_tested_in_its_share_of_minutes(given: dict[str, object], tmp_path: Path) -> None:
    prepared = prepared_run(given, tmp_path)
    settings = CompressSettings(**{**given, "corruptions": True})  # type: ignore[arg-type]
    of_run_without_limit = Schedule("cpu", 16, 64, evaluate_s=0.01)
    within = with_tail(of_run_without_limit, settings, prepared, 600.0)
    assert within.condition_images == 180  # 50 conditions of 0.01 s an image in 90 s
    assert within.tail_s > 100.0
    assert with_tail(Schedule("cpu", 16, 64), settings, prepared, 600.0) == Schedule("cpu", 16, 64)


class Long:
    """Stands for the images of a large data set."""

    def __len__(self) -> int:
        return 90_000


LONG = Long()


class LargeData:
    """Stands for a large data set, as far as its images are counted."""

    train = validation = LONG


LARGE_DATA = LargeData()


def prepared_run(given: dict[str, object], tmp_path: Path):  # type: ignore[no-untyped-def]
    from n2n_edge.devices.registry import load_profile
    from n2n_edge.runs.folder import RunFolder
    from n2n_edge.runs.prepare import prepare

    settings = CompressSettings(**given)  # type: ignore[arg-type]
    return prepare(settings, (load_profile("cpu"),), RunFolder.new(tmp_path / "prepared"), RunCallback())


def test_the_plan_of_a_final_distillation_in_words() -> None:
    settings = CompressSettings(minutes=5.0)
    assert plan_in_words(FinalPlan(3, 500, 100), settings, 90_000) == (
        "3 epochs (as many as --minutes leaves time for; the effort has 8) of 500 of 90000 images, validated on 100"
    )
    assert plan_in_words(FinalPlan(2), CompressSettings(epochs=2), 80) == "2 epochs of 80 images"
