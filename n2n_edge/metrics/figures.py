"""A number that says where it comes from."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["MB", "SCHEMA_VERSION", "Figure", "FigureJson", "Provenance"]

MB = 1_000_000
"""Bytes in a megabyte: sizes and memory are decimal everywhere."""

SCHEMA_VERSION = 1
"""Version of every JSON document that a command prints or a run writes."""

Provenance = Literal["measured", "host-limited", "calibrated", "analytic", "computed"]
"""Where a number comes from.

``measured``: timed or counted by running it. ``host-limited``: measured on this machine within a profile's limits.
``calibrated``: predicted, fitted on measurements of that device. ``analytic``: predicted from data-sheet figures.
``computed``: follows exactly from the file or the graph (params, bytes, MACs, the memory bound).
"""

FigureJson = dict[str, float | int | str]


@dataclass(frozen=True)
class Figure:
    """One value with its unit and provenance; `low`, `high` bound it and `n` counts observations where they apply.

    A latency is of a `runtime`: its name, with the version that was timed; only the name where it is predicted.

    >>> n2n_edge.Figure(12.5, "ms", "calibrated", low=9.0, high=17.0, n=29).predicted
    True
    """

    value: float
    unit: str
    provenance: Provenance
    low: float | None = None
    high: float | None = None
    n: int | None = None
    runtime: str | None = None

    @property
    def predicted(self) -> bool:
        """Whether nothing was run: the value may be off, within its interval nine times out of ten."""
        return self.provenance in ("calibrated", "analytic")

    def held(self, *, accept_expected: bool = False) -> float:
        """Return what an upper limit is held against: the value; of a prediction, its upper bound.

        With `accept_expected` the expected value counts there, too.
        """
        if accept_expected or not self.predicted or self.high is None:
            return self.value
        return self.high

    def to_json(self) -> FigureJson:
        """Return ``{value, unit, provenance[, low, high, n, runtime]}``, absent fields left out."""
        document: FigureJson = {"value": self.value, "unit": self.unit, "provenance": self.provenance}
        for name in ("low", "high", "n", "runtime"):
            bound = getattr(self, name)
            if bound is not None:
                document[name] = bound
        return document
