"""Shipping of a student that a person chose: a candidate trained to the end, or one trained elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.report.candidates import find_winner
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.candidate_order import BEGUN, Order, begin, begun
from n2n_edge.runs.candidates import candidate_rows, listed_candidates
from n2n_edge.runs.devices import profiles_of_run
from n2n_edge.runs.document import Origin, read_report
from n2n_edge.runs.environment import explained_failures, threads_of_run
from n2n_edge.runs.final import FinalTraining, Trained, final_plan, plan_in_words
from n2n_edge.runs.finish import ship
from n2n_edge.runs.folder import RunFolder, finished_report
from n2n_edge.runs.front import objective_of
from n2n_edge.runs.prepare import Prepared, prepare, refuse_changes
from n2n_edge.runs.schedule import Schedule, retimed, with_tail
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.unit_order import with_kept_order
from n2n_edge.search.store import Journal
from n2n_edge.search.store_files import held
from n2n_edge.search.trial import Trial
from n2n_edge.training.allocator import large_buffers_kept
from n2n_edge.training.distillation import DistillResult
from n2n_edge.training.executor import GraphModule, write_back
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import STALL_VARIABLE, phase, watched

if TYPE_CHECKING:
    from torch import nn

__all__ = ["chosen", "overridden", "ship_candidate", "ship_trained", "train_candidate"]


def ship_candidate(
    run: Path,
    number: int,
    *,
    out: Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    callback: RunCallback,
) -> tuple[RunFolder, CompressSettings]:
    """Train candidate `number` (from one) of the run in folder `run` to the end, and ship it; return where, and how.

    It goes into ``candidate-N`` in the run's folder, or into `out`; nothing of the run is touched. `epochs` and
    `minutes` override the run's. A training that was killed goes on from its last epoch when the same is asked again.

    Raises:
        InputError: no such run or candidate, one that was never trained, a teacher that has changed since, or a folder
            that holds something else.
        UnsuitableEnvironmentError: the exported file isn't what was trained.
    """
    with _training(run, number, out, epochs, minutes, callback) as training:
        if training.left is not None:
            training.left.ship(callback)
    return training.target, training.settings


def train_candidate(
    run: Path,
    number: int,
    *,
    out: Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    callback: RunCallback,
) -> None:
    """Train candidate `number` as `ship_candidate` does, which goes on from there and has only to ship it.

    Nothing is timed: this may happen beside other work. Raises what `ship_candidate` raises.
    """
    with _training(run, number, out, epochs, minutes, callback) as training:
        if training.left is not None:
            training.left.training.train(callback)


@dataclass(frozen=True)
class _Left:
    """What is left to do for a candidate: its training, and then its shipping as that of `origin`."""

    training: FinalTraining
    origin: Origin

    def ship(self, callback: RunCallback) -> None:
        """Train it to the end, and ship it."""
        trained, prepared, schedule = self.training.result(callback)
        ship(
            self.training.folder, self.training.settings, prepared, trained, self.origin, callback,
            condition_images=schedule.condition_images,
        )  # fmt: skip


@dataclass(frozen=True)
class _Training:
    """The final training of a candidate that goes to `target`; nothing is `left` where it has been shipped there."""

    target: RunFolder
    settings: CompressSettings
    left: _Left | None


@contextmanager
def _training(
    run: Path, number: int, out: Path | None, epochs: int | None, minutes: float | None, callback: RunCallback
) -> Iterator[_Training]:
    """Give what there is to do for a candidate of a run, and keep its folder for it while in the block."""
    started = time.monotonic()
    folder, settings = RunFolder.existing(run)
    settings = overridden(settings, epochs, minutes)
    order = Order(folder.path.absolute(), number, epochs, minutes)
    target = RunFolder(out if out is not None else folder.of_candidate(number))
    advice = f"`{order.command(out)}` goes on from the last epoch; {STALL_VARIABLE} sets how long to wait"
    with (
        threads_of_run(settings, callback) as settings,
        explained_failures(folder.path, order.command(out)),
        target.reading_images(),
    ):
        left = _left(folder, settings, order, target, out, callback, started)
        if left is None:
            yield _Training(target, settings, None)
            return
        with (
            held(target.path / BEGUN),
            watched(callback.on_message, advice),
            large_buffers_kept(),
            phase(f"final distillation of candidate {number}"),
        ):
            amount = plan_in_words(left.training.plan, settings, len(left.training.prepared.data.train))
            callback.on_message(f"training candidate {number} for {amount}")
            yield _Training(target, settings, left)


def ship_trained(run: Path, student: "nn.Module | Path", out: Path | None, callback: RunCallback) -> RunFolder:
    """Ship the student of the finished run in folder `run` with weights that were trained elsewhere; return where.

    `student` is a module that `load_student` gave, or an ONNX file of the same network. It goes into ``retrained`` in
    the run's folder, or into `out`; parity, budgets and report are those of any student.

    Raises:
        InputError: the run isn't finished, its teacher or data have changed, `student` is another network, or the
            folder holds something.
        UnsuitableEnvironmentError: the exported file isn't what was trained.
    """
    folder, settings = RunFolder.existing(run)
    report = read_report(folder.report_json)
    if "precision" in report and report["precision"]["ships"] != "fp32":
        raise InputError(
            f"{run}: its student holds integers, which can't be trained elsewhere; start a run with ‹precision› fp32, "
            "and quantize what you have trained with `n2n-edge quantize`"
        )
    place = find_winner(report, report["search"]["candidates"])
    target = RunFolder(out if out is not None else folder.path / "retrained")
    if target.path.exists() and (not target.path.is_dir() or any(target.path.iterdir())):
        raise InputError(f"{target.path} holds something already; give another ‹out›")
    model = _retrained(load_model(folder.student), student)
    again = f"n2n_edge.Run.open({str(run)!r}).ship(...)"
    with (
        threads_of_run(settings, callback) as settings,
        explained_failures(folder.path, again),
        target.reading_images(),
        Journal.read(folder.journal) as journal,
    ):
        listed = listed_candidates(journal)
        if place is None or place >= len(listed):
            raise InputError(f"{run}: its journal doesn't hold the student's architecture; restore it from a copy")
        prepared, architecture = _prepared(folder, settings, journal, listed[place], callback, target)
        origin = _origin(folder, settings, journal, again, run.absolute(), place)
        begin(target, None)
        trained = Trained(architecture, DistillResult(model, (), 0, 0.0), 0.0)
        ship(target, settings, prepared, trained, origin, callback)
    return target


def _retrained(own: ir.Model, student: "nn.Module | Path") -> ir.Model:
    """Return the run's student with the weights of `student`; raises InputError where that is another network."""
    module = GraphModule(own)
    if isinstance(student, Path):
        given, where = GraphModule(load_model(student)).state_dict(), str(student)
    else:
        given, where = student.state_dict(), f"the module {type(student).__name__}"
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    differing = [
        name for name in (*expected, *given) if name not in given or expected.get(name) != tuple(given[name].shape)
    ]
    if differing:
        raise InputError(
            f"{where}: isn't the run's student, '{differing[0]}' differs; train what load_student(run.student) gives"
        )
    module.load_state_dict(given)
    return write_back(own, module)


