"""Teacher and student side by side, for the terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from n2n_edge.report.document import ConditionsJson, RunReport

__all__ = ["comparison_table", "conditions_table"]


def comparison_table(report: "RunReport") -> "Table":
    """Return a table of teacher and student, every figure with where it comes from."""
    from rich.table import Table

    from n2n_edge.report.comparison import comparison_rows

    table = Table(title="teacher and student", title_justify="left")
    table.add_column("")
    for name in ("teacher", "student", "change"):
        table.add_column(name, justify="right")
    table.add_column("source")
    for row in comparison_rows(report):
        teacher, student = row.teacher, row.student
        note = student.note if student is not None else ""
        table.add_row(
            row.name,
            teacher.value if teacher is not None else "",
            student.value if student is not None else "",
            row.change,
            note,
            style="dim" if student is not None and student.predicted else None,
        )
    return table


def conditions_table(conditions: "ConditionsJson") -> "Table":
    """Return a table of teacher and student under corruptions."""
    from rich.table import Table

    from n2n_edge.report.conditions import condition_table

    words = condition_table(conditions)
    table = Table(title=words["title"], title_justify="left")
    table.add_column("severity")
    for severity in words["severities"]:
        table.add_column(str(severity), justify="right")
    for name, cells in words["rows"]:
        table.add_row(name, *cells)
    return table
