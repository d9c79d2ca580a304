"""Schedule of a run: how much of everything it does, how long that takes here, and how much memory and disk."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice

import numpy as np
import torch

from n2n_edge.data.dataset import Data
from n2n_edge.data.streaming import Pictures
from n2n_edge.graph.teacher import Teacher
from n2n_edge.runs.prepare import Prepared
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.search.store import Journal
from n2n_edge.tasks.choice import metric_name, task_of
from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.training.batches import evaluation_batches
from n2n_edge.training.compute import Engine, generator
from n2n_edge.training.distillation import training_engine
from n2n_edge.training.evaluation import batch_for
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.optimiser import Lesson, Optimiser
from n2n_edge.training.proxy_evaluation import follows_few_steps
from n2n_edge.training.settings import DistillSettings, Precision
from n2n_edge.training.step_memory import images_at_once, step_memory

__all__ = [
    "SEARCH_SHARE",
    "Pace",
    "Schedule",
    "make_schedule",
    "retimed",
    "timed_pace",
    "with_tail",
    "with_tests_within",
]

SEARCH_SHARE = 0.4
"""Share of `--minutes` that the two stages may take; the rest is for the finalists and the final distillation."""

_CANDIDATES_AT_LEAST = 12
"""Candidates that the search's time should be enough for; their images are halved until it is."""

_LEAST_SHORT = 32
_FEATURE_IMAGES, _CALIBRATION_IMAGES = 512, 512
_VALIDATION_IMAGES, _RUNG_VALIDATION, _CONDITION_IMAGES = 1000, 5000, 1000

_STUDENT_SHARE = 0.7
"""What a step of a usual student takes, in units of a step of the teacher's own architecture."""

_REFIT_PASSES = 4
"""Passes over its images that refitting takes as long as."""

_TAIL_SHARE, _TAIL_S, _LEAST_TEST = 0.15, 30.0, 64
"""Share of `--minutes` that tests of what ships may take, the seconds of it that no image takes, and least images."""

_CONDITIONS, _LEAST_CONDITION = 50, 16
"""Evaluations on corrupted images, five corruptions at five severities, of teacher and student; least images."""

_PROFILE_SHARE, _PROFILE_S = 0.15, 300.0
"""Of a search without limit the profile may take this share, or so many seconds: short ones are never cut."""

_DRAWN_BYTES = 500_000_000
"""Images of the distillations of candidates and finalists, which are drawn once and held as bytes."""

_TIMED_STEPS, _LONG_S = 2, 0.5
_TRIES, _MOST_SLOWER = 3, 2.0
_STREAM = 2**35
"""Tells this use of the seed from others."""


@dataclass(frozen=True)
class Pace:
    """Seconds that an image takes here: to be loaded, evaluated and taught by the teacher, and to train on.

    Trained is the teacher's own architecture; `evaluate_s` is in float32, `teach_s` in the format of training.
    """

    load_s: float
    evaluate_s: float
    teach_s: float
    train_s: float


@dataclass(frozen=True)
class Schedule:
    """What a run does, decided once and kept in its journal, so that it goes on as it began.

    Images of a candidate's distillation, validation, refitting and BatchNorm statistics, of a finalist's validation,
    and of the tests of what ships (None: all); how many go through the network at once, and where. `tail_s` is left for
    the end of the run; without `--minutes` the sensitivity profile takes `profile_s` at most.
    """

    device: str
    images_at_once: int
    short_images: int
    validation_images: int = _VALIDATION_IMAGES
    feature_images: int = _FEATURE_IMAGES
    calibration_images: int = _CALIBRATION_IMAGES
    rung_validation: int = _RUNG_VALIDATION
    test_images: int | None = None
    condition_images: int = _CONDITION_IMAGES
    tail_s: float = _TAIL_S
    evaluate_s: float = 0.0
    profile_s: float | None = None
    precision: Precision = "auto"

    @classmethod
    def of_journal(cls, journal: Journal, settings: CompressSettings) -> "Schedule | None":
        """Return what a run was begun with; None where nothing has begun (journals of older versions: the usual)."""
        kept = journal.meta().get("schedule")
        if kept is None:
            begun = next(iter(journal.trials()), None) is not None
            return cls("auto", DistillSettings.batch_size, settings.amount.short_images) if begun else None
        names = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in kept.items() if name in names})

    def drawn(self, times: int, data: Data) -> int:
        """Return the images of an evaluation on `times` those of a candidate, of large ones no more than fit."""
        return min(times * self.short_images, max(self.short_images, _drawable(data)))

    def keep(self, journal: Journal) -> None:
        """Keep it in a run's journal."""
        journal.set_meta("schedule", asdict(self))

    def applied(self, prepared: Prepared) -> Prepared:
        """Return what was prepared, to be trained and tested like this."""
        if self.test_images is not None:
            prepared = prepared.tested_on(self.test_images)
        distilling = replace(
            prepared.distilling, device=self.device, images_at_once=self.images_at_once, precision=self.precision
        )
        return replace(prepared, distilling=distilling)


