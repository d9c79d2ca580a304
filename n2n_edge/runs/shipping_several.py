"""Shipping of several candidates of a run: trained side by side on workers, or one after the other, each by itself."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from n2n_edge.cluster.losses import lacks_memory
from n2n_edge.errors import InputError, N2NError, UnsuitableEnvironmentError, message_of
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.candidate_order import Order, begun
from n2n_edge.runs.candidates import listed_candidates
from n2n_edge.runs.environment import threads_of_run
from n2n_edge.runs.folder import RunFolder, finished_report
from n2n_edge.runs.schedule import Schedule
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.shipping import chosen, overridden, ship_candidate, train_candidate
from n2n_edge.runs.workers import check_workers, evaluations_of, on_workers
from n2n_edge.search.evaluations import Evaluations, Outcome, Pending, Request
from n2n_edge.search.store import Journal
from n2n_edge.training.compute import chosen_device
from n2n_edge.training.reports import EpochReport

if TYPE_CHECKING:
    from n2n_edge.runs.run import Run

__all__ = ["NotShippedError", "Shipped", "ship_candidates"]


class NotShippedError(N2NError):
    """Some of several candidates weren't shipped: `errors` by their numbers; `shipped` are the runs of the others.

    `exit_code` is the highest of those of the errors.
    """

    def __init__(self, errors: "Mapping[int, N2NError]", shipped: "Mapping[int, Run]") -> None:
        super().__init__("; ".join(f"candidate {number}: {error.text}" for number, error in errors.items()))
        self.errors, self.shipped = dict(errors), dict(shipped)
        self.exit_code = max(error.exit_code for error in errors.values())


@dataclass(frozen=True)
class Shipped:
    """What became of a candidate: it is in `folder` with its `settings`, or there is an `error`."""

    number: int
    folder: RunFolder
    settings: CompressSettings | None = None
    error: N2NError | None = None


@dataclass(frozen=True)
class _Training:
    """Final training of one candidate, which reads and writes the run's folder wherever it is done."""

    run: Path
    number: int
    out: Path | None
    epochs: int | None
    minutes: float | None

    @property
    def order(self) -> Order:
        return Order(self.run.absolute(), self.number, self.epochs, self.minutes)

    @property
    def target(self) -> RunFolder:
        return RunFolder(RunFolder(self.run).of_candidate(self.number) if self.out is None else self.out)

    @property
    def shipped(self) -> bool:
        """Whether there is nothing left to do; raises InputError where something else is in the candidate's folder."""
        return begun(self.target, self.order) is not None and finished_report(self.target) is not None

    def shipping(self, callback: RunCallback) -> Shipped:
        """Ship it, trained or not; what can be wrong with one candidate alone is an error that is given back."""
        try:
            folder, settings = ship_candidate(
                self.run, self.number, out=self.out, epochs=self.epochs, minutes=self.minutes, callback=callback
            )
        except (N2NError, RuntimeError, MemoryError) as error:
            return Shipped(self.number, self.target, error=_as_line(error))
        return Shipped(self.number, folder, settings)

    def evaluated(self, distiller: None, tell: Callable[[str], None]) -> "_TrainingOutcome":
        """Train it, in whatever process this is; want of memory is raised, to be tried again elsewhere."""
        if not self.run.is_dir():
            return _TrainingOutcome(
                error=UnsuitableEnvironmentError(
                    f"{platform.node()} has no {self.run}: a final training reads and writes the run's folder, so "
                    "every node needs that, the teacher and the data under the same paths (a shared file system)"
                )
            )
        try:
            train_candidate(
                self.run, self.number, out=self.out, epochs=self.epochs, minutes=self.minutes, callback=_Epochs(tell)
            )
        except Exception as error:
            if lacks_memory(error):
                raise
            return _TrainingOutcome(error=_as_line(error))
        return _TrainingOutcome()


@dataclass(frozen=True)
class _TrainingOutcome(Outcome):
    """What became of a final training; with an `error` another try would end the same."""

    error: N2NError | None = None


