"""Table of costs: the one list of what budgets limit, with units, options and labels.

A new cost is one row here and its calculation: an attribute of `graph.costs.Costs`, or a figure of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from n2n_edge.errors import InputError

__all__ = ["COSTS", "OBJECTIVES", "STATIC_COSTS", "Cost", "CostRow", "cost_named", "with_present_names"]

Cost = Literal["size_mb", "params", "macs", "memory_bound_mb", "latency_ms", "score", "drop"]


@dataclass(frozen=True)
class CostRow:
    """One cost: its key in documents, unit, the option that limits it, and its label on pages.

    `direction` says whether a budget is the largest or the smallest value allowed. `attribute` is where `Costs` holds
    it, in units of which `divisor` make one; None for what doesn't follow from the graph alone. `short` is its label
    where there is little room. `quality` marks what test images say, by the task's metric. `former` is another key
    that it goes by, and `former_option` the option of that key.
    """

    key: Cost
    unit: str
    option: str
    label: str
    short: str
    direction: Literal["max", "min"] = "max"
    attribute: str | None = None
    divisor: int = 1
    quality: bool = False
    former: str | None = None
    former_option: str | None = None

    @property
    def field(self) -> str:
        """The setting that limits the cost, as Python writes it: ``max_mb``."""
        return _field(self.option)

    @property
    def flags(self) -> tuple[str, ...]:
        """The option by all its names."""
        return (self.option,) if self.former_option is None else (self.option, self.former_option)


_ROWS = (
    CostRow("size_mb", "MB", "--max-mb", "File size", "size", attribute="size_bytes", divisor=1_000_000),
    CostRow("params", "params", "--max-params", "Params", "params", attribute="params"),
    CostRow("macs", "MACs", "--max-macs", "MACs", "MACs", attribute="macs"),
    CostRow(
        "memory_bound_mb", "MB", "--max-memory-mb", "Memory bound", "memory",
        attribute="memory_bound_bytes", divisor=1_000_000,
    ),
    CostRow("latency_ms", "ms", "--max-latency-ms", "Latency", "latency"),
    CostRow(
        "score", "fraction", "--min-score", "Score", "score", direction="min", quality=True,
        former="accuracy", former_option="--min-accuracy",
    ),
    CostRow("drop", "points", "--max-drop", "Drop", "drop", quality=True),
)  # fmt: skip

COSTS: Mapping[str, CostRow] = MappingProxyType({row.key: row for row in _ROWS})
"""All costs by key."""

assert tuple(COSTS) == get_args(Cost)

STATIC_COSTS: tuple[CostRow, ...] = tuple(row for row in _ROWS if row.attribute is not None)
"""Costs that follow exactly from the graph."""

OBJECTIVES: tuple[Cost, ...] = (
    "params",
    *(row.key for row in _ROWS if not row.quality and row.key != "params"),
)
"""Costs that a search may minimise, the default one first."""

_FORMER: Mapping[str, Cost] = MappingProxyType({row.former: row.key for row in _ROWS if row.former is not None})


def cost_named(name: str) -> str:
    """Return the key of a cost that goes by `name`: ``score`` for ``accuracy``; other words stay."""
    return _FORMER.get(name, name)


def with_present_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with limits by the names of their rows: ``min_score`` for ``min_accuracy``.

    Names may be spelled with hyphens, too.

    Raises:
        InputError: a limit is given by both names.
    """
    renamed = dict(settings)
    for row in COSTS.values():
        former = None if row.former_option is None else _field(row.former_option)
        for name in [name for name in settings if name.replace("-", "_") == former]:
            value = renamed.pop(name)
            new = row.field.replace("_", "-") if "-" in name else row.field
            if value is not None and renamed.get(new) is not None:
                raise InputError(f"‹{former}› {value:g}: is another name of ‹{row.field}›, which is given; give one")
            if value is not None or new not in renamed:
                renamed[new] = value
    return renamed


def _field(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
