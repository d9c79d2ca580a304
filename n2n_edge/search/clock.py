"""Time of a search: which stage ends for want of it, and how many candidates are judged again."""

import statistics
import time
from collections.abc import Sequence

from n2n_edge.search.halving import Rung
from n2n_edge.search.store import Fact, Journal
from n2n_edge.search.trial import Trial

__all__ = ["Clock"]


class Clock:
    """Ends stages that run out of time; the decision is journalled, so that a resumed run takes the same one."""

    def __init__(self, journal: Journal, deadline_s: float | None) -> None:
        self._journal = journal
        self._deadline_s = deadline_s
        self._spent_before = float(journal.meta().get("search_seconds", 0.0))
        self._start = time.monotonic()

    def stage_is_over(
        self,
        stage: str,
        position: int,
        share: float,
        least: int,
        otherwise_s: float | None = None,
        others_s: float = 0.0,
    ) -> bool:
        """Tell whether `stage` ends before its next part, `share` of the time being spent; `least` are done anyway.

        Of a search without a limit `otherwise_s` is that of the stage; what others took of it, `others_s`, isn't
        counted.
        """
        spent = self.spent()
        limit_s = otherwise_s if self._deadline_s is None else self._deadline_s * share
        if limit_s is None:
            return False
        reached = self._journal.cached(Fact.STAGE_REACHED, stage)
        if reached is not None and position <= int(reached["position"]):
            return False
        end = self._journal.cached(Fact.STAGE_OVER, stage)
        if end is None and position >= least and spent - others_s > limit_s:
            end = {"position": position}
            self._journal.store(Fact.STAGE_OVER, stage, end)
        if end is not None and position >= int(end["position"]):
            return True
        self._journal.store(Fact.STAGE_REACHED, stage, {"position": position})
        return False

    def spent(self) -> float:
        """Return, and journal, how many seconds the search has taken so far, with what was spent before it went on."""
        seconds = self._spent_before + time.monotonic() - self._start
        self._journal.set_meta("search_seconds", seconds)
        return seconds

    def affordable(self, name: str, rung: Rung, finalists: Sequence[Trial], at_once: int, share: float) -> int:
        """Return how many of `finalists`, so many of them `at_once`, a `share` of the time allows for a rung.

        That is one at least. `name` is that of the decision in the journal.
        """
        if self._deadline_s is None:
            return max(1, rung.finalists)
        size = self._journal.cached(Fact.RUNG_SIZE, name)
        if size is None:
            rows = [self._journal.cached(Fact.SCORE, trial.key) or {} for trial in finalists]
            each = rung.times * statistics.median([float(row.get("seconds", 0.0)) for row in rows] or [0.0])
            most = rung.finalists if each <= 0 else int(share * self._deadline_s * at_once / each)
            size = {"finalists": max(1, min(rung.finalists, most))}
            self._journal.store(Fact.RUNG_SIZE, name, size)
        return int(size["finalists"])
