"""`compress`: from a teacher, data, a device and budgets to a student that provably meets them."""

import hashlib
import time
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from n2n_edge._example import teacher_path as example_teacher
from n2n_edge.devices import Profile, load_profile, predict_latency
from n2n_edge.distill import (
    Data,
    DistillResult,
    DistillSettings,
    EpochReport,
    ShortDistiller,
    StepReport,
    distill,
    evaluate_onnx,
    load_data,
    metric_name,
    output_kind,
)
from n2n_edge.errors import BudgetMissedError, InputError
from n2n_edge.figures import Figure
from n2n_edge.gate import Verdict, file_figures, judge, latency_figure
from n2n_edge.graph import Teacher, build, costs, save_model
from n2n_edge.measure import WarmWorker
from n2n_edge.report import RunReport, write_html, write_model_card
from n2n_edge.search import CostMeter, Evaluator, Journal, Judged, Objective, Progress, SearchPlan, SearchResult, search
from n2n_edge.ship.document import read_report, run_report, verdicts_of, write_json
from n2n_edge.ship.folder import RunFolder
from n2n_edge.ship.metadata import with_metadata
from n2n_edge.ship.normalisation import Normalisation, choose_normalisation, metadata_normalisation
from n2n_edge.ship.parity import Parity, check_parity
from n2n_edge.ship.policy_file import load_policies, save_policies
from n2n_edge.ship.settings import CompressSettings
from n2n_edge.ship.trainable import shipped_form, trainable_teacher

__all__ = ["CompressResult", "Observer", "SilentObserver", "run_compress"]

_EXAMPLE_DATA = "builtin:digits"

_SEARCH_SHARE = 0.4
"""Share of `--minutes` that the search may take; the rest is for the final distillation."""

_SHORT_LEARNING_RATE = 0.02
"""Peak rate of a candidate's short distillation: lower than the final one's, which has time to recover."""


class Observer(Protocol):
    """What a live view is told while a run goes on."""

    def say(self, text: str) -> None:
        """Take one line about what happens now."""

    def candidate(self, progress: Progress) -> None:
        """Take a judged candidate."""

    def step(self, report: StepReport) -> None:
        """Take a step of the final distillation."""

    def epoch(self, report: EpochReport) -> None:
        """Take a finished epoch of the final distillation."""


class SilentObserver:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Ignore the line."""

    def candidate(self, progress: Progress) -> None:
        """Ignore the candidate."""

    def step(self, report: StepReport) -> None:
        """Ignore the step."""

    def epoch(self, report: EpochReport) -> None:
        """Ignore the epoch."""


@dataclass(frozen=True)
class CompressResult:
    """A finished run: its folder, the student's file, the report, and whether every budget is met."""

    folder: Path
    student: Path
    report: RunReport
    verdicts: tuple[Verdict, ...]

    @property
    def met(self) -> bool:
        """Whether the shipped file meets every budget."""
        return all(verdict.met for verdict in self.verdicts)


@dataclass(frozen=True)
class _Prepared:
    """What a run needs before its first candidate."""

    teacher: Teacher
    teacher_path: Path
    profile: Profile
    data: Data
    distilling: DistillSettings
    warnings: tuple[str, ...]
    restored: tuple[str, ...]


