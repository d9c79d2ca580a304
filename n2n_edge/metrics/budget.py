"""A limit on one cost, given by the user."""

import math
from dataclasses import dataclass
from typing import Literal

from n2n_edge.errors import InputError, setting
from n2n_edge.metrics.costs import COSTS, Cost

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """A limit on one cost: an upper one, or a lower one for accuracy.

    ``Budget("size_mb", 0.5)`` asks for a file of at most 0.5 MB, ``Budget("accuracy", 0.9)`` for at least 90%.
    Raises `InputError` for a limit that isn't a positive, finite number, and for an accuracy above 1.

    >>> n2n_edge.Budget("size_mb", 0.5).option
    '--max-mb'
    """

    cost: Cost
    limit: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.limit) and self.limit > 0):
            raise InputError(
                f"{setting(self.option)} {self.limit:g}: a budget must be a positive number; give one above 0"
            )
        if self.unit == "fraction" and self.limit > 1:
            raise InputError(
                f"{setting(self.option)} {self.limit:g}: accuracy is a fraction of one; for {self.limit:g}% "
                f"give {self.limit / 100:g}"
            )

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
