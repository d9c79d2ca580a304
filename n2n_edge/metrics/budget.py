"""A limit on one cost, given by the user."""

import math
from dataclasses import dataclass
from typing import Literal

from n2n_edge.errors import InputError, setting
from n2n_edge.metrics.costs import COSTS, Cost, cost_named

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """A limit on one cost: an upper one, or a lower one for the score.

    ``Budget("size_mb", 0.5)`` asks for a file of at most 0.5 MB, ``Budget("score", 0.9)`` for at least 90% in the
    task's metric, ``Budget("drop", 1.5)`` for at most 1.5 points below the teacher. The score also goes by the name
    ``accuracy``.
    Raises `InputError` for a limit that isn't a positive, finite number, for a score above 1 and a drop above 100.

    >>> n2n_edge.Budget("size_mb", 0.5).option
    '--max-mb'
    """

    cost: Cost
    limit: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "cost", cost_named(self.cost))
        if not (math.isfinite(self.limit) and self.limit > 0):
            raise InputError(
                f"{setting(self.option)} {self.limit:g}: a budget must be a positive number; give one above 0"
            )
        if self.unit == "fraction" and self.limit > 1:
            raise InputError(
                f"{setting(self.option)} {self.limit:g}: a score is a fraction of one; for {self.limit:g}% "
                f"give {self.limit / 100:g}"
            )
        if self.unit == "points" and self.limit > 100:
            raise InputError(f"{setting(self.option)} {self.limit:g}: points are of a hundred; give fewer")

    @property
    def option(self) -> str:
        """The command-line option that sets this budget, such as ``--max-mb``."""
        return COSTS[self.cost].option

    @property
    def unit(self) -> str:
        """The unit of the limit, the same as that of the figure that it is held against."""
        return COSTS[self.cost].unit

    @property
    def direction(self) -> Literal["max", "min"]:
        """Whether the limit is the largest or the smallest value allowed."""
        return COSTS[self.cost].direction