def run_compress(folder: RunFolder, settings: CompressSettings, observer: Observer | None = None) -> CompressResult:
    """Run, or go on with, the run in `folder`.

    Raises:
        InputError: anything wrong with teacher, data, device or options.
        BudgetMissedError: no architecture meets the budgets; the message names the nearest and how far it is off.
    """
    observer = observer or SilentObserver()
    if folder.report_json.exists() and folder.student.exists():
        observer.say(f"the run in {folder.path} is finished")
        report = read_report(folder.report_json)
        return CompressResult(folder.path, folder.student, report, verdicts_of(report))
    started = time.monotonic()
    profile = load_profile(settings.device)
    teacher_path = example_teacher() if settings.teacher is None else Path(settings.teacher)
    teacher = Teacher.load(teacher_path)
    _refuse_untouchable(teacher, teacher_path)
    observer.say(_summary(teacher, teacher_path))
    digest = hashlib.sha256(teacher_path.read_bytes()).hexdigest()
    prepared = _prepare(settings, teacher, teacher_path, profile, observer)
    base = file_figures(prepared.teacher_path)
    folder.begin(settings)
    with _open_journal(folder, digest) as journal:
        with WarmWorker() as worker:
            meter = CostMeter(prepared.teacher, profile, settings.budgets, journal, worker)
            found = _search(settings, prepared, meter, journal, observer)
            winner = _winner_or_refusal(found, settings)
        save_policies(found.policy_states, folder.policy)
        result, seconds = _train(settings, prepared, winner, folder, journal, observer, started)
        return _ship(
            folder, settings, prepared, winner, found.objective, result, seconds, base, journal, digest, observer
        )


def _refuse_untouchable(teacher: Teacher, path: Path) -> None:
    if any(layer.removable for layer in teacher.layers) or any(group.shrinkable for group in teacher.groups):
        return
    reasons = [layer.reason for layer in teacher.layers] or ["it holds no weighted layer"]
    raise InputError(f"{path}: nothing in this model can be removed or shrunk ({reasons[0]}); see `n2n-edge inspect`")


def _summary(teacher: Teacher, path: Path) -> str:
    removable = sum(layer.removable for layer in teacher.layers)
    shrinkable = sum(group.shrinkable for group in teacher.groups)
    text = (
        f"teacher {path.name}: {removable} of {len(teacher.layers)} layers can be removed, "
        f"{shrinkable} of {len(teacher.groups)} channel groups can shrink"
    )
    unknown = sorted({group.reason for group in teacher.groups if group.reason.startswith("op ")})
    return text + (f"; untouched: {'; '.join(unknown)}" if unknown else "")


def _open_journal(folder: RunFolder, digest: str) -> Journal:
    if not folder.journal.exists():
        return Journal.create(folder.journal, {"teacher_sha256": digest})
    journal = Journal.open(folder.journal)
    known = journal.meta().get("teacher_sha256")
    if known != digest:
        journal.close()
        raise InputError(
            f"{folder.path}: the teacher has changed since this run began; start a new run with another --out"
        )
    return journal


def _prepare(
    settings: CompressSettings, teacher: Teacher, teacher_path: Path, profile: Profile, observer: Observer
) -> _Prepared:
    warnings: list[str] = []
    spec = settings.data or _EXAMPLE_DATA
    data = _load(settings, teacher, spec)
    given = Normalisation(settings.mean or (), settings.std or (), "given") if settings.mean or settings.std else None
    chosen = given or metadata_normalisation(teacher.source.metadata_props) or choose_normalisation(teacher.model, data)
    if given is None:
        data = replace(
            data,
            mean=chosen.mean * (data.input_shape[0] if len(chosen.mean) == 1 else 1),
            std=chosen.std * (data.input_shape[0] if len(chosen.std) == 1 else 1),
        )
        if "found by" in chosen.note or "assumed" in chosen.note:
            warnings.append(f"normalisation: {chosen.note}")
    observer.say(
        f"data {spec}: {len(data.train)} training, {len(data.validation)} validation, {len(data.test)} test images, "
        f"{'labelled' if data.labelled else 'without labels'}; normalisation {chosen.note}"
    )
    trained, restored = trainable_teacher(teacher, data)
    if restored:
        observer.say(f"put back the BatchNorm of {len(restored)} layers that had been folded away")
    distilling = DistillSettings(seed=settings.seed)
    return _Prepared(trained, teacher_path, profile, data, distilling, tuple(warnings), restored)


def _load(settings: CompressSettings, teacher: Teacher, spec: str) -> Data:
    shape = teacher.model.graph.inputs[0].shape
    sizes = [size for size in list(shape or ())[1:] if isinstance(size, int)]
    if len(sizes) != 3:
        raise InputError(f"the teacher's input has shape {shape}; images need (N, channels, height, width)")
    outputs = teacher.model.graph.outputs
    classes = None
    if output_kind(teacher.model) != "other" and outputs[0].shape is not None:
        classes = int(outputs[0].shape[1])  # type: ignore[arg-type]
    return load_data(
        spec,
        input_shape=(sizes[0], sizes[1], sizes[2]),
        classes=classes,
        mean=settings.mean,
        std=settings.std,
        seed=settings.seed,
    )


