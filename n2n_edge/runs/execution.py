"""Execution of a run: preparation, search, final distillation and export, begun or gone on with."""

import time
from dataclasses import asdict, replace
from functools import partial
from typing import cast

from n2n_edge.devices.profile import Profile
from n2n_edge.errors import BudgetMissedError, InputError, N2NError, setting
from n2n_edge.graph.architecture import Architecture
from n2n_edge.latency.file_figures import ModelFile
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import COSTS
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.precisions import ShippedPrecision
from n2n_edge.metrics.scores import metric_label
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.candidates import candidate_rows, listed_candidates, place_of
from n2n_edge.runs.devices import profiles_meta, profiles_of_run
from n2n_edge.runs.document import Origin
from n2n_edge.runs.environment import explained_failures, threads_of_run
from n2n_edge.runs.final import FinalPlan, FinalTraining, final_plan, kept_plan, plan_in_words
from n2n_edge.runs.finish import ship
from n2n_edge.runs.folder import RunFolder, finished_report
from n2n_edge.runs.prepare import Prepared, prepare, refuse_changes
from n2n_edge.runs.schedule import SEARCH_SHARE, Schedule, make_schedule, retimed
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.unit_order import with_unit_order
from n2n_edge.runs.workers import check_workers, evaluations_of
from n2n_edge.search.attempts import note_crash
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.driver import SearchPlan, SearchResult, search
from n2n_edge.search.evaluations import Evaluations
from n2n_edge.search.evaluator import Evaluator, Objective
from n2n_edge.search.halving import Rung
from n2n_edge.search.precision import CandidatePrecision
from n2n_edge.search.store import Fact, Journal
from n2n_edge.search.trial import Trial, TrialCosts
from n2n_edge.tasks.choice import metric_name
from n2n_edge.training.allocator import give_back_freed_memory, large_buffers_kept
from n2n_edge.training.compute import Engine
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.watchdog import STALL_VARIABLE, phase, watched

__all__ = ["execute"]

_LEAST_OVER = 0.001

_RESAMPLES = 200
"""Samples of the validation images by which the last finalists are compared."""

_LEAST_SEARCH_S = 1.0
"""What a search gets of `--minutes` where getting ready has taken its share."""


def execute(folder: RunFolder, settings: CompressSettings, callback: RunCallback, started: float) -> None:
    """Run, or go on with, the run in `folder` until its student is shipped; `--minutes` counts from `started` on.

    Raises:
        InputError: anything wrong with teacher, data, device or options; a folder made for the run is taken back.
        BudgetMissedError: no architecture meets the budgets; the message names the nearest and how far it is off.
        UnsuitableEnvironmentError: the exported file isn't what was trained, the disk is full, or the folder has gone.
    """
    if finished_report(folder) is not None:
        callback.on_message(f"the run in {folder.path} is finished")
        return
    with explained_failures(folder.path, folder.resume_command), threads_of_run(settings, callback) as settings:
        profiles = _profiles(folder, settings)
        check_workers(settings)
        begun = folder.begin(settings)
        _note_crash(folder, callback)
        advice = (
            f"`{folder.resume_command}` goes on, without the candidate if one was under way; "
            f"{STALL_VARIABLE} sets how long to wait"
        )
        with watched(callback.on_message, advice, folder.stacks), large_buffers_kept(), folder.reading_images():
            _run(folder, settings, profiles, callback, begun, started)


