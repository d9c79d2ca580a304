"""Notes in the journal of evaluations under way in the run's own process: one that ends it is not begun for ever."""

from typing import Any

from n2n_edge.search.store import Fact, Journal

__all__ = ["Attempts", "note_crash"]

_UNDER_WAY = "begun"
"""Key of the evaluations that are under way."""

_MOST_SILENT = 3
"""Times that the process may vanish in one evaluation, as with `kill -9` or for want of memory."""


class Attempts:
    """Evaluations that were begun in this process and those before it; only the end of a process leaves a note."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._own: set[tuple[str, str]] = set()

    def is_hopeless(self, kind: str, key: str) -> bool:
        """Tell whether this evaluation crashed or stalled, or ended the process too often without a word."""
        return any(
            _is(note, kind, key) and (note.get("crashed") or int(note.get("times", 0)) >= _MOST_SILENT)
            for note in _notes(self._journal)
        )

    def begin(self, kind: str, key: str) -> None:
        """Note that an evaluation is under way."""
        notes = _notes(self._journal)
        times = next((int(note.get("times", 0)) for note in notes if _is(note, kind, key)), 0)
        others = [
            {**note, "open": (note.get("kind"), note.get("key")) in self._own}
            for note in notes
            if not _is(note, kind, key)
        ]
        self._own.add((kind, key))
        self._keep([*others, {"kind": kind, "key": key, "times": times + 1}])

    def end(self, kind: str, key: str) -> None:
        """Note that it has ended, however it did."""
        if (kind, key) in self._own:
            self._own.remove((kind, key))
            self._keep([note for note in _notes(self._journal) if not _is(note, kind, key)])

    def _keep(self, notes: list[dict[str, Any]]) -> None:
        self._journal.store(Fact.EVALUATION, _UNDER_WAY, {"evaluations": notes} if notes else {})


def note_crash(journal: Journal) -> bool:
    """Note that the process crashed or stalled in what was under way; tell whether that was an evaluation."""
    notes = _notes(journal)
    if not notes:
        return False
    crashed = [{**note, "crashed": bool(note.get("crashed") or note.get("open", True))} for note in notes]
    journal.store(Fact.EVALUATION, _UNDER_WAY, {"evaluations": crashed})
    return True


def _is(note: dict[str, Any], kind: str, key: str) -> bool:
    return (note.get("kind"), note.get("key")) == (kind, key)


def _notes(journal: Journal) -> list[dict[str, Any]]:
    """Return the notes; of journals before there could be several the one."""
    kept = journal.cached(Fact.EVALUATION, _UNDER_WAY)
    if not kept:
        return []
    return [dict(note) for note in kept["evaluations"]] if "evaluations" in kept else [dict(kept)]