def _left(
    folder: RunFolder,
    settings: CompressSettings,
    order: Order,
    target: RunFolder,
    out: Path | None,
    callback: RunCallback,
    started: float,
) -> _Left | None:
    run, number = folder.path, order.number
    with Journal.read(folder.journal) as journal:
        candidate = chosen(listed_candidates(journal), number, run)
        plan = begun(target, order)
        if plan is not None and finished_report(target) is not None:
            callback.on_message(f"candidate {number} of {run} has been shipped to {target.path}")
            return None
        prepared, architecture = _prepared(folder, settings, journal, candidate, callback, target)
        schedule = Schedule.of_journal(journal, settings) or Schedule("auto", DistillSettings.batch_size, 1)
        prepared = schedule.applied(prepared)
        if order.minutes is not None:
            schedule = with_tail(schedule, settings, prepared, order.minutes * 60)
            prepared = schedule.applied(prepared)
        if plan is None:
            left = None if order.minutes is None else order.minutes * 60 - (time.monotonic() - started)
            schedule = schedule if left is None else retimed(schedule, prepared)
            plan = final_plan(settings, prepared, architecture, journal, schedule, left)
            begin(target, order.to_toml(plan))
        origin = _origin(folder, settings, journal, order.command(out), order.run, number - 1)
    ends_at = None if order.minutes is None else started + order.minutes * 60
    return _Left(FinalTraining(prepared, architecture, plan, schedule, settings, target, ends_at), origin)


def _prepared(
    folder: RunFolder,
    settings: CompressSettings,
    journal: Journal,
    candidate: Trial,
    callback: RunCallback,
    target: RunFolder,
) -> tuple[Prepared, Architecture]:
    """Return what the run began with, unchanged since, and a candidate's architecture."""
    run, meta = folder.path, journal.meta()
    profiles = profiles_of_run(meta, run, settings.devices, settings.measured or (), settings.runtime)
    prepared = prepare(settings, profiles, folder, callback, target.cache)
    refuse_changes(meta, prepared, run)
    prepared = with_kept_order(prepared, journal)
    return prepared, _architecture(prepared.teacher, candidate, run)


def _origin(
    folder: RunFolder, settings: CompressSettings, journal: Journal, command: str, run: Path, place: int
) -> Origin:
    """Return where a student comes from that was chosen of `run`, its candidate at `place` (from nought)."""
    return Origin(
        command=command,
        objective=objective_of(journal.meta(), folder, settings),
        candidates=candidate_rows(journal),
        place=place,
        chosen={"run": str(run), "candidate": place + 1},
    )


def overridden(settings: CompressSettings, epochs: int | None, minutes: float | None) -> CompressSettings:
    """Return the settings of a run with these epochs or minutes, where they are given."""
    if epochs is not None:
        return replace(settings, epochs=epochs, minutes=minutes)
    return settings if minutes is None else replace(settings, epochs=None, minutes=minutes)


def chosen(listed: tuple[Trial, ...], number: int, run: Path) -> Trial:
    """Return a candidate of a run by its number; raises InputError where there is none, or it was never trained."""
    if not 1 <= number <= len(listed):
        there = f"candidates 1 to {len(listed)}" if listed else "no candidates yet"
        raise InputError(f"‹ship› {number}: {run} has {there}; see `n2n-edge pareto {run}`")
    candidate = listed[number - 1]
    if candidate.score is None:
        raise InputError(
            f"‹ship› {number}: this candidate missed a budget and was never trained; "
            + (
                f"choose one of `n2n-edge pareto {run} --all`"
                if any(each.score is not None for each in listed)
                else "none of this run met the budgets: start a new run that allows more"
            )
        )
    return candidate


def _architecture(teacher: Teacher, candidate: Trial, run: Path) -> Architecture:
    architecture = candidate.architecture
    try:
        return teacher.architecture(
            sorted(architecture.removed),
            dict(architecture.widths),
            sorted(architecture.int8),
            sorted(architecture.linear),
        )
    except ValueError as error:
        raise InputError(f"{run}: made by a version of n2n-edge that cuts otherwise ({error})") from error
