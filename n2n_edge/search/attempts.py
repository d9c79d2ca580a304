"""Evaluations that were begun: one that ends the process is not begun for ever."""

from collections.abc import Iterator
from contextlib import contextmanager

from n2n_edge.search.journal import Journal

__all__ = ["Attempts", "note_crash"]

_KIND, _KEY = "evaluation", "begun"

_MOST_SILENT = 3
"""Times that the process may vanish in one evaluation, as with `kill -9` or for want of memory."""


class Attempts:
    """What the journal knows of evaluations that never ended."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def is_hopeless(self, kind: str, key: str) -> bool:
        """Tell whether this evaluation crashed or stalled, or ended the process too often without a word."""
        begun = self._journal.cached(_KIND, _KEY) or {}
        same = (begun.get("kind"), begun.get("key")) == (kind, key)
        return same and (bool(begun.get("crashed")) or int(begun.get("times", 0)) >= _MOST_SILENT)

    @contextmanager
    def attempt(self, kind: str, key: str) -> Iterator[None]:
        """Note that an evaluation is under way while in the block; only the end of the process leaves the note."""
        begun = self._journal.cached(_KIND, _KEY) or {}
        times = int(begun.get("times", 0)) if (begun.get("kind"), begun.get("key")) == (kind, key) else 0
        self._journal.store(_KIND, _KEY, {"kind": kind, "key": key, "times": times + 1})
        try:
            yield
        finally:
            self._journal.store(_KIND, _KEY, {})


def note_crash(journal: Journal) -> bool:
    """Note that the process crashed or stalled in what was under way; tell whether that was an evaluation."""
    begun = journal.cached(_KIND, _KEY)
    if not begun:
        return False
    journal.store(_KIND, _KEY, {**begun, "crashed": True})
    return True