def _search(
    settings: CompressSettings, prepared: _Prepared, meter: CostMeter, journal: Journal, observer: Observer
) -> SearchResult:
    effort = settings.amount
    short = replace(prepared.distilling, learning_rate=_SHORT_LEARNING_RATE, calibration_images=512)
    distiller = ShortDistiller(prepared.teacher.model, prepared.data, effort.short_images, short)

    def finals() -> ShortDistiller:
        return ShortDistiller(
            prepared.teacher.model, prepared.data, 4 * effort.short_images, short, validation_images=5000
        )

    base = meter.static(build(prepared.teacher, prepared.teacher.full))
    if not prepared.profile.is_host:
        base = replace(base, latency=predict_latency(prepared.teacher.model, prepared.profile))
    elif any(budget.cost == "latency_ms" for budget in settings.budgets) or settings.objective == "latency_ms":
        base = replace(base, latency=meter.measured(prepared.teacher.full, prepared.teacher.model))
    objective = Objective.choose(settings.objective, base, settings.budgets)
    observer.say(
        f"searching with policy {settings.policy}: {effort.removal_candidates} candidates for stage 1, "
        f"{effort.shrinkage_candidates} for stage 2; objective {objective.cost}"
    )
    evaluator = Evaluator(
        prepared.teacher, meter, distiller, distiller.teacher.metric, objective, journal, settings.seed
    )
    plan = SearchPlan(
        policy=settings.policy,
        seed=settings.seed,
        removal_candidates=effort.removal_candidates,
        shrinkage_candidates=effort.shrinkage_candidates,
        finalists=effort.finalists,
        policy_states=load_policies(Path(settings.policy_from)) if settings.policy_from else {},
        deadline_s=settings.minutes * 60 * _SEARCH_SHARE if settings.minutes else None,
    )
    return search(evaluator, plan, journal, finals, observer.candidate)


def _winner_or_refusal(found: SearchResult, settings: CompressSettings) -> Judged:
    if found.winner is not None:
        return found.winner
    nearest = found.nearest
    if nearest is None:
        raise BudgetMissedError("no candidate could be made of this teacher; see `n2n-edge inspect`")
    reached = nearest.costs.as_mapping()
    limits = {budget.cost: budget for budget in settings.budgets}
    misses = "; ".join(
        f"{limits[cost].option} {limits[cost].limit:g}: {reached[cost]:.4g} {limits[cost].unit}, {excess:.0%} over"
        for cost, excess in nearest.excesses.items()
        if cost in limits
    )
    raise BudgetMissedError(
        f"no architecture of this teacher meets the budgets; the nearest misses {misses}; allow more"
    )


def _train(
    settings: CompressSettings,
    prepared: _Prepared,
    winner: Judged,
    folder: RunFolder,
    journal: Journal,
    observer: Observer,
    started: float,
) -> tuple[DistillResult, float]:
    """Distil the winner to the end; a killed training goes on from its last epoch."""
    epochs = _epochs(settings, prepared, winner, journal, started)
    student = build(prepared.teacher, winner.architecture)
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
        checkpoint=folder.checkpoint,
        on_epoch=on_epoch,
        on_step=observer.step,
    )
    spent = sum(report.seconds for report in result.history)
    return result, max(spent, time.monotonic() - start)


