"""Table of costs: the one list of what budgets limit, with units, options and labels.

A new cost is one row here and its calculation: an attribute of `graph.costs.Costs`, or a figure of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

__all__ = ["COSTS", "OBJECTIVES", "STATIC_COSTS", "Cost", "CostRow"]

Cost = Literal["size_mb", "params", "macs", "memory_bound_mb", "latency_ms", "accuracy"]


@dataclass(frozen=True)
class CostRow:
    """One cost: its key in documents, unit, the option that limits it, and its label on pages.

    `direction` says whether a budget is the largest or the smallest value allowed. `attribute` is where `Costs` holds
    it, in units of which `divisor` make one; None for what doesn't follow from the graph alone. `short` is its label
    where there is little room.
    """

    key: Cost
    unit: str
    option: str
    label: str
    short: str
    direction: Literal["max", "min"] = "max"
    attribute: str | None = None
    divisor: int = 1

    @property
    def field(self) -> str:
        """The setting that limits the cost, as Python writes it: ``max_mb``."""
        return self.option.removeprefix("--").replace("-", "_")


_ROWS = (
    CostRow("size_mb", "MB", "--max-mb", "File size", "size", attribute="size_bytes", divisor=1_000_000),
    CostRow("params", "params", "--max-params", "Params", "params", attribute="params"),
    CostRow("macs", "MACs", "--max-macs", "MACs", "MACs", attribute="macs"),
    CostRow(
        "memory_bound_mb", "MB", "--max-memory-mb", "Memory bound", "memory",
        attribute="memory_bound_bytes", divisor=1_000_000,
    ),
    CostRow("latency_ms", "ms", "--max-latency-ms", "Latency", "latency"),
    CostRow("accuracy", "fraction", "--min-accuracy", "Accuracy", "accuracy", direction="min"),
)  # fmt: skip

COSTS: Mapping[str, CostRow] = MappingProxyType({row.key: row for row in _ROWS})
"""All costs by key."""

assert tuple(COSTS) == get_args(Cost)

STATIC_COSTS: tuple[CostRow, ...] = tuple(row for row in _ROWS if row.attribute is not None)
"""Costs that follow exactly from the graph."""

OBJECTIVES: tuple[Cost, ...] = (
    "params",
    *(row.key for row in _ROWS if row.direction == "max" and row.key != "params"),
)
"""Costs that a search may minimise, the default one first."""
