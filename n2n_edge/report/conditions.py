"""Teacher and student under corruptions, as a table: one row a corruption, one column a severity."""

from typing import TypedDict

from n2n_edge.metrics.scores import metric_title
from n2n_edge.report.document import ConditionsJson

__all__ = ["ConditionTable", "condition_table"]


class ConditionTable(TypedDict):
    """The words of the table; a cell is ``teacher / student``, or the student's fidelity alone."""

    title: str
    severities: list[int]
    rows: list[tuple[str, list[str]]]


def condition_table(document: ConditionsJson) -> ConditionTable:
    """Return the table of a report's conditions."""
    severities = sorted({row["severity"] for row in document["rows"]})
    cells: dict[str, dict[int, str]] = {}
    compared = False
    for row in document["rows"]:
        text = f"{100 * float(row['student']['value']):.1f}%"
        if row["teacher"] is not None:
            compared = True
            text = f"{100 * float(row['teacher']['value']):.1f}% / {text}"
        cells.setdefault(row["corruption"], {})[row["severity"]] = text
    images = document["rows"][0]["student"].get("n") if document["rows"] else None
    who = "teacher / student" if compared else "student against teacher"
    return {
        "title": f"{metric_title(document['metric'])} on corrupted images, {who}"
        + (f", n = {images:,} each" if images else ""),
        "severities": severities,
        "rows": [(name, [by.get(severity, "") for severity in severities]) for name, by in cells.items()],
    }
