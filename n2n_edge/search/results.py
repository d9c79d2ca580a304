"""Results of evaluations in the order in which they were asked for: from the journal, or as they come."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import isfinite

from n2n_edge.search.attempts import Attempts
from n2n_edge.search.evaluations import Evaluations, Outcome, Pending, Request
from n2n_edge.search.store import Fact, Journal, JsonObject

__all__ = ["LARGEST_RISE", "Results"]

LARGEST_RISE = 20.0
"""A loss that rises by more than this says no more than that the cut is fatal."""


@dataclass(frozen=True)
class _Place:
    """A place in the queue of results: what is known already, or what was begun, `fresh` if for this place."""

    result: JsonObject | None = None
    known: bool = False
    pending: Pending | None = None
    fresh: bool = False


class Results:
    """What evaluations give, each asked for once in a run: the journal is the one truth, and this alone writes it."""

    def __init__(self, journal: Journal, evaluations: Evaluations, tell: Callable[[str], None]) -> None:
        self._journal, self._evaluations, self._tell = journal, evaluations, tell
        self._attempts = Attempts(journal)

    def of(self, wanted: Iterable[Request | None]) -> Iterator[tuple[JsonObject | None, bool]]:
        """Give the result of every request in order, and whether it had to be run; nothing for None.

        Each is in the journal as soon as it is there, whatever those before it do.
        """
        queue: deque[_Place] = deque()
        under_way: dict[tuple[str, str], Pending] = {}
        try:
            for request in wanted:
                queue.append(self._begun(request, under_way))
                yield from self._ready(queue, under_way, lambda: self._evaluations.full)
            yield from self._ready(queue, under_way, lambda: True)
        finally:
            for pending in under_way.values():
                self._attempts.end(pending.request.kind, pending.request.key)

    def _begun(self, request: Request | None, under_way: dict[tuple[str, str], Pending]) -> _Place:
        """Return the place of a request in the queue: its result, where that is known, or what was begun for it."""
        if request is None:
            return _Place(known=True)
        identity = (str(request.kind), request.key)
        cached = self._journal.cached(*identity)
        if cached is not None:
            return _Place(cached, known=True)
        if identity in under_way:
            return _Place(pending=under_way[identity])
        if self._attempts.is_hopeless(*identity):
            self._tell(f"{request.what}: left out, since it ended the process before")
            result = _row(request.kind, Outcome(failed="it ended the process before"))
            self._journal.store(*identity, result)
            return _Place(result, known=True)
        pending = under_way[identity] = self._evaluations.begin(request)
        if not self._evaluations.aside:
            self._attempts.begin(*identity)
        return _Place(pending=pending, fresh=True)

    def _ready(
        self, queue: deque[_Place], under_way: dict[tuple[str, str], Pending], waits: Callable[[], bool]
    ) -> Iterator[tuple[JsonObject | None, bool]]:
        """Give what the queue begins with as far as it is known; wait for more while ``waits()``."""
        while queue:
            for identity, pending in list(under_way.items()):
                if pending.outcome is not None:
                    self._journal.store(*identity, _row(identity[0], pending.outcome))
                    self._attempts.end(*identity)
                    if pending.outcome.failed is not None:
                        self._tell(f"{pending.request.what}: left out, since {pending.outcome.failed}")
                    del under_way[identity]
            first = queue[0]
            if first.known:
                queue.popleft()
                yield first.result, False
            elif first.pending is not None and first.pending.outcome is not None:
                queue.popleft()
                request = first.pending.request
                failed = first.pending.outcome.failed is not None
                yield _row(request.kind, first.pending.outcome), first.fresh and not failed
            elif waits():
                self._evaluations.wait()
            else:
                return


def _row(kind: str, outcome: Outcome) -> JsonObject:
    """Return what the journal keeps of an evaluation."""
    failed: JsonObject = {} if outcome.failed is None else {"failed": True}
    if kind == Fact.SENSITIVITY:
        return {"loss": outcome.loss if isfinite(outcome.loss) else LARGEST_RISE, **failed}
    return {
        "accuracy": outcome.accuracy,
        "loss": outcome.loss if isfinite(outcome.loss) else None,
        "seconds": outcome.seconds,
        "training_seconds": outcome.training_seconds,
        **({"resampled": list(outcome.resampled)} if outcome.resampled else {}),
        **failed,
    }
