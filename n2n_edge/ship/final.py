"""The final distillation of one architecture: how many epochs it gets, and its training to the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from n2n_edge.distill import DistillResult, EpochReport, affordable_epochs, distill, reconstructed
from n2n_edge.graph import Architecture, build, surviving
from n2n_edge.search import Journal
from n2n_edge.ship.folder import RunFolder
from n2n_edge.ship.observer import Observer
from n2n_edge.ship.prepare import Prepared
from n2n_edge.ship.settings import CompressSettings

__all__ = ["SEARCH_SHARE", "Trained", "epochs_within", "train_to_the_end"]

SEARCH_SHARE = 0.4
"""Share of `--minutes` that the two stages may take; the rest is for the finalists and the final distillation."""


@dataclass(frozen=True)
class Trained:
    """An architecture after its final distillation of `seconds`."""

    architecture: Architecture
    result: DistillResult
    seconds: float


def epochs_within(
    seconds: float, settings: CompressSettings, prepared: Prepared, architecture: Architecture, journal: Journal
) -> int:
    """Return the epochs that fit into `seconds`, at most those of the effort, from what the journal timed so far."""
    images = len(prepared.data.train)
    judged = journal.cached("accuracy", architecture.key) or {}
    teaching = journal.cached("final", "teaching") or {}
    return affordable_epochs(
        replace(prepared.distilling, epochs=settings.amount.epochs(images)),
        images,
        seconds,
        float(judged.get("training_seconds", 1.0)) / settings.amount.short_images,
        float(teaching.get("seconds", 0.0)),
        float(teaching.get("bytes", 0.0)),
    )


def train_to_the_end(
    prepared: Prepared,
    architecture: Architecture,
    epochs: int,
    folder: RunFolder,
    observer: Observer,
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
        replace(prepared.distilling, epochs=epochs, patience=max(10, epochs // 2)),
        kept=kept,
        checkpoint=folder.checkpoint,
        on_epoch=on_epoch,
        on_step=observer.step,
    )
    spent = sum(report.seconds for report in result.history)
    return Trained(architecture, result, max(spent, time.monotonic() - start))
