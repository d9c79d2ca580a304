"""What a run tells while it goes on."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from n2n_edge.search.driver import Progress
    from n2n_edge.training.reports import EpochReport, StepReport

__all__ = ["Observer", "Observers", "SilentObserver"]


class Observer(Protocol):
    """What a live view is told while a run goes on."""

    def say(self, text: str) -> None:
        """Take one line about what happens now."""

    def probe(self, done: int, total: int) -> None:
        """Take the progress of the sensitivity profile: so many of its parts are done."""

    def candidate(self, progress: "Progress") -> None:
        """Take a judged candidate."""

    def step(self, report: "StepReport") -> None:
        """Take a step of the final distillation."""

    def epoch(self, report: "EpochReport") -> None:
        """Take a finished epoch of the final distillation."""


class SilentObserver:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Ignore the line."""

    def probe(self, done: int, total: int) -> None:
        """Ignore the progress."""

    def candidate(self, progress: "Progress") -> None:
        """Ignore the candidate."""

    def step(self, report: "StepReport") -> None:
        """Ignore the step."""

    def epoch(self, report: "EpochReport") -> None:
        """Ignore the epoch."""


class Observers:
    """Tells several observers the same, in the order given."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def say(self, text: str) -> None:
        """Pass on the line."""
        for observer in self._observers:
            observer.say(text)

    def probe(self, done: int, total: int) -> None:
        """Pass on the progress."""
        for observer in self._observers:
            observer.probe(done, total)

    def candidate(self, progress: "Progress") -> None:
        """Pass on the candidate."""
        for observer in self._observers:
            observer.candidate(progress)

    def step(self, report: "StepReport") -> None:
        """Pass on the step."""
        for observer in self._observers:
            observer.step(report)

    def epoch(self, report: "EpochReport") -> None:
        """Pass on the epoch."""
        for observer in self._observers:
            observer.epoch(report)
