"""Live view of a run on stderr: a panel on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from n2n_edge.cli.output import print_line
from n2n_edge.errors import as_options
from n2n_edge.metrics.costs import COSTS
from n2n_edge.metrics.scores import metric_label
from n2n_edge.runs.callbacks import RunCallback

if TYPE_CHECKING:
    from rich.table import Table

    from n2n_edge.cli.console import Console
    from n2n_edge.runs.settings import CompressSettings
    from n2n_edge.search.driver import Progress
    from n2n_edge.training.reports import EpochReport, StepReport

__all__ = ["live_view"]

_LINE_EVERY_S = 10.0
_NOTED_SHARE = 0.1
"""Part of the time that training may wait for images without a word."""


@contextmanager
def live_view(settings: "CompressSettings", as_json: bool) -> "Iterator[RunCallback]":
    """Give a callback that shows the run: a panel where stderr is a terminal, lines where it isn't."""
    from n2n_edge.cli.console import Console

    console = Console(stderr=True)
    if console.is_terminal and not as_json:
        from rich.live import Live

        panel = _Panel(settings, console)
        with Live(get_renderable=panel.render, console=console, refresh_per_second=4, transient=True):
            yield panel
    else:
        yield _Lines(settings)


class _State:
    """What both views know."""

    def __init__(self, settings: "CompressSettings") -> None:
        self.limits = {budget.cost: budget.limit for budget in settings.budgets if not COSTS[budget.cost].quality}
        self.seconds_per_candidate = 0.0
        self.trained = 0

    def eta(self, progress: "Progress") -> str:
        """Return the time that the rest of the stage will take, from the candidates trained so far."""
        if progress.trial.fresh:
            self.trained += 1
            self.seconds_per_candidate += (progress.seconds - self.seconds_per_candidate) / self.trained
        if not self.trained:
            return ""
        return duration(max(0, progress.total - progress.done) * self.seconds_per_candidate)

    def costs(self, progress: "Progress") -> str:
        """Return the best candidate's costs, each against its budget."""
        best = progress.best
        if best is None:
            return "none meets the budgets yet"
        known = best.costs.as_mapping()
        parts = []
        for cost, row in COSTS.items():
            if cost not in known or (self.limits and cost not in self.limits):
                continue
            limit = f" of {_short(self.limits[cost])}" if cost in self.limits else ""
            unit = "" if row.unit == row.short else f" {row.unit}"
            parts.append(f"{row.short} {_short(known[cost])}{limit}{unit}")
        return ", ".join(parts)


class _Part:
    """How a part of the run gets on: the reading of a folder, or the sensitivity profile."""

    def __init__(self) -> None:
        self.done = self.total = 0
        self._start = time.monotonic()

    def eta(self, done: int, total: int) -> str:
        """Take the progress, and return the time that the rest will take, if there is anything to tell it by."""
        if done == 0 or done < self.done:
            self._start = time.monotonic()
        self.done, self.total = done, total
        return duration((time.monotonic() - self._start) / done * (total - done)) if done else ""


class _Lines(RunCallback):
    """Plain lines: one when something new is known, at most one every ten seconds otherwise."""

    def __init__(self, settings: "CompressSettings") -> None:
        self._state = _State(settings)
        self._last = 0.0
        self._best: float | None = None
        self._stage = ""
        self._profile, self._scan = _Part(), _Part()

    def on_message(self, text: str) -> None:
        print_line(as_options(text), on_stderr=True)
        sys.stderr.flush()

    def on_scan(self, done: int, total: int) -> None:
        eta = self._scan.eta(done, total)
        now = time.monotonic()
        if not self._last:
            self._last = now  # a small folder needs no word
        elif now - self._last > _LINE_EVERY_S:
            self._last = now
            self.on_message(f"reading images {done:,}/{total:,}{f'; {eta} left' if eta and done < total else ''}")

    def on_probe(self, done: int, total: int) -> None:
        eta = self._profile.eta(done, total)
        now = time.monotonic()
        if done in (0, 1, total) or now - self._last > _LINE_EVERY_S:
            self._last = now
            self.on_message(f"sensitivity profile {done}/{total}{f'; {eta} left' if eta and done < total else ''}")

    def on_trial(self, progress: "Progress") -> None:
        eta = self._state.eta(progress)
        best = progress.best.reward if progress.best is not None else None
        new_best = best is not None and (self._best is None or best > self._best)
        over = progress.done >= progress.total
        now = time.monotonic()
        if not (new_best or over or progress.stage != self._stage or now - self._last > _LINE_EVERY_S):
            return
        self._last, self._stage = now, progress.stage
        score = "-"
        if progress.best is not None and progress.best.score is not None:
            self._best = best
            score = f"{progress.best.score:.1%}"
        self.on_message(
            f"{progress.stage} {progress.done}/{progress.total}: best reward {_short(best)}, "
            f"{metric_label(progress.metric)} {score}, {self._state.costs(progress)}"
            f"{f'; {eta} left' if eta and not over else ''}"
        )

    def on_step(self, report: "StepReport") -> None:
        now = time.monotonic()
        if now - self._last > 3 * _LINE_EVERY_S:
            self._last = now
            self.on_message(
                f"training epoch {report.epoch}/{report.epochs}, step {report.step}/{report.steps}, "
                f"{_speed(report)}; {duration(report.eta_s)} left"
            )

    def on_epoch(self, report: "EpochReport") -> None:
        self.on_message(report.in_words)


