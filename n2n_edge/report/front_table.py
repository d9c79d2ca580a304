"""The front as a table: the candidates worth choosing among, whom ``pareto --ship`` calls by their number."""

from collections.abc import Sequence
from dataclasses import dataclass

from n2n_edge.metrics.formats import format_value
from n2n_edge.report.document import CandidateJson
from n2n_edge.report.known_costs import KnownCost
from n2n_edge.report.score import score_of

__all__ = ["FrontCell", "FrontRow", "FrontTable", "front_table"]


@dataclass(frozen=True)
class FrontCell:
    """One cost of a candidate in words; `best` where nothing that costs as little scores higher."""

    text: str
    best: bool
    predicted: bool


@dataclass(frozen=True)
class FrontRow:
    """One candidate; `number` counts from 1 in the order evaluated."""

    number: int
    chosen: bool
    score: str
    feasible: bool
    cells: tuple[FrontCell, ...]


@dataclass(frozen=True)
class FrontTable:
    """Every candidate on the front of any cost, and the chosen one; the highest score first.

    `sources` says for each column where its figures come from.
    """

    columns: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]
    rows: tuple[FrontRow, ...]


def front_table(rows: Sequence[CandidateJson], costs: Sequence[KnownCost], winner: int | None) -> FrontTable:
    """Return the table; it is empty where no candidate was trained."""
    places = {place for cost in costs for place in cost.front}
    if winner is not None:
        places.add(winner)

    def order(place: int) -> tuple[float, int, int]:
        score = score_of(rows[place])
        return (0.0 if score is None else -score, rows[place]["params"], place)

    return FrontTable(
        columns=tuple(f"{cost.title}, predicted" if cost.predicted else cost.title for cost in costs),
        sources=tuple((cost.title, cost.source) for cost in costs),
        rows=tuple(_row(place, rows[place], costs, place == winner) for place in sorted(places, key=order)),
    )


def _row(place: int, row: CandidateJson, costs: Sequence[KnownCost], chosen: bool) -> FrontRow:
    score = score_of(row)
    text_of_score = "–" if score is None else format_value(score, "fraction")
    cells = []
    for cost in costs:
        value = cost.values[place]
        text = "–" if value is None else format_value(value, cost.unit).removesuffix(" params").removesuffix(" MACs")
        cells.append(FrontCell(text, place in cost.front, cost.predicted))
    return FrontRow(place + 1, chosen, text_of_score, row["feasible"], tuple(cells))
