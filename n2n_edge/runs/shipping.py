"""Shipping of a student that a person chose: a candidate trained to the end, or one trained elsewhere."""

import shlex
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.reading import read_toml
from n2n_edge.report.candidates import find_winner
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.candidates import candidate_rows, listed_candidates
from n2n_edge.runs.devices import profiles_of_run
from n2n_edge.runs.document import Origin, read_report
from n2n_edge.runs.environment import explained_failures, threads_of_run
from n2n_edge.runs.final import FinalPlan, Trained, final_plan, plan_in_words, trained_within
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
from n2n_edge.writing import toml_value, write_text

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ship_candidate", "ship_trained"]

_BEGUN = "candidate.toml"
_TRAINED = "trained_"
"""Before the names of a plan's figures in that file."""


@dataclass(frozen=True)
class _Order:
    """What was asked: candidate `number` of a run, and what overrides the run's epochs or minutes."""

    run: Path
    number: int
    epochs: int | None
    minutes: float | None

    def to_toml(self, plan: FinalPlan) -> str:
        """Return the text of the file that marks a folder as this candidate's, which is trained by `plan`."""
        lines = [f"# a candidate of a run; `{self.command(None)}` goes on with it"]
        lines += [f"{name} = {toml_value(value)}" for name, value in self.asked().items()]
        lines += [f"{_TRAINED}{name} = {value}" for name, value in asdict(plan).items() if value is not None]
        return "\n".join(lines) + "\n"

    def asked(self) -> dict[str, object]:
        """Return what was asked as the file has it."""
        given = {"run": str(self.run), "candidate": self.number, "epochs": self.epochs, "minutes": self.minutes}
        return {name: value for name, value in given.items() if value is not None}

    def command(self, out: Path | None) -> str:
        """Return the command line that ships the same again."""
        words = ["n2n-edge", "pareto", shlex.quote(str(self.run)), "--ship", str(self.number)]
        for name, value in (("--epochs", self.epochs), ("--minutes", self.minutes)):
            words += [] if value is None else [name, f"{value:g}"]
        return " ".join(words if out is None else [*words, "--out", shlex.quote(str(out))])


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
    folder, settings = RunFolder.existing(run)
    settings = _overridden(settings, epochs, minutes)
    order = _Order(folder.path.absolute(), number, epochs, minutes)
    target = RunFolder(out if out is not None else folder.of_candidate(number))
    with (
        threads_of_run(settings, callback) as settings,
        explained_failures(folder.path, order.command(out)),
        target.reading_images(),
    ):
        _ship(folder, settings, order, target, out, callback)
    return target, settings


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
        _begin(target, None)
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


def _ship(
    folder: RunFolder,
    settings: CompressSettings,
    order: _Order,
    target: RunFolder,
    out: Path | None,
    callback: RunCallback,
) -> None:
    started = time.monotonic()
    run, number = folder.path, order.number
    with Journal.read(folder.journal) as journal:
        candidate = _chosen(listed_candidates(journal), number, run)
        plan = _begun(target, order)
        if plan is not None and finished_report(target) is not None:
            callback.on_message(f"candidate {number} of {run} has been shipped to {target.path}")
            return
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
            _begin(target, order.to_toml(plan))
        origin = _origin(folder, settings, journal, order.command(out), order.run, number - 1)
    advice = f"`{order.command(out)}` goes on from the last epoch; {STALL_VARIABLE} sets how long to wait"
    with (
        held(target.path / _BEGUN),
        watched(callback.on_message, advice),
        large_buffers_kept(),
        phase(f"final distillation of candidate {number}"),
    ):
        amount = plan_in_words(plan, settings, len(prepared.data.train))
        callback.on_message(f"training candidate {number} for {amount}")
        ends_at = None if order.minutes is None else started + order.minutes * 60
        trained, prepared, schedule = trained_within(
            prepared, architecture, plan, schedule, settings, target, callback, ends_at
        )
        ship(target, settings, prepared, trained, origin, callback, condition_images=schedule.condition_images)


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
    prepared = prepare(replace(settings, policy_from=None), profiles, folder, callback, target.cache)
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


def _overridden(settings: CompressSettings, epochs: int | None, minutes: float | None) -> CompressSettings:
    if epochs is not None:
        return replace(settings, epochs=epochs, minutes=minutes)
    return settings if minutes is None else replace(settings, epochs=None, minutes=minutes)


def _chosen(listed: tuple[Trial, ...], number: int, run: Path) -> Trial:
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


def _begun(target: RunFolder, order: _Order) -> FinalPlan | None:
    """Return the plan of this candidate's training where it was begun in `target`, None where that is still to do.

    Raises:
        InputError: something else lies there.
    """
    path = target.path
    mark = path / _BEGUN
    if not mark.exists():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} holds something else; give another ‹out›")
        return None
    try:
        known = read_toml(mark, wanted="what `pareto --ship` wrote")
        kept = {name: value for name, value in known.items() if name.startswith(_TRAINED)}
        plan = FinalPlan(**{name.removeprefix(_TRAINED): int(value) for name, value in kept.items()})
        begun = _Order(Path(known["run"]), known["candidate"], known.get("epochs"), known.get("minutes"))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{mark} can't be read ({error}); give another ‹out›") from error
    # the run may have moved since: which one it was stands in its journal, and its candidates have numbers
    if replace(begun, run=order.run) != order:
        raise InputError(f"{path} was begun by `{begun.command(None)}`; repeat that, or give another ‹out›")
    return plan


def _begin(target: RunFolder, text: str | None) -> None:
    try:
        target.path.mkdir(parents=True, exist_ok=True)
        if text is not None:
            write_text(target.path / _BEGUN, text)
    except OSError as error:
        raise InputError(f"{target.path} can't be written ({error.strerror}); give another ‹out›") from error


def _architecture(teacher: Teacher, candidate: Trial, run: Path) -> Architecture:
    chosen = candidate.architecture
    try:
        return teacher.architecture(
            sorted(chosen.removed), dict(chosen.widths), sorted(chosen.int8), sorted(chosen.linear)
        )
    except ValueError as error:
        raise InputError(f"{run}: made by a version of n2n-edge that cuts otherwise ({error})") from error