def _run(
    folder: RunFolder,
    settings: CompressSettings,
    profiles: tuple[Profile, ...],
    callback: RunCallback,
    begun: bool,
    started: float,
) -> None:
    """Run `settings`; `begun` tells that the folder is new."""
    try:
        with phase("preparation"):
            prepared = prepare(settings, profiles, folder, callback)
    except N2NError:
        if begun:
            folder.stacks.unlink(missing_ok=True)
            folder.abandon()
        raise
    with _open_journal(folder, prepared) as journal:
        before = started
        started -= float(journal.meta().get("search_seconds", 0.0))  # what a run before this one has spent
        schedule = Schedule.of_journal(journal, settings)
        if schedule is None:
            with phase("schedule"):
                schedule, plan_text = make_schedule(settings, prepared, time.monotonic() - before)
            schedule.keep(journal)
            callback.on_message(plan_text)
        prepared = schedule.applied(prepared)
        with phase("importance of channels"):
            prepared = with_unit_order(prepared, journal, schedule, settings.minutes)
        give_back_freed_memory()
        gpu = Engine.of(prepared.distilling).device.type == "cuda"
        evaluations = evaluations_of(settings, gpu=gpu, tell=callback.on_message)
        with WarmWorker() as worker, evaluations:
            meter = CostMeter(
                prepared.teacher,
                prepared.profile,
                settings.budgets,
                journal,
                worker,
                settings.objective,
                others=prepared.profiles[1:],
                accept_expected=settings.accept_expected,
                precision=CandidatePrecision(
                    prepared.teacher, cast("ShippedPrecision", settings.precision), prepared.profile
                ),
                merging=settings.merges,
            )
            found = _search(
                settings, prepared, schedule, meter, journal, callback, time.monotonic() - before, evaluations
            )
        give_back_freed_memory()
        architecture = _winner_or_refusal(found, settings).architecture
        ends_at = None
        if settings.minutes is not None:
            ends_at = started + settings.minutes * 60
            schedule = retimed(schedule, prepared)
        plan = _final_plan(settings, prepared, schedule, architecture, journal, ends_at)
        if found.confidence is not None:
            callback.on_message(
                f"by {metric_label(str(journal.meta()['metric']))} alone the winner is the best of "
                f"{found.confidence.finalists} finalists in {found.confidence.probability:.0%} of samples of the "
                "validation images"
            )
        if found.spent.profile is not None and found.spent.total > 0:
            share = found.spent.profile / found.spent.total
            callback.on_message(
                f"the search took {found.spent.total:,.0f} s, {share:.0%} of it the sensitivity profile"
            )
        callback.on_message(f"training the winner for {plan_in_words(plan, settings, len(prepared.data.train))}")

        with phase("final distillation"):
            training = FinalTraining(prepared, architecture, plan, schedule, settings, folder, ends_at)
            trained, prepared, schedule = training.result(callback, journal)
        give_back_freed_memory()
        origin = Origin(
            command=settings.command(folder.path),
            objective=found.objective,
            candidates=candidate_rows(journal),
            place=place_of(architecture.key, listed_candidates(journal)),
            confidence=found.confidence,
            spent=found.spent,
        )
        with phase("export and tests"):
            ship(folder, settings, prepared, trained, origin, callback, journal.check_there, schedule.condition_images)


def _note_crash(folder: RunFolder, callback: RunCallback) -> None:
    """Tell of a crash or stall of the run before this one, and let the journal know what was under way."""
    if not folder.crashed:
        return
    if folder.journal.exists():
        with Journal.open(folder.journal) as journal:
            note_crash(journal)
    folder.stacks.replace(folder.stacks_before)
    callback.on_message(f"this run crashed or stalled before; where it was is in {folder.stacks_before}")


def _profiles(folder: RunFolder, settings: CompressSettings) -> tuple[Profile, ...]:
    """Return the devices' profiles; a run that was begun keeps those it began with, whatever has changed since."""
    meta: dict[str, object] = {}
    if folder.journal.exists():
        with Journal.open(folder.journal) as journal:
            meta = journal.meta()
    return profiles_of_run(meta, folder.path, settings.devices, settings.measured or (), settings.runtime)


def _open_journal(folder: RunFolder, prepared: Prepared) -> Journal:
    if not folder.journal.exists():
        meta = {
            "teacher_sha256": prepared.teacher_sha256,
            "data_sha256": prepared.data_sha256,
            **profiles_meta(prepared.profiles),
        }
        return Journal.create(folder.journal, meta)
    journal = Journal.open(folder.journal)
    try:
        refuse_changes(journal.meta(), prepared, folder.path)
    except InputError:
        journal.close()
        raise
    return journal


def _search(
    settings: CompressSettings,
    prepared: Prepared,
    schedule: Schedule,
    meter: CostMeter,
    journal: Journal,
    callback: RunCallback,
    prepared_s: float,
    evaluations: Evaluations,
) -> SearchResult:
    """Search; getting ready took `prepared_s` of the time that `--minutes` allows."""
    start = time.monotonic()
    effort = settings.amount
    short = replace(prepared.distilling, calibration_images=schedule.calibration_images)
    each = len(prepared.data.train)
    distiller = ShortDistiller(
        prepared.teacher.model,
        prepared.data,
        schedule.short_images,
        short.for_images(min(schedule.short_images, each)),
        validation_images=schedule.validation_images,
        feature_images=schedule.feature_images,
    )
    if journal.cached(Fact.FINAL, "teaching") is None:
        taught = {"seconds": distiller.teaching_seconds, "bytes": distiller.teaching_bytes}
        journal.store(Fact.FINAL, "teaching", {name: value / schedule.short_images for name, value in taught.items()})

    def finals(times: int, resamples: int) -> ShortDistiller:
        images = schedule.drawn(times, prepared.data)
        return ShortDistiller(
            prepared.teacher.model,
            prepared.data,
            images,
            short.for_images(min(images, each)),
            validation_images=schedule.rung_validation,
            feature_images=schedule.feature_images,
            resamples=resamples,
        )

    def profiler() -> ShortDistiller:
        return ShortDistiller.refitting(prepared.teacher.model, prepared.data, short)

    timed = any(budget.cost == "latency_ms" for budget in settings.budgets) or settings.objective == "latency_ms"
    base = meter.of_teacher(timed=timed)
    if prepared.original is not None:  # what counts is what is saved of the teacher as it is
        original = ModelFile(prepared.teacher_path, settings.input_shape)
        base = meter.of_original(prepared.original.model, lambda profile: original.latency(profile).figure)
    objective = Objective.choose(settings.objective, base, settings.budgets)
    journal.set_meta("objective", objective.cost)
    journal.set_meta("metric", metric_name(prepared.teacher.model, prepared.data))
    callback.on_message(
        f"searching with policy {settings.policy}: {effort.removal_candidates} candidates for stage 1, "
        f"{effort.shrinkage_candidates} for stage 2; objective {objective.cost}{_timings_in_words(meter)}"
    )
    evaluator = Evaluator(
        prepared.teacher, meter, distiller, distiller.teacher.metric, distiller.teacher_loss, distiller.constant_loss,
        objective, journal, settings.seed, callback.on_message, evaluations,
    )  # fmt: skip
    deadline_s = None
    if settings.minutes:
        spent = prepared_s + time.monotonic() - start
        deadline_s = max(settings.minutes * 60 * SEARCH_SHARE - spent, _LEAST_SEARCH_S)
    plan = SearchPlan(
        policy=settings.policy,
        seed=settings.seed,
        removal_candidates=effort.removal_candidates,
        shrinkage_candidates=effort.shrinkage_candidates,
        deadline_s=deadline_s,
        profile_s=schedule.profile_s,
        proposals=settings.proposals,
    )
    rungs = [
        Rung(finalists, times, partial(finals, times, _RESAMPLES if number == len(effort.rungs) else 0))
        for number, (finalists, times) in enumerate(effort.rungs, start=1)
    ]
    return search(evaluator, plan, journal, rungs, profiler, callback.on_trial, callback.on_probe)


