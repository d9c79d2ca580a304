"""Final distillation of one architecture: its number of epochs, and its training to the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.teacher import build, surviving
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.prepare import Prepared
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.search.store import Fact, Journal
from n2n_edge.training.distillation import DistillResult, distill
from n2n_edge.training.reconstruct import reconstructed
from n2n_edge.training.reports import EpochReport
from n2n_edge.training.teacher_outputs import affordable_epochs

__all__ = ["SEARCH_SHARE", "Trained", "epochs_in_words", "final_epochs", "train_to_the_end"]

SEARCH_SHARE = 0.4
"""Share of `--minutes` that the two stages may take; the rest is for the finalists and the final distillation."""


@dataclass(frozen=True)
class Trained:
    """An architecture after its final distillation of `seconds`."""

    architecture: Architecture
    result: DistillResult
    seconds: float


def final_epochs(
    settings: CompressSettings, prepared: Prepared, architecture: Architecture, journal: Journal, seconds: float | None
) -> int:
    """Return the epochs that settings ask for; where they limit minutes, those that fit into `seconds`.

    They are estimated from what the journal timed. Without `seconds` the winner's number is taken, which the journal
    keeps, or what fits into the share of `--minutes` that isn't the search's.
    """
    images = len(prepared.data.train)
    if settings.epochs is not None:
        return settings.epochs
    if settings.minutes is None:
        return settings.amount.epochs(images)
    if seconds is None:
        winner = journal.cached(Fact.FINAL, "epochs")
        if winner is not None:
            return int(winner["epochs"])
        seconds = (1 - SEARCH_SHARE) * settings.minutes * 60
    evaluated = journal.cached(Fact.SCORE, architecture.key) or {}
    teaching = journal.cached(Fact.FINAL, "teaching") or {}
    return affordable_epochs(
        replace(prepared.distilling, epochs=settings.amount.epochs(images)),
        images,
        seconds,
        float(evaluated.get("training_seconds", 1.0)) / settings.amount.short_images,
        float(teaching.get("seconds", 0.0)),
        float(teaching.get("bytes", 0.0)),
    )


def train_to_the_end(
    prepared: Prepared,
    architecture: Architecture,
    epochs: int,
    folder: RunFolder,
    callback: RunCallback,
    on_epoch: Callable[[EpochReport], None],
) -> Trained:
    """Refit and distil an architecture; a killed training goes on from its last epoch, kept in `folder`."""
    kept = surviving(prepared.teacher, architecture)
    student = reconstructed(
        build(prepared.teacher, architecture), prepared.teacher.model, prepared.data, prepared.distilling, kept
    )
    start = time.monotonic()
    result = distill(
        student,
        prepared.teacher.model,
        prepared.data,
        replace(prepared.distilling, epochs=epochs),
        kept=kept,
        checkpoint=folder.checkpoint,
        on_epoch=on_epoch,
        on_step=callback.on_step,
    )
    callback.on_message(_ending(result, epochs))
    spent = sum(report.seconds for report in result.history)
    return Trained(architecture, result, max(spent, time.monotonic() - start))


def _ending(result: DistillResult, epochs: int) -> str:
    """Return in words why training is over and what it leaves."""
    if result.best_epoch == 0:
        return f"training ended after all {epochs} epochs: none was better than the refitted student, which is kept"
    return (
        f"training ended after all {epochs} epochs: kept is epoch {result.best_epoch}, validation "
        f"{result.best_validation:.2%} (of equals the lowest loss)"
    )


def epochs_in_words(epochs: int, settings: CompressSettings, images: int) -> str:
    """Return the epochs of a training, and why they are fewer than the effort has where `--minutes` allows no more."""
    usual = settings.amount.epochs(images)
    shortened = settings.epochs is None and settings.minutes is not None and epochs < usual
    why = f" (as many as --minutes leaves time for; the effort has {usual})" if shortened else ""
    return f"{epochs} epochs{why} of {images} images"
