"""Runs that end early, for what a search's first candidates show already."""

from collections.abc import Sequence
from pathlib import Path

import pytest

import n2n_edge
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.search.store import Journal
from n2n_edge.search.trial import Trial

__all__ = ["begun"]


class StopError(Exception):
    """Stands for a kill."""


class Stopping(RunCallback):
    """Ends the run after its first candidate, or after its search: as soon as the winner is trained."""

    def __init__(self, searched: bool) -> None:
        self.searched = searched

    def on_trial(self, *_arguments: object, **_named: object) -> None:
        if not self.searched:
            raise StopError

    def on_step(self, *_arguments: object, **_named: object) -> None:
        raise StopError


def begun(out: Path, *, searched: bool = False, callbacks: Sequence[RunCallback] = (), **given: object) -> list[Trial]:
    """Begin a run, or go on with one, end it after a candidate or the search, and return its journal's candidates."""
    with pytest.raises(StopError):
        n2n_edge.compress(out=out, callbacks=[*callbacks, Stopping(searched)], **given)
    with Journal.read(out / "journal.sqlite") as journal:
        return list(journal.trials())