def _timings_in_words(meter: CostMeter) -> str:
    """Return on which devices candidates are timed, and with how many threads; "" where all is predicted."""
    threads = {device.name: device.profile.default_threads for device in meter.devices if device.timed}
    timed = [f"{name} with {count} thread{'s' if count > 1 else ''}" for name, count in threads.items()]
    return f"; latency is timed here: {', '.join(timed)}" if timed else ""


def _winner_or_refusal(found: SearchResult, settings: CompressSettings) -> Trial:
    if found.winner is not None:
        return found.winner
    nearest = found.nearest
    if nearest is None:
        raise BudgetMissedError("no candidate could be made of this teacher; see `n2n-edge inspect`")
    reached = nearest.costs.as_mapping()
    misses = [
        miss
        for budget in settings.budgets
        if budget.cost in nearest.excesses
        for miss in _misses(budget, nearest.costs, several=len(settings.devices) > 1)
    ]
    described = nearest.architecture.to_json()
    raise BudgetMissedError(
        "no architecture was found that meets the budgets; the nearest misses "
        f"{'; '.join(misses) or 'them since it could not be run'} "
        f"(it lacks {len(nearest.architecture.removed)} layers and has {reached['params']:,.0f} params); allow more",
        {"nearest": {**described, "costs": _figures(nearest.costs)}, "excesses": dict(nearest.excesses)},
    )


def _figures(costs: TrialCosts) -> dict[str, object]:
    """Return costs as figures that say where they come from, latency by device."""
    static = {
        cost: Figure(value, COSTS[cost].unit, "computed").to_json()
        for cost, value in costs.as_mapping().items()
        if cost != "latency_ms"
    }
    return {**static, "latency_ms": {device: figure.to_json() for device, figure in costs.latencies.items()}}


def _misses(budget: Budget, costs: TrialCosts, *, several: bool) -> list[str]:
    """Return in words how far a candidate is off a budget, for each device where that is the latency's."""
    reached = costs.as_mapping()
    if budget.cost != "latency_ms":
        return [_miss(budget, reached[budget.cost], "")] if budget.cost in reached else []
    found = []
    for device, latency in costs.latencies.items():
        held = costs.held_on(device)
        expected = f" (upper bound; {latency.value:.4g} expected)" if held > latency.value else ""
        if len(costs.latencies) == 1 or held > budget.limit:
            predicted = " predicted" if latency.predicted else ""
            found.append(_miss(budget, held, f"{predicted}{expected}{f' on {device}' if several else ''}"))
    return found


def _miss(budget: Budget, reached: float, more: str) -> str:
    over = max(reached / budget.limit - 1, _LEAST_OVER)
    return f"{setting(budget.option)} {budget.limit:g}: {reached:.4g} {budget.unit}{more}, {over:.0%} over"


def _final_plan(
    settings: CompressSettings,
    prepared: Prepared,
    schedule: Schedule,
    architecture: Architecture,
    journal: Journal,
    ends_at: float | None,
) -> FinalPlan:
    """Return the final distillation; what `--minutes` leaves time for is worked out once and journalled."""
    limited = settings.epochs is None and settings.minutes is not None
    kept = kept_plan(journal) if limited else None
    if kept is not None:
        return kept
    left = None if ends_at is None else ends_at - time.monotonic()
    plan = final_plan(settings, prepared, architecture, journal, schedule, left)
    if limited:
        journal.store(Fact.FINAL, "epochs", asdict(plan))
    return plan
