"""Callbacks of a run: the base class, several as one, and the writer of TensorBoard's event files."""

import math
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.runs.settings import CompressSettings

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    from n2n_edge.search.driver import Progress
    from n2n_edge.training.reports import EpochReport, StepReport

__all__ = ["Callbacks", "RunCallback", "TensorBoardCallback", "require_tensorboard", "tensorboard_callbacks"]

_HINT = (
    "‹tensorboard› needs the package tensorboardX, which is not installed; "
    'run: pip install "n2n-edge[tensorboard]", or leave it out'
)
_LENGTH, _CHECKSUM = 8, 4
"""Bytes of a record before and after its content: length and checksum, content, checksum (TFRecord)."""


class RunCallback:
    """Base class of what follows a run: every method does nothing unless a subclass says otherwise.

    An error that a method raises ends the run, which can be resumed.

    >>> from n2n_edge import RunCallback
    >>> class Losses(RunCallback):
    ...     def on_epoch(self, report):
    ...         print(report.epoch, report.train_loss)
    >>> callbacks = [Losses()]  # n2n_edge.compress(..., callbacks=callbacks)
    """

    def on_message(self, text: str) -> None:
        """Take one line about what happens now."""

    def on_scan(self, done: int, total: int) -> None:
        """Take the progress of reading a folder of images: so many of its files have been opened, or decoded."""

    def on_probe(self, done: int, total: int) -> None:
        """Take the progress of the sensitivity profile: so many of its parts are done."""

    def on_trial(self, progress: "Progress") -> None:
        """Take a trial that was evaluated, with the best so far."""

    def on_step(self, report: "StepReport") -> None:
        """Take a step of the final distillation."""

    def on_epoch(self, report: "EpochReport") -> None:
        """Take a finished epoch of the final distillation."""

    def on_end(self) -> None:
        """Take the end of the run, finished or not."""


class Callbacks(RunCallback):
    """Several callbacks as one, told in the order given."""

    def __init__(self, callbacks: Sequence[RunCallback]) -> None:
        self._callbacks = tuple(callbacks)

    def on_message(self, text: str) -> None:
        """Pass on the line."""
        for callback in self._callbacks:
            callback.on_message(text)

    def on_scan(self, done: int, total: int) -> None:
        """Pass on the progress."""
        for callback in self._callbacks:
            callback.on_scan(done, total)

    def on_probe(self, done: int, total: int) -> None:
        """Pass on the progress."""
        for callback in self._callbacks:
            callback.on_probe(done, total)

    def on_trial(self, progress: "Progress") -> None:
        """Pass on the trial."""
        for callback in self._callbacks:
            callback.on_trial(progress)

    def on_step(self, report: "StepReport") -> None:
        """Pass on the step."""
        for callback in self._callbacks:
            callback.on_step(report)

    def on_epoch(self, report: "EpochReport") -> None:
        """Pass on the epoch."""
        for callback in self._callbacks:
            callback.on_epoch(report)

    def on_end(self) -> None:
        """Pass on the end."""
        for callback in self._callbacks:
            callback.on_end()


def require_tensorboard() -> None:
    """Raise UnsuitableEnvironmentError, saying what to install, where the extra ``[tensorboard]`` is missing."""
    if find_spec("tensorboardX") is None:
        raise UnsuitableEnvironmentError(_HINT)


def tensorboard_callbacks(
    folder: Path, settings: CompressSettings, wanted: bool, others: Sequence[RunCallback] = ()
) -> tuple[RunCallback, ...]:
    """Return `others` and, if `wanted` or if a resumed run has event files in `folder`, what writes these.

    Raises:
        UnsuitableEnvironmentError: they are wanted, and the package is missing.
    """
    if wanted:
        require_tensorboard()
    elif not folder.exists():
        return tuple(others)
    elif find_spec("tensorboardX") is None:
        for other in others:
            other.on_message(f"{folder} isn't gone on with: tensorboardX is not installed")
        return tuple(others)
    return (*others, TensorBoardCallback(folder, settings))


class TensorBoardCallback(RunCallback):
    """Writes curves: a step is a candidate, counted over both stages, or an epoch of the final distillation.

    A resumed run goes through its candidates again; what the folder's files hold already isn't written twice. Nothing
    is made before there is something to write.
    """

    def __init__(self, folder: Path, settings: CompressSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._file: _EventFile | None = None
        self._written: set[tuple[str, int]] = set()
        self._candidates = 0

    def on_trial(self, progress: "Progress") -> None:
        """Write reward, score, costs and entropy of a candidate."""
        self._candidates += 1
        trial, best = progress.trial, progress.best
        costs = trial.costs.as_mapping()
        costs.pop("latency_ms", None)
        values: dict[str, float | None] = {
            "reward": trial.reward,
            "best_reward": None if best is None else best.reward,
            progress.metric: trial.score,
            "entropy": progress.entropy,
            **costs,
            **{f"latency_ms/{device}": figure.value for device, figure in trial.costs.latencies.items()},
        }
        self._write(self._candidates, {f"{progress.stage}/{name}": value for name, value in values.items()})

    def on_epoch(self, report: "EpochReport") -> None:
        """Write loss, validation and learning rate of an epoch."""
        values = {"loss": report.train_loss, "validation": report.validation, "learning_rate": report.learning_rate}
        self._write(report.epoch, {f"training/{name}": value for name, value in values.items()})

    def on_end(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, step: int, values: Mapping[str, float | None]) -> None:
        if self._file is None and not self._written:
            self._written = _written_steps(self._folder)
        fresh = {
            name: value
            for name, value in values.items()
            if value is not None and math.isfinite(value) and (name, step) not in self._written
        }
        if not fresh:
            return
        if self._file is None:
            self._file = _EventFile(self._folder)
            if not self._written:
                self._file.text("settings", _settings_table(self._settings))
        self._written.update((name, step) for name in fresh)
        self._file.scalars(fresh, step)


def _settings_table(settings: CompressSettings) -> str:
    """Return the settings that were given as a Markdown table."""
    rows = [(name, value) for name, value in asdict(settings).items() if value is not None]
    lines = ["| setting | value |", "| --- | --- |"]
    for name, value in rows:
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        lines.append(f"| {name} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


class _EventFile:
    """A new event file in a folder; every call has reached the disk when it returns."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.tfevents.*")))  # two files of one second get names of their own
        self._writer = EventsWriter(str(folder.absolute() / "events"), f".{number}")

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add one point to each of the curves in `values`."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(scalar(name, value), step)
        self._writer.flush()

    def text(self, name: str, text: str) -> None:
        """Add a text in Markdown."""
        from tensorboardX import summary

        self._add(summary.text(name, text), 0)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _add(self, summary: "Summary", step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))


def _written_steps(folder: Path) -> set[tuple[str, int]]:
    """Return every name and step that the event files of `folder` hold; what a kill cut off doesn't count."""
    return {
        (str(value.tag), int(event.step))
        for path in sorted(folder.glob("*.tfevents.*"))
        for event in _events(path)
        for value in event.summary.value
    }


def _events(path: Path) -> "Iterator[Event]":
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboardX.proto.event_pb2 import Event

    content = path.read_bytes()
    position = 0
    while position + _LENGTH + _CHECKSUM <= len(content):
        (length,) = struct.unpack("<Q", content[position : position + _LENGTH])
        start = position + _LENGTH + _CHECKSUM
        position = start + length + _CHECKSUM
        if position > len(content):
            return
        try:
            yield Event.FromString(content[start : start + length])
        except DecodeError:
            return
