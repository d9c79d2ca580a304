"""Ship a candidate that a person chose: trained to the end as the run's winner is, without searching again."""

import shlex
import time
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from n2n_edge.errors import InputError
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.teacher import Teacher
from n2n_edge.runs.candidates import candidate_rows, listed_candidates
from n2n_edge.runs.devices import journalled_profiles, load_profiles
from n2n_edge.runs.document import Origin, verdicts_of
from n2n_edge.runs.failures import explained_failures
from n2n_edge.runs.final import SEARCH_SHARE, epochs_in_words, epochs_within, train_to_the_end
from n2n_edge.runs.finish import CompressResult, ship
from n2n_edge.runs.finished import finished_report
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.front import objective_of
from n2n_edge.runs.observer import Observer, SilentObserver
from n2n_edge.runs.prepare import Prepared, prepare, refuse_changed_data
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.threads import threads_of_run
from n2n_edge.search.store import Fact, Journal
from n2n_edge.search.store_files import held
from n2n_edge.search.trial import Trial
from n2n_edge.training.allocator import large_buffers_kept
from n2n_edge.watchdog import STALL_VARIABLE, phase, watched
from n2n_edge.writing import toml_value, write_text

__all__ = ["ship_candidate"]

_BEGUN = "candidate.toml"


@dataclass(frozen=True)
class _Order:
    """What was asked: candidate `number` of a run, and what overrides the run's epochs or minutes."""

    run: Path
    number: int
    epochs: int | None
    minutes: float | None

    def to_toml(self, epochs: int) -> str:
        """Return the text of the file that marks a folder as this candidate's; it is trained for `epochs`."""
        lines = [f"# a candidate of a run; `{self.command(None)}` goes on with it"]
        lines += [f"{name} = {toml_value(value)}" for name, value in self.asked().items()]
        return "\n".join([*lines, f"trained_epochs = {epochs}"]) + "\n"

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
    observer: Observer | None = None,
) -> CompressResult:
    """Train candidate `number` (from one) of the run in folder `run` to the end, and ship it.

    It goes into ``candidate-N`` in the run's folder, or into `out`; nothing of the run is touched. `epochs` and
    `minutes` override the run's. A training that was killed goes on from its last epoch when the same is asked again.

    Raises:
        InputError: no such run or candidate, one that was never trained, a teacher that has changed since, or a folder
            that holds something else.
        UnsuitableEnvironmentError: the exported file isn't what was trained.
    """
    observer = observer or SilentObserver()
    folder, settings = RunFolder.existing(run)
    settings = _overridden(settings, epochs, minutes)
    order = _Order(folder.path.absolute(), number, epochs, minutes)
    target = RunFolder(out if out is not None else folder.of_candidate(number))
    with threads_of_run(settings, observer) as settings, explained_failures(folder.path, order.command(out)):
        return _ship(folder, settings, order, target, out, observer)


def _ship(
    folder: RunFolder,
    settings: CompressSettings,
    order: _Order,
    target: RunFolder,
    out: Path | None,
    observer: Observer,
) -> CompressResult:
    started = time.monotonic()
    run, number = folder.path, order.number
    with Journal.read(folder.journal) as journal:
        candidate = _chosen(listed_candidates(journal), number, run)
        known = _begun(target, order)
        report = None if known is None else finished_report(target)
        if report is not None:
            observer.say(f"candidate {number} of {run} has been shipped to {target.path}")
            return CompressResult(target.path, target.student, report, verdicts_of(report))
        meta = journal.meta()
        profiles = journalled_profiles(meta, run) or load_profiles(settings.devices)
        prepared = prepare(replace(settings, policy_from=None), profiles, folder, observer)
        if meta.get("teacher_sha256") != prepared.teacher_sha256:
            raise InputError(f"{run}: the teacher has changed since this run; its candidates can't be made any more")
        refuse_changed_data(meta, prepared, str(run))
        architecture = _architecture(prepared.teacher, candidate, run)
        if known is None:
            known = _epochs(settings, prepared, architecture, journal, order.minutes, started)
            _begin(target, order.to_toml(known))
        origin = Origin(
            command=order.command(out),
            objective=objective_of(meta, folder, settings),
            candidates=candidate_rows(journal),
            place=number - 1,
            chosen={"run": str(order.run), "candidate": number},
        )
    advice = f"`{order.command(out)}` goes on from the last epoch; {STALL_VARIABLE} sets how long to wait"
    with (
        held(target.path / _BEGUN),
        watched(observer.say, advice),
        large_buffers_kept(),
        phase(f"final distillation of candidate {number}"),
    ):
        amount = epochs_in_words(known, settings, len(prepared.data.train))
        observer.say(f"training candidate {number} for {amount}")
        trained = train_to_the_end(prepared, architecture, known, target, observer, observer.epoch)
        return ship(target, settings, prepared, trained, origin, observer)


