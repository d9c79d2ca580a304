"""A limit on one cost, given by the user."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from n2n_edge.errors import InputError, setting

__all__ = ["OPTIONS", "UNITS", "Budget", "Cost"]

Cost = Literal["size_mb", "params", "macs", "memory_bound_mb", "latency_ms", "accuracy"]

OPTIONS: Mapping[Cost, str] = MappingProxyType(
    {
        "size_mb": "--max-mb",
        "params": "--max-params",
        "macs": "--max-macs",
        "memory_bound_mb": "--max-memory-mb",
        "latency_ms": "--max-latency-ms",
        "accuracy": "--min-accuracy",
    }
)
"""The command-line option that sets the budget on each cost."""

UNITS: Mapping[Cost, str] = MappingProxyType(
    {
        "size_mb": "MB",
        "params": "params",
        "macs": "MACs",
        "memory_bound_mb": "MB",
        "latency_ms": "ms",
        "accuracy": "fraction",
    }
)
"""The unit of each cost and of its budget; accuracy is a fraction of one."""


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
        if self.cost == "accuracy" and self.limit > 1:
            raise InputError(
                f"{setting(self.option)} {self.limit:g}: accuracy is a fraction of one; for {self.limit:g}% "
                f"give {self.limit / 100:g}"
            )

    @property
    def option(self) -> str:
        """The command-line option that sets this budget, such as ``--max-mb``."""
        return OPTIONS[self.cost]

    @property
    def unit(self) -> str:
        """The unit of the limit, the same as that of the figure that it is held against."""
        return UNITS[self.cost]

    @property
    def direction(self) -> Literal["max", "min"]:
        """Whether the limit is the largest or the smallest value allowed."""
        return "min" if self.cost == "accuracy" else "max"
