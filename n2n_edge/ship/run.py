"""A run: from a teacher, data, a device and budgets to a student that provably meets them."""

import time
from dataclasses import replace
from functools import partial

from pydantic import ValidationError

from n2n_edge.devices import Profile, load_profile
from n2n_edge.distill import DistillResult, EpochReport, ShortDistiller, affordable_epochs, distill, reconstructed
from n2n_edge.errors import BudgetMissedError, InputError, N2NError
from n2n_edge.graph import build, surviving
from n2n_edge.measure import WarmWorker
from n2n_edge.search import CostMeter, Evaluator, Journal, Judged, Objective, Rung, SearchPlan, SearchResult, search
from n2n_edge.ship.document import read_report, verdicts_of
from n2n_edge.ship.finish import CompressResult, Trained, ship
from n2n_edge.ship.folder import RunFolder
from n2n_edge.ship.observer import Observer, SilentObserver
from n2n_edge.ship.policy_file import save_policies
from n2n_edge.ship.prepare import Prepared, prepare
from n2n_edge.ship.settings import CompressSettings

__all__ = ["run_compress"]

_SEARCH_SHARE = 0.4
"""Share of `--minutes` that the two stages may take; the rest is for the finalists and the final distillation."""

_SHORT_LEARNING_RATE = 0.05
"""Peak rate of a candidate's short distillation (benchmarks/ranking)."""

_LEAST_OVER = 0.001


def run_compress(folder: RunFolder, settings: CompressSettings, observer: Observer | None = None) -> CompressResult:
    """Run, or go on with, the run in `folder`.

    Raises:
        InputError: anything wrong with teacher, data, device or options; a folder made for the run is taken back.
        BudgetMissedError: no architecture meets the budgets; the message names the nearest and how far it is off.
        UnsuitableEnvironmentError: the exported file isn't what was trained.
    """
    observer = observer or SilentObserver()
    if folder.report_json.exists() and folder.student.exists():
        observer.say(f"the run in {folder.path} is finished")
        report = read_report(folder.report_json)
        return CompressResult(folder.path, folder.student, report, verdicts_of(report))
    started = time.monotonic()
    profile = _profile(folder, settings)
    begun = folder.begin(settings)
    try:
        prepared = prepare(settings, profile, folder, observer)
    except N2NError:
        if begun:
            folder.abandon()
        raise
    with _open_journal(folder, prepared) as journal:
        started -= float(journal.meta().get("search_seconds", 0.0))  # what a run before this one has spent
        with WarmWorker() as worker:
            meter = CostMeter(
                prepared.teacher,
                profile,
                settings.budgets,
                journal,
                worker,
                settings.objective,
                accept_expected=settings.accept_expected,
            )
            found = _search(settings, prepared, meter, journal, observer)
        winner = _winner_or_refusal(found, settings)
        save_policies(found.policy_states, folder.policy)
        result, seconds = _train(settings, prepared, winner, folder, journal, observer, started)
        trained = Trained(winner, found.objective, result, seconds)
        return ship(folder, settings, prepared, trained, journal.candidates(), observer)


def _profile(folder: RunFolder, settings: CompressSettings) -> Profile:
    """Return the device's profile; a run that was begun keeps the one it began with, whatever has changed since."""
    if folder.journal.exists():
        with Journal.open(folder.journal) as journal:
            known = journal.meta().get("profile")
        if known is not None:
            try:
                return Profile.model_validate_json(known)
            except ValidationError as error:
                raise InputError(
                    f"{folder.path}: begun by another version of n2n-edge; start a new run with another --out"
                ) from error
    return load_profile(settings.device)


def _open_journal(folder: RunFolder, prepared: Prepared) -> Journal:
    if not folder.journal.exists():
        meta = {"teacher_sha256": prepared.teacher_sha256, "profile": prepared.profile.model_dump_json()}
        return Journal.create(folder.journal, meta)
    journal = Journal.open(folder.journal)
    if journal.meta().get("teacher_sha256") != prepared.teacher_sha256:
        journal.close()
        raise InputError(
            f"{folder.path}: the teacher has changed since this run began; start a new run with another --out"
        )
    journal.record_event("resumed", {})
    return journal