class _Panel(RunCallback):
    """The live panel: stage, candidates done, best so far, costs against budgets, time left."""

    def __init__(self, settings: "CompressSettings", console: "Console") -> None:
        self._state = _State(settings)
        self._console = console
        self._progress: Progress | None = None
        self._eta = ""
        self._step: StepReport | None = None
        self._profile, self._scan = _Part(), _Part()
        self._epochs: list[EpochReport] = []

    def on_message(self, text: str) -> None:
        self._console.print(as_options(text), highlight=False)

    def on_scan(self, done: int, total: int) -> None:
        self._eta = self._scan.eta(done, total)

    def on_probe(self, done: int, total: int) -> None:
        self._eta = self._profile.eta(done, total)

    def on_trial(self, progress: "Progress") -> None:
        self._eta = self._state.eta(progress)
        self._progress = progress

    def on_step(self, report: "StepReport") -> None:
        self._step = report

    def on_epoch(self, report: "EpochReport") -> None:
        if self._epochs and report.epoch <= self._epochs[-1].epoch:  # another training has begun
            self._epochs = []
        self._epochs.append(report)

    def render(self) -> "Table":
        """Return what the panel shows now."""
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        if self._step is not None or self._epochs:
            self._training(table)
        elif self._progress is not None:
            self._search(table, self._progress)
        elif self._profile.total:
            self._profiling(table)
        elif self._scan.done < self._scan.total:
            self._scanning(table)
        return table

    def _scanning(self, table: "Table") -> None:
        from rich.progress_bar import ProgressBar

        scan = self._scan
        table.add_row("[bold]reading images[/bold]", ProgressBar(scan.total, scan.done, width=40))
        table.add_row("files", f"{scan.done:,} of {scan.total:,}{f'; {self._eta} left' if self._eta else ''}")

    def _profiling(self, table: "Table") -> None:
        from rich.progress_bar import ProgressBar

        profile = self._profile
        table.add_row("[bold]sensitivity profile[/bold]", ProgressBar(profile.total, profile.done, width=40))
        left = f"; {self._eta} left" if self._eta else ""
        table.add_row("parts", f"{profile.done} of {profile.total}, each cut alone and refitted{left}")

    def _search(self, table: "Table", progress: "Progress") -> None:
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        table.add_row(Text(progress.stage, style="bold"), ProgressBar(progress.total, progress.done, width=40))
        table.add_row(
            "candidates",
            f"{progress.done} of {progress.total}; {self._eta} left"
            if self._eta
            else f"{progress.done} of {progress.total}",
        )
        best = progress.best
        if best is not None and best.score is not None:
            score = f"{metric_label(progress.metric)} {best.score:.1%}"
            table.add_row("best", f"reward {best.reward:.4f}, {score} after a short distillation")
        table.add_row("costs", self._state.costs(progress))
        if progress.entropy is not None:
            table.add_row("policy", f"entropy {progress.entropy:.2f} (1 undecided, 0 settled)")

    def _training(self, table: "Table") -> None:
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        step = self._step
        if step is not None:
            done = (step.epoch - 1) * step.steps + step.step
            table.add_row(Text("training", style="bold"), ProgressBar(step.epochs * step.steps, done, width=40))
            table.add_row("epoch", f"{step.epoch} of {step.epochs}; {_speed(step)}; {duration(step.eta_s)} left")
        if self._epochs:
            best = max(self._epochs, key=lambda report: report.validation)
            table.add_row("best", f"validation {best.validation:.2%} after epoch {best.epoch}")


def _speed(report: "StepReport") -> str:
    """Return images per second, and what they wait for where that is the loader."""
    waiting = report.loader_share > _NOTED_SHARE
    told = f", {report.loader_share:.0%} of the time waiting for images" if waiting else ""
    return f"{report.images_per_s:.0f} images/s{told}"


def duration(seconds: float) -> str:
    """Return ``45 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"
