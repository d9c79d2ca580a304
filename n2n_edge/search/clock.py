"""Time of a search: which stage ends for want of it, and how many candidates are judged again."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from n2n_edge.search.halving import Rung
from n2n_edge.search.store import Fact, Journal
from n2n_edge.search.trial import Trial

__all__ = ["Clock", "Spent"]


_SEARCH, _PROFILE = "search_seconds", "profile_seconds"
"""The seconds of a search and of its profile, in the journal's metadata."""


@dataclass(frozen=True)
class Spent:
    """Seconds that a search took, with those before it went on, and how many of them its sensitivity profile took.

    `profile` is None where there was none.
    """

    total: float
    profile: float | None


class Clock:
    """Ends stages that run out of time; the decision is journalled, so that a resumed run takes the same one."""

    def __init__(self, journal: Journal, deadline_s: float | None) -> None:
        self._journal = journal
        self._deadline_s = deadline_s
        self._spent_before = float(journal.meta().get(_SEARCH, 0.0))
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

    def profiling(self) -> Callable[[], None]:
        """Return what journals, whenever it is called, how long the profile has taken that begins now or goes on."""
        before, start = self._profile_seconds() or 0.0, time.monotonic()
        return lambda: self._journal.set_meta(_PROFILE, before + time.monotonic() - start)

    def _profile_seconds(self) -> float | None:
        seconds = self._journal.meta().get(_PROFILE)
        return None if seconds is None else float(seconds)

    def all_spent(self) -> Spent:
        """Return what the search has taken so far."""
        return Spent(self.spent(), self._profile_seconds())

    def spent(self) -> float:
        """Return, and journal, how many seconds the search has taken so far, with what was spent before it went on."""
        seconds = self._spent_before + time.monotonic() - self._start
        self._journal.set_meta(_SEARCH, seconds)
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
