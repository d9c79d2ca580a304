"""Whether the terms that only some kernels have belong into rates: settled for all tables of a runtime together.

Twenty networks on one board hardly tell whether a term helps there, and what it stands for is a property of the
runtime's kernels, not of the board. So the evidence of all boards is pooled, by network: boards were timed with the
same ones, and what counts is what a term does for a network that nobody timed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_prediction.boards import chip_of
from benchmarks.latency_prediction.tables import Table, sheet_of
from n2n_edge.devices.terms import TERMS

__all__ = ["OPTIONAL", "Choice", "choose", "runs_on"]

OPTIONAL = [TERMS.index(term) for term in ("mac_unpacked", "byte_spilled")]
"""Terms that tables have only where they help."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """Whether optional terms are used, and what would be chosen without each network, and without each chip's boards.

    A network's error is judged by what all other networks choose.
    """

    used: bool
    without_network: dict[str, bool]
    without_chip: dict[str, bool]

    def errors(self, table: Table, plain: Floats, full: Floats) -> Floats:
        """Return each model's error by whichever of two fits the other networks choose."""
        return np.where([self.without_network[row.model] for row in table.rows], full, plain)

    def __str__(self) -> str:
        same = [sum(each == self.used for each in some.values()) for some in (self.without_network, self.without_chip)]
        return (
            f"{'used' if self.used else 'left out'}; the same without any one network in {same[0]} of "
            f"{len(self.without_network)} cases, without all boards of any one chip in {same[1]} of "
            f"{len(self.without_chip)}"
        )


def runs_on(table: Table) -> str:
    """Return which tables are settled together: those of a runtime, a kind of processor and a quantity."""
    return f"{table.runtime}, {sheet_of(table.device).compute_unit.upper()}, {table.quantity}"


def choose(tables: Sequence[Table], plain: Sequence[Floats], full: Sequence[Floats]) -> Choice:
    """Settle by the errors of models left out, one array a table, without and with optional terms."""
    networks = sorted({row.model for table in tables for row in table.rows})
    errors = np.full((2, len(tables), len(networks)), np.nan)
    for place, table in enumerate(tables):
        columns = [networks.index(row.model) for row in table.rows]
        errors[:, place, columns] = plain[place], full[place]
    chips = np.array([chip_of(table.device) for table in tables])
    return Choice(
        _helps(errors),
        {name: _helps(np.delete(errors, place, axis=2)) for place, name in enumerate(networks)},
        {chip: _helps(errors[:, chips != chip]) for chip in sorted(set(chips)) if (chips != chip).any()},
    )


def _helps(errors: Floats) -> bool:
    """Tell whether further terms lower errors, `(without and with, tables, networks)`, beyond what chance does.

    The gain of a network, its mean over tables, has to have a mean that is larger than its standard error over
    networks, and the tables' median error must not rise.
    """
    errors = errors[:, :, ~np.isnan(errors).all(axis=(0, 1))]
    gains = np.nanmean(np.abs(errors[0]) - np.abs(errors[1]), axis=0)
    if not gains.any():  # none of the models has any of these terms
        return True
    off = np.median(np.nanmedian(np.abs(np.expm1(errors)), axis=2), axis=1)
    return bool(gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)) and off[1] <= off[0])
