"""Outcomes of a gate: of one thing that was asked, of a model, of a job."""

from collections.abc import Iterable
from typing import Literal

__all__ = ["EXIT_CODES", "Outcome", "worst"]

Outcome = Literal["pass", "fail", "inconclusive"]
"""``inconclusive``: what was measured leaves it open, or this environment can't tell."""

EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 3}
"""What a command returns for each outcome."""

_ORDER: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome of several together: one failure fails all, one open question leaves a pass open."""
    found = set(outcomes)
    return next((outcome for outcome in _ORDER if outcome in found), "pass")