def _epochs(settings: CompressSettings, prepared: _Prepared, winner: Judged, journal: Journal, started: float) -> int:
    """Return the epochs of the final distillation; what `--minutes` leaves is worked out once and journalled."""
    if settings.epochs is not None:
        return settings.epochs
    images = len(prepared.data.train)
    epochs = settings.amount.epochs(images)
    if settings.minutes is None:
        return epochs
    known = journal.cached("final", "epochs")
    if known is None:
        left = settings.minutes * 60 - (time.monotonic() - started)
        judged = journal.cached("accuracy", winner.architecture.key)
        seconds = float(judged["seconds"]) if judged is not None else 1.0
        # the short distillation had its teacher's outputs ready, the final one works them out: about twice the time
        per_epoch = 2.0 * seconds * images / settings.amount.short_images
        known = {"epochs": max(1, min(epochs, int(left / per_epoch)))}
        journal.store("final", "epochs", known)
    return int(known["epochs"])


def _ship(
    folder: RunFolder,
    settings: CompressSettings,
    prepared: _Prepared,
    winner: Judged,
    objective: str,
    result: DistillResult,
    seconds: float,
    teacher_figures: dict[str, Figure],
    journal: Journal,
    digest: str,
    observer: Observer,
) -> CompressResult:
    """Write the student, prove parity, check every budget on the file itself, judge it on the test images once."""
    model = shipped_form(result.model, prepared.restored)
    profile, data = prepared.profile, prepared.data
    known = {
        "params": Figure(costs(model).params, "params", "computed"),
        "macs": Figure(costs(model).macs, "MACs", "computed"),
    }
    if not profile.is_host:
        known["latency_ms"] = predict_latency(model, profile)
    stamped = with_metadata(
        model,
        version=_version(),
        teacher_sha256=digest,
        profile=profile,
        budgets=settings.budgets,
        figures=known,
        data=data,
    )
    save_model(stamped, folder.student)
    parity: Parity = check_parity(result.model, folder.student, data)
    observer.say(
        f"parity of torch and ONNX Runtime on {parity.n} images: relative error {parity.max_relative_error:.1e}"
        + (f", top-1 agreement {parity.top1_agreement:.1%}" if parity.top1_agreement is not None else "")
    )
    warnings = list(prepared.warnings)
    student_figures = file_figures(folder.student)
    for path, figures in ((prepared.teacher_path, teacher_figures), (folder.student, student_figures)):
        figures |= _latencies(path, profile, warnings)
        figures |= _quality(path, prepared)
    reached = {**student_figures, "latency_ms": student_figures[f"latency_ms:{profile.name}"]}
    if "fidelity" in reached:
        reached["accuracy"] = reached["fidelity"]
    verdicts = judge(reached, settings.budgets)
    report = run_report(
        version=_version(),
        settings=settings,
        out=folder.path,
        teacher=prepared.teacher,
        teacher_path=prepared.teacher_path,
        teacher_figures=teacher_figures,
        student_figures=student_figures,
        verdicts=verdicts,
        parity=parity,
        profile=profile,
        candidates=journal.candidates(),
        winner=winner,
        objective=objective,
        training=result,
        training_seconds=seconds,
        data=data,
        warnings=warnings,
    )
    write_html(report, report["search"]["candidates"], folder.report_html)
    write_model_card(report, folder.model_card)
    write_json(report, folder.report_json)  # last: a run that has it is finished
    folder.checkpoint.unlink(missing_ok=True)
    return CompressResult(folder.path, folder.student, report, verdicts)


def _latencies(path: Path, profile: Profile, warnings: list[str]) -> dict[str, Figure]:
    """Return the measured latency on this host, and on the device where that is another."""
    host = load_profile("cpu")
    found = {}
    for device in dict.fromkeys((host.name, profile.name)):
        figure, doubts = latency_figure(path, profile if device == profile.name else host)
        found[f"latency_ms:{device}"] = figure
        warnings.extend(doubt for doubt in doubts if doubt not in warnings)
    return found


def _quality(path: Path, prepared: _Prepared) -> dict[str, Figure]:
    name = metric_name(prepared.teacher.model, prepared.data)
    found = evaluate_onnx(
        path, prepared.data.test, prepared.data, teacher=prepared.teacher_path if name == "fidelity" else None
    )
    return {name: Figure(found.metric, "fraction", "measured", n=found.n)}


def _version() -> str:
    try:
        return version("n2n-edge")
    except PackageNotFoundError:
        return "0+unknown"
