"""Whether a figure meets its budget."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.figures import Figure
from n2n_edge.gate.budget import Budget
from n2n_edge.gate.wording import PREDICTED, format_figure, format_provenance, format_value

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True)
class Verdict:
    """One budget held against the figure that was reached.

    `margin` is the room that is left as a fraction of the limit: 0.1 is 10% inside the budget, -0.1 is 10% outside.
    """

    budget: Budget
    reached: Figure
    met: bool
    margin: float

    @property
    def reason(self) -> str:
        """One line: what was reached, where the number comes from, and how it stands to the limit."""
        limit = format_value(self.budget.limit, self.budget.unit)
        bound = "at most" if self.budget.direction == "max" else "at least"
        side = "inside" if self.met else "outside"
        text = (
            f"{format_figure(self.reached)}, {format_provenance(self.reached.provenance)}; "
            f"budget {bound} {limit}, {abs(self.margin):.1%} {side}"
        )
        if self.reached.provenance in PREDICTED:
            text += "; a prediction, nothing was run on the device"
            if self._could_turn:
                text += ", and its interval reaches across the limit"
        return text

    @property
    def _could_turn(self) -> bool:
        low, high, limit = self.reached.low, self.reached.high, self.budget.limit
        return low is not None and high is not None and low <= limit < high


def judge(figures: Mapping[str, Figure], budgets: Iterable[Budget]) -> tuple[Verdict, ...]:
    """Hold each budget against the figure of its cost; a value equal to the limit meets it.

    A predicted figure is judged by its value, not by its interval; the verdict's reason says that it is a prediction.
    Raises `UnsuitableEnvironmentError` if there is no figure for a budget's cost.
    """
    return tuple(_judge_one(figures, budget) for budget in budgets)


def _judge_one(figures: Mapping[str, Figure], budget: Budget) -> Verdict:
    if budget.cost not in figures:
        raise UnsuitableEnvironmentError(
            f"{budget.option} {budget.limit:g}: {budget.cost} is not known here, only {', '.join(sorted(figures))}; "
            "leave the budget out or run where it can be told"
        )
    reached = figures[budget.cost]
    excess = reached.value - budget.limit
    margin = (excess if budget.direction == "min" else -excess) / budget.limit
    return Verdict(budget=budget, reached=reached, met=margin >= 0, margin=margin)