def _overridden(settings: CompressSettings, epochs: int | None, minutes: float | None) -> CompressSettings:
    if epochs is not None:
        return replace(settings, epochs=epochs, minutes=minutes)
    return settings if minutes is None else replace(settings, epochs=None, minutes=minutes)


def _chosen(listed: tuple[Trial, ...], number: int, run: Path) -> Trial:
    if not 1 <= number <= len(listed):
        there = f"candidates 1 to {len(listed)}" if listed else "no candidates yet"
        raise InputError(f"--ship {number}: {run} has {there}; see `n2n-edge pareto {run}`")
    candidate = listed[number - 1]
    if candidate.score is None:
        raise InputError(
            f"--ship {number}: this candidate missed a budget and was never trained; "
            + (
                f"choose one of `n2n-edge pareto {run} --all`"
                if any(each.score is not None for each in listed)
                else "none of this run met the budgets: start a new run that allows more"
            )
        )
    return candidate


def _begun(target: RunFolder, order: _Order) -> int | None:
    """Return the epochs of this candidate's training where it was begun in `target`, None where that is still to do.

    Raises:
        InputError: something else lies there.
    """
    path = target.path
    mark = path / _BEGUN
    if not mark.exists():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} holds something else; give another --out")
        return None
    try:
        known = tomllib.loads(mark.read_text(encoding="utf-8"))
        epochs = int(known.pop("trained_epochs"))
        begun = _Order(Path(known["run"]), known["candidate"], known.get("epochs"), known.get("minutes"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{mark} can't be read ({error}); give another --out") from error
    # the run may have moved since: which one it was stands in its journal, and its candidates have numbers
    if replace(begun, run=order.run) != order:
        raise InputError(f"{path} was begun by `{begun.command(None)}`; repeat that, or give another --out")
    return epochs


def _begin(target: RunFolder, text: str) -> None:
    try:
        target.path.mkdir(parents=True, exist_ok=True)
        write_text(target.path / _BEGUN, text)
    except OSError as error:
        raise InputError(f"{target.path} can't be written ({error.strerror}); give another --out") from error


def _architecture(teacher: Teacher, candidate: Trial, run: Path) -> Architecture:
    """Return the architecture that a row of the journal describes."""
    removed, widths = sorted(candidate.architecture.removed), dict(candidate.architecture.widths)
    try:
        return teacher.architecture(removed, widths)
    except ValueError as error:
        raise InputError(f"{run}: made by a version of n2n-edge that cuts otherwise ({error})") from error


def _epochs(
    settings: CompressSettings,
    prepared: Prepared,
    architecture: Architecture,
    journal: Journal,
    minutes: float | None,
    started: float,
) -> int:
    """Return the epochs: those given, those that fit into `minutes`, or as many as the run's winner got."""
    if settings.epochs is not None:
        return settings.epochs
    if settings.minutes is None:
        return settings.amount.epochs(len(prepared.data.train))
    if minutes is not None:
        return epochs_within(minutes * 60 - (time.monotonic() - started), settings, prepared, architecture, journal)
    known = journal.cached(Fact.FINAL, "epochs")
    if known is not None:
        return int(known["epochs"])
    return epochs_within((1 - SEARCH_SHARE) * settings.minutes * 60, settings, prepared, architecture, journal)