class _Epochs(RunCallback):
    """Tells of epochs; everything else is told where the candidate is shipped."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def on_epoch(self, report: EpochReport) -> None:
        self._tell(report.in_words)


def ship_candidates(
    run: Path,
    numbers: Sequence[int],
    *,
    out: Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    callback: RunCallback,
) -> tuple[Shipped, ...]:
    """Train candidates of the run in folder `run` to the end, and ship each as `ship_candidate` does.

    Each goes into its ``candidate-N`` in the run's folder, or in `out`. With `workers` or a `cluster` they are trained
    side by side, one on each worker; when all are, each is written, timed and tested here, beside nothing else. Where
    one fails the others go on. Students are the same in either way, and what was begun goes on in either.

    Raises:
        InputError: no such run, a candidate that isn't there, was never trained or is given twice, a folder that holds
            something else. Nothing is begun then.
        UnsuitableEnvironmentError: Ray isn't installed, can't be reached, or is lost meanwhile.
    """
    folder, settings = RunFolder.existing(run)
    settings = replace(overridden(settings, epochs, minutes), workers=workers, cluster=cluster)
    _check_numbers(numbers)
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{out} is no folder, and several candidates go into folders of their own in it; give another")
    with Journal.read(folder.journal) as journal:
        listed = listed_candidates(journal)
        schedule = Schedule.of_journal(journal, settings)
    trainings = []
    for number in numbers:
        chosen(listed, number, folder.path)
        own = None if out is None else out / folder.of_candidate(number).name
        trainings.append(_Training(run.absolute(), number, own, epochs, minutes))
    left = [training for training in trainings if not training.shipped]
    failed: Mapping[int, N2NError] = {}
    if left and on_workers(settings):
        if (settings.gpus or 1) > 1:
            asked = f"‹workers› {workers}" if cluster is None else f"‹cluster› {cluster}"
            raise InputError(f"{asked}: each final training of this run takes {settings.gpus} GPUs; leave it out")
        check_workers(settings)
        gpu = chosen_device(settings.train_device if schedule is None else schedule.device).type == "cuda"
        at_once = len(left) if workers is None else min(workers, len(left))
        with threads_of_run(replace(settings, workers=at_once, cluster=cluster or "local"), callback) as settings:
            again = "give the same command again, which goes on from the last epochs"
            with evaluations_of(settings, gpu=gpu, tell=callback.on_message, way_on=again) as evaluations:
                failed = _trained_side_by_side(left, evaluations, callback)
    found = []
    for place, training in enumerate(trainings, 1):
        error = failed.get(training.number)
        if error is None:
            callback.on_message(f"candidate {training.number}, {place} of {len(trainings)}")
            found.append(training.shipping(callback))
            if (error := found[-1].error) is not None:
                _tell_failure(training, error, callback)
        else:
            found.append(Shipped(training.number, training.target, error=error))
    return tuple(found)


def _check_numbers(numbers: Sequence[int]) -> None:
    if not numbers:
        raise InputError("‹ship›: no candidate is given; give numbers such as 3,5")
    for place, number in enumerate(numbers):
        if not isinstance(number, int) or isinstance(number, bool):
            raise InputError(f"‹ship› {number!r}: is no number of a candidate; give such as 3")
        if number in numbers[:place]:
            raise InputError(f"‹ship› {','.join(map(str, numbers))}: candidate {number} is given twice; give it once")


def _trained_side_by_side(
    trainings: Sequence[_Training], evaluations: Evaluations, callback: RunCallback
) -> dict[int, N2NError]:
    """Train all of them, and return what went wrong with which."""
    under_way: dict[int, tuple[_Training, Pending]] = {}
    for training in trainings:
        what = f"candidate {training.number}"
        request = Request("final", str(training.number), None, lambda own=training: own, (what,))  # type: ignore[misc]
        under_way[training.number] = training, evaluations.begin(request)
    failed: dict[int, N2NError] = {}
    while under_way:
        evaluations.wait()
        for number, (training, pending) in list(under_way.items()):
            if pending.outcome is None:
                continue
            del under_way[number]
            error = _error_of(pending.outcome, training)
            if error is None:
                callback.on_message(f"candidate {number}: trained, {len(under_way)} more under way")
            else:
                failed[number] = error
                _tell_failure(training, error, callback)
    return failed


def _error_of(outcome: Outcome, training: _Training) -> N2NError | None:
    if outcome.failed is not None:
        return UnsuitableEnvironmentError(outcome.failed)
    if isinstance(outcome, _TrainingOutcome) and outcome.error is not None:
        return outcome.error
    if not training.target.checkpoint.exists():
        return UnsuitableEnvironmentError(
            f"it was trained elsewhere, and nothing of it has come to {training.target.path}: every node needs the "
            "run's folder under the same path (a shared file system)"
        )
    return None


def _tell_failure(training: _Training, error: N2NError, callback: RunCallback) -> None:
    callback.on_message(f"candidate {training.number}: not shipped, {error.text}")


def _as_line(error: Exception) -> N2NError:
    if isinstance(error, N2NError):
        return error
    if lacks_memory(error):
        return UnsuitableEnvironmentError(f"there is too little memory for its training ({message_of(error)})")
    return UnsuitableEnvironmentError(f"unexpected {type(error).__name__}: {message_of(error) or 'no message'}")