def _drawable(data: Data) -> int:
    channels, height, width = data.input_shape
    return max(_LEAST_SHORT, _DRAWN_BYTES // (channels * height * width))


def timed_pace(teacher: Teacher, data: Data, settings: DistillSettings, engine: Engine, at_once: int) -> Pace:
    """Time a few passes and steps on the engine, on images that `data` give in their own time: others every time."""
    count = min(at_once, max(2, batch_for(data) // 8), len(data.train))
    order = iter(torch.randperm(len(data.train), generator=generator(settings.seed, _STREAM)).repeat(_TIMED_STEPS + 1))

    def load() -> object:
        return next(evaluation_batches(data, data.train.take(np.array(list(islice(order, count)))), count))

    load_s = _fastest(load) / count
    inputs = engine.moved(next(evaluation_batches(data, data.train, count)).inputs)
    module, task = engine.module(teacher.model), task_of(teacher.model, data)

    def teach() -> tuple[torch.Tensor, ...]:
        with torch.no_grad(), engine.autocast():
            said = tuple(output.float() for output in as_tuple(module(inputs)))
        for output in said:
            output.sum().item()
        return said

    evaluate_s, teach_s = _evaluation_s(module, inputs), _fastest(teach) / count
    lesson = Lesson(inputs, None, tuple(output.clone() for output in teach()))
    student = engine.module(teacher.model)
    optimiser = Optimiser(student, settings, steps=_TIMED_STEPS + 1, task=task, engine=engine)
    student.train()
    train_s = _fastest(lambda: optimiser.step(0, [lesson], count)) / count
    return Pace(load_s, evaluate_s, teach_s, train_s)


def _evaluation_s(module: GraphModule, inputs: torch.Tensor) -> float:
    """Return the seconds that evaluating an image takes."""

    def evaluate() -> object:
        with torch.inference_mode():
            return [output.sum().item() for output in as_tuple(module(inputs)) if output.is_floating_point()]

    return _fastest(evaluate) / len(inputs)


def retimed(schedule: Schedule, prepared: Prepared) -> Schedule:
    """Return a schedule by what evaluating takes now, where that is more: a machine gets busier while a run goes on.

    What is busy for a moment slows threads that wait for each other down manyfold, so the best of some tries counts,
    and no more than `_MOST_SLOWER` times what it took before.
    """
    if not schedule.evaluate_s:
        return schedule
    data, engine = prepared.data, Engine.of(prepared.distilling)
    count = min(schedule.images_at_once, max(2, batch_for(data) // 8), len(data.validation))
    inputs = engine.moved(next(evaluation_batches(data, data.validation, count)).inputs)
    module = engine.module(prepared.teacher.model)
    now = min(_evaluation_s(module, inputs) for _ in range(_TRIES))
    slower = min(max(1.0, now / schedule.evaluate_s), _MOST_SLOWER)
    return replace(schedule, evaluate_s=slower * schedule.evaluate_s, tail_s=slower * schedule.tail_s)


def with_tests_within(prepared: Prepared, schedule: Schedule, seconds: float) -> tuple[Prepared, Schedule]:
    """Return what is tested at the end of a run that has `seconds` left for it: fewer images where those are too few.

    A few are tested in any case.
    """
    data = prepared.data
    allowed = max(0.0, (seconds - _TAIL_S) / max(schedule.tail_s - _TAIL_S, 1e-9)) if schedule.evaluate_s else 1.0
    if allowed >= 1.0:
        return prepared, schedule
    images = min(len(data.test), max(_LEAST_TEST, int(allowed * len(data.test))))
    conditions = max(_LEAST_CONDITION, int(allowed * schedule.condition_images))
    return prepared.tested_on(images), replace(schedule, condition_images=conditions)


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes at best: the first time warms up, and one more is enough of a long one."""
    seconds: list[float] = []
    for _ in range(1 + _TIMED_STEPS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
        if len(seconds) > 1 and seconds[0] > _LONG_S:
            break
    return min(seconds[1:])


def make_schedule(settings: CompressSettings, prepared: Prepared, spent_s: float) -> tuple[Schedule, str]:
    """Return what a run is going to do and, in words, that and what it takes; getting ready took `spent_s`.

    The most images at once that fit into memory are taken. Without `--minutes` the amounts are those of the effort;
    with it images of a candidate, of its validation and of the tests are fewer where they have to be.
    """
    start = time.monotonic()
    data, distilling, amount = prepared.data, prepared.distilling, settings.amount
    model = prepared.teacher.model
    engine = training_engine(distilling, model, data)
    memory = step_memory(model, model, data, engine)
    at_once = settings.batch or images_at_once(memory, distilling.batch_size, engine.device)
    pace = timed_pace(prepared.teacher, data, distilling, engine, at_once)
    images = min(amount.short_images, _drawable(data))
    schedule = Schedule(str(engine.device), at_once, images, evaluate_s=pace.evaluate_s, precision=engine.number_format)
    schedule = _of_share(1.0, schedule, data)
    schedule = replace(
        schedule, profile_s=max(_PROFILE_S, _PROFILE_SHARE * _search_s(schedule, settings, prepared, pace))
    )
    if settings.minutes is not None:
        seconds = settings.minutes * 60
        left = SEARCH_SHARE * seconds - spent_s - (time.monotonic() - start)
        schedule = _fitted(schedule, settings, prepared, pace, seconds, left)
    shown = _in_words(schedule, settings, prepared, pace, engine)
    step_gb = memory.of(min(at_once, distilling.batch_size)) / 1e9
    disk_gb = 5 * 4 * sum(layer.params for layer in prepared.teacher.layers) / 1e9
    return schedule, (
        f"{shown}; a step takes about {step_gb:.1f} GB of memory, the run {disk_gb:.2f} GB of disk"
        f"{_images_in_words(schedule, settings, data, distilling)}"
    )


def _images_in_words(schedule: Schedule, settings: CompressSettings, data: Data, distilling: DistillSettings) -> str:
    """Return what images take of memory and disk, where they are decoded when they are needed."""
    if not isinstance(data.train.images, Pictures):
        return ""
    store, rungs = data.train.images.store, settings.amount.rungs
    channels, height, width = data.input_shape
    drawn = channels * height * width * max(schedule.drawn(times, data) for _, times in ((0, 1), *rungs))
    memory_gb = (drawn + distilling.batch_size * store.waiting_bytes) / 1e9
    whole_gb = channels * height * width * len(store.paths) / 1e9
    kept_gb = store.cache_bytes / 1e9
    kept = f"up to {kept_gb:,.1f} GB of disk decoded" if kept_gb else "none are kept decoded"
    rest = f" (all would take {whole_gb:,.1f} GB, see ‹cache_gb›)" if 0 < kept_gb < 0.99 * whole_gb else ""
    return f"; images take {memory_gb:.1f} GB of memory, {kept}{rest}"


def _candidate_s(schedule: Schedule, prepared: Prepared, pace: Pace, times: int = 1) -> float:
    """Return the seconds that a candidate takes on `times` the usual images."""
    validation = schedule.validation_images if times == 1 else schedule.rung_validation
    images = schedule.drawn(times, prepared.data)
    trained = images * _STUDENT_SHARE * pace.train_s
    distilling = prepared.distilling.for_images(min(images, len(prepared.data.train)))
    validations = 2 if follows_few_steps(images, distilling) else 1
    seen = validations * validation + _REFIT_PASSES * schedule.feature_images + schedule.calibration_images
    return trained + seen * pace.evaluate_s


def _setup_s(schedule: Schedule, pace: Pace, times: int = 1) -> float:
    """Return the seconds that the teacher takes to prepare the evaluation of candidates."""
    validation = schedule.validation_images if times == 1 else schedule.rung_validation
    images = validation + schedule.feature_images
    return times * schedule.short_images * (pace.load_s + pace.teach_s) + images * (pace.load_s + pace.evaluate_s)


def _search_s(schedule: Schedule, settings: CompressSettings, prepared: Prepared, pace: Pace) -> float:
    """Return the seconds that evaluating all candidates, and the best again, takes."""
    amount = settings.amount
    candidates = amount.removal_candidates + amount.shrinkage_candidates
    seconds = _setup_s(schedule, pace) + candidates * _candidate_s(schedule, prepared, pace)
    for finalists, times in amount.rungs:
        seconds += _setup_s(schedule, pace, times) + finalists * _candidate_s(schedule, prepared, pace, times)
    return seconds


def _fitted(
    schedule: Schedule, settings: CompressSettings, prepared: Prepared, pace: Pace, seconds: float, left: float
) -> Schedule:
    """Return a schedule whose search fits into the seconds `left` for it, and whose end into its share of all."""
    amount = settings.amount
    wanted = min(_CANDIDATES_AT_LEAST, amount.removal_candidates + amount.shrinkage_candidates)
    images = schedule.short_images
    while True:
        fewer = _of_share(images / amount.short_images, replace(schedule, short_images=images), prepared.data)
        if images // 2 < _LEAST_SHORT or _setup_s(fewer, pace) + wanted * _candidate_s(fewer, prepared, pace) <= left:
            break
        images //= 2
    return with_tail(fewer, settings, prepared, seconds, pace.load_s)


def with_tail(
    schedule: Schedule, settings: CompressSettings, prepared: Prepared, seconds: float, load_s: float = 0.0
) -> Schedule:
    """Return a schedule whose tests of what ships fit into their share of the `seconds` that all may take.

    An image takes `load_s` before it is evaluated. Where nothing was timed the schedule stays as it is.
    """
    if not schedule.evaluate_s:
        return schedule
    evaluations = 3 if metric_name(prepared.teacher.model, prepared.data) == "fidelity" else 2
    each = evaluations * (load_s + schedule.evaluate_s)
    tested = len(prepared.data.test)
    affordable = max(_LEAST_TEST, int(_TAIL_SHARE * seconds / each))
    conditions = _CONDITION_IMAGES
    tail_s = _TAIL_S + min(tested, affordable) * each
    if settings.corruptions:
        of_conditions = _CONDITIONS * schedule.evaluate_s
        conditions = max(_LEAST_CONDITION, min(conditions, int(_TAIL_SHARE * seconds / of_conditions)))
        tail_s += conditions * of_conditions
    return replace(
        schedule,
        test_images=affordable if affordable < tested else None,
        condition_images=conditions,
        tail_s=min(tail_s, 2 * _TAIL_SHARE * seconds),
    )


def _of_share(share: float, schedule: Schedule, data: Data) -> Schedule:
    """Return a schedule that looks at a share of the usual images, and at no more than there are."""
    train, validation = len(data.train), len(data.validation)
    return replace(
        schedule,
        validation_images=min(max(_LEAST_SHORT, round(share * _VALIDATION_IMAGES)), validation),
        feature_images=min(max(8, round(share * _FEATURE_IMAGES)), train),
        calibration_images=min(max(_LEAST_SHORT, round(share * _CALIBRATION_IMAGES)), train),
        rung_validation=min(max(_LEAST_SHORT, round(share * _RUNG_VALIDATION)), validation),
    )


def _in_words(schedule: Schedule, settings: CompressSettings, prepared: Prepared, pace: Pace, engine: Engine) -> str:
    amount, images = settings.amount, len(prepared.data.train)
    candidates = amount.removal_candidates + amount.shrinkage_candidates
    epochs = settings.epochs or amount.epochs(images)
    searched = _search_s(schedule, settings, prepared, pace)
    taught = prepared.distilling.rounds(images)
    step_s = _STUDENT_SHARE * pace.train_s + pace.load_s
    processes = prepared.distilling.processes
    trained = images * (epochs * step_s + min(epochs, taught) * pace.teach_s) / processes
    trained += epochs * len(prepared.data.validation) * pace.evaluate_s
    total = searched + trained + schedule.tail_s
    batch = prepared.distilling.batch_size
    at_once = "" if schedule.images_at_once >= batch else f", {schedule.images_at_once} of {batch} images at once"
    where = f"{engine.device.type}{f' x {processes}' if processes > 1 else ''} in {engine.number_format}{at_once}"
    plan = (
        f"plan: up to {candidates} candidates of {schedule.short_images:,} images, {_times(amount.rungs)}then "
        f"{epochs} epochs of {images:,} images"
    )
    rate = 1 / max(pace.train_s, 1e-9)
    speed = f"{f'{rate:,.0f}' if rate >= 10 else f'{rate:.2g}'} images/s on {where}"
    if settings.minutes is not None and total > settings.minutes * 60:
        return f"{plan}, or what fits into {settings.minutes:g} min: all of it takes {_duration(total)} here ({speed})"
    return f"{plan}: about {_duration(total)} here ({speed})"


def _times(rungs: Iterable[tuple[int, int]]) -> str:
    finalists = [str(count) for count, _ in rungs if count > 1]
    return f"the best {' and '.join(finalists)} again on more, " if finalists else ""


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
