"""A question that this environment couldn't answer."""

from dataclasses import dataclass

from n2n_edge.metrics.outcome import Outcome

__all__ = ["Unanswered"]


@dataclass(frozen=True)
class Unanswered:
    """What was asked, and what kept it from being found out, such as a model that the runtime couldn't run."""

    cost: str
    asked: str
    reason: str

    @property
    def outcome(self) -> Outcome:
        """Always inconclusive."""
        return "inconclusive"
