"""A run's curves as TensorBoard event files."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.runs.event_files import EventFile, written_steps
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.observer import Observer, Observers
from n2n_edge.runs.settings import CompressSettings

if TYPE_CHECKING:
    from n2n_edge.search.driver import Progress
    from n2n_edge.training.reports import EpochReport, StepReport

__all__ = ["TensorBoardObserver", "require_tensorboard", "with_tensorboard"]

_HINT = (
    "--tensorboard needs the package tensorboardX, which is not installed; "
    'run: pip install "n2n-edge[tensorboard]", or leave it out'
)


def require_tensorboard() -> None:
    """Raise UnsuitableEnvironmentError, saying what to install, where the extra ``[tensorboard]`` is missing."""
    if find_spec("tensorboardX") is None:
        raise UnsuitableEnvironmentError(_HINT)


@contextmanager
def with_tensorboard(
    folder: RunFolder, settings: CompressSettings, observer: Observer, wanted: bool
) -> Iterator[Observer]:
    """Give `observer`, joined by one that writes event files if that is `wanted`, or if a resumed run has some.

    Raises:
        UnsuitableEnvironmentError: they are wanted, and the package is missing.
    """
    if wanted:
        require_tensorboard()
    elif not folder.tensorboard.exists():
        yield observer
        return
    elif find_spec("tensorboardX") is None:
        observer.say(f"{folder.tensorboard} isn't gone on with: tensorboardX is not installed")
        yield observer
        return
    board = TensorBoardObserver(folder.tensorboard, settings)
    try:
        yield Observers(observer, board)
    finally:
        board.close()


class TensorBoardObserver:
    """Writes curves: a step is a candidate, counted over both stages, or an epoch of the final distillation.

    A resumed run goes through its candidates again; what the folder's files hold already isn't written twice. Nothing
    is made before there is something to write.
    """

    def __init__(self, folder: Path, settings: CompressSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._file: EventFile | None = None
        self._written: set[tuple[str, int]] = set()
        self._candidates = 0

    def say(self, text: str) -> None:
        """Ignore the line: it is no curve."""

    def probe(self, done: int, total: int) -> None:
        """Ignore the progress: there is nothing to draw yet."""

    def candidate(self, progress: "Progress") -> None:
        """Write reward, accuracy, costs and entropy of a candidate."""
        self._candidates += 1
        trial, best = progress.trial, progress.best
        costs = trial.costs.as_mapping()
        costs.pop("latency_ms", None)
        values: dict[str, float | None] = {
            "reward": trial.reward,
            "best_reward": None if best is None else best.reward,
            "accuracy": trial.score,
            "entropy": progress.entropy,
            **costs,
            **{f"latency_ms/{device}": figure.value for device, figure in trial.costs.latencies.items()},
        }
        self._write(self._candidates, {f"{progress.stage}/{name}": value for name, value in values.items()})

    def step(self, report: "StepReport") -> None:
        """Ignore the step: curves are by epoch."""

    def epoch(self, report: "EpochReport") -> None:
        """Write loss, validation and learning rate of an epoch."""
        values = {"loss": report.train_loss, "validation": report.validation, "learning_rate": report.learning_rate}
        self._write(report.epoch, {f"training/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, step: int, values: Mapping[str, float | None]) -> None:
        if self._file is None and not self._written:
            self._written = written_steps(self._folder)
        fresh = {
            name: value
            for name, value in values.items()
            if value is not None and math.isfinite(value) and (name, step) not in self._written
        }
        if not fresh:
            return
        if self._file is None:
            self._file = EventFile(self._folder)
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