def _search(
    settings: CompressSettings, prepared: Prepared, meter: CostMeter, journal: Journal, observer: Observer
) -> SearchResult:
    effort = settings.amount
    short = replace(prepared.distilling, learning_rate=_SHORT_LEARNING_RATE, calibration_images=512)
    distiller = ShortDistiller(prepared.teacher.model, prepared.data, effort.short_images, short)
    if journal.cached("final", "teaching") is None:
        each = {"seconds": distiller.teaching_seconds, "bytes": distiller.teaching_bytes}
        journal.store("final", "teaching", {name: value / effort.short_images for name, value in each.items()})

    def finals(times: int) -> ShortDistiller:
        images = times * effort.short_images
        return ShortDistiller(prepared.teacher.model, prepared.data, images, short, validation_images=5000)

    def profiler() -> ShortDistiller:
        return ShortDistiller.refitting(prepared.teacher.model, prepared.data, short)

    timed = any(budget.cost == "latency_ms" for budget in settings.budgets) or settings.objective == "latency_ms"
    base = meter.of_teacher(timed=timed)
    objective = Objective.choose(settings.objective, base, settings.budgets)
    observer.say(
        f"searching with policy {settings.policy}: {effort.removal_candidates} candidates for stage 1, "
        f"{effort.shrinkage_candidates} for stage 2; objective {objective.cost}"
    )
    evaluator = Evaluator(
        prepared.teacher, meter, distiller, distiller.teacher.metric, distiller.teacher_loss, objective, journal,
        settings.seed,
    )  # fmt: skip
    plan = SearchPlan(
        policy=settings.policy,
        seed=settings.seed,
        removal_candidates=effort.removal_candidates,
        shrinkage_candidates=effort.shrinkage_candidates,
        policy_states=prepared.policy_states,
        deadline_s=settings.minutes * 60 * _SEARCH_SHARE if settings.minutes else None,
    )
    rungs = [Rung(finalists, times, partial(finals, times)) for finalists, times in effort.rungs]
    return search(evaluator, plan, journal, rungs, profiler, observer.candidate)


def _winner_or_refusal(found: SearchResult, settings: CompressSettings) -> Judged:
    if found.winner is not None:
        return found.winner
    nearest = found.nearest
    if nearest is None:
        raise BudgetMissedError("no candidate could be made of this teacher; see `n2n-edge inspect`")
    reached = nearest.costs.as_mapping()
    misses = []
    for budget in settings.budgets:
        if budget.cost in nearest.excesses and budget.cost in reached:
            over = max(reached[budget.cost] / budget.limit - 1, _LEAST_OVER)
            latency = nearest.costs.latency if budget.cost == "latency_ms" else None
            bound = latency is not None and reached[budget.cost] > latency.value
            expected = f" (upper bound; {latency.value:.4g} expected)" if bound and latency is not None else ""
            misses.append(
                f"{budget.option} {budget.limit:g}: {reached[budget.cost]:.4g} {budget.unit}{expected}, {over:.0%} over"
            )
    described = nearest.architecture.to_json()
    raise BudgetMissedError(
        "no architecture was found that meets the budgets; the nearest misses "
        f"{'; '.join(misses) or 'them since the runtime could not run it'} "
        f"(it lacks {len(nearest.architecture.removed)} layers and has {reached['params']:,.0f} params); allow more",
        {"nearest": {**described, "costs": reached}, "excesses": dict(nearest.excesses)},
    )


def _train(
    settings: CompressSettings,
    prepared: Prepared,
    winner: Judged,
    folder: RunFolder,
    journal: Journal,
    observer: Observer,
    started: float,
) -> tuple[DistillResult, float]:
    """Distil the winner to the end; a killed training goes on from its last epoch."""
    epochs = _epochs(settings, prepared, winner, journal, started)
    kept = surviving(prepared.teacher, winner.architecture)
    student = reconstructed(
        build(prepared.teacher, winner.architecture), prepared.teacher.model, prepared.data, prepared.distilling, kept
    )
    observer.say(f"training the winner for {epochs} epochs of {len(prepared.data.train)} images")
    start = time.monotonic()

    def on_epoch(report: EpochReport) -> None:
        figures = {"loss": report.train_loss, "validation": report.validation, "seconds": report.seconds}
        journal.record_epoch("final", report.epoch, figures)
        observer.epoch(report)

    result = distill(
        student,
        prepared.teacher.model,
        prepared.data,
        replace(prepared.distilling, epochs=epochs, patience=max(10, epochs // 2)),
        kept=kept,
        checkpoint=folder.checkpoint,
        on_epoch=on_epoch,
        on_step=observer.step,
    )
    spent = sum(report.seconds for report in result.history)
    return result, max(spent, time.monotonic() - start)


def _epochs(settings: CompressSettings, prepared: Prepared, winner: Judged, journal: Journal, started: float) -> int:
    """Return the epochs of the final distillation; what `--minutes` leaves is worked out once and journalled."""
    if settings.epochs is not None:
        return settings.epochs
    images = len(prepared.data.train)
    epochs = settings.amount.epochs(images)
    if settings.minutes is None:
        return epochs
    known = journal.cached("final", "epochs")
    if known is None:
        judged = journal.cached("accuracy", winner.architecture.key) or {}
        teaching = journal.cached("final", "teaching") or {}
        known = {
            "epochs": affordable_epochs(
                replace(prepared.distilling, epochs=epochs),
                images,
                settings.minutes * 60 - (time.monotonic() - started),
                float(judged.get("training_seconds", 1.0)) / settings.amount.short_images,
                float(teaching.get("seconds", 0.0)),
                float(teaching.get("bytes", 0.0)),
            )
        }
        journal.store("final", "epochs", known)
    return int(known["epochs"])
