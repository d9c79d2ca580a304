"""Verdicts as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from n2n_edge.gate.regression import Regression
from n2n_edge.gate.verdict import Verdict

__all__ = ["verdict_table"]


def verdict_table(verdicts: Sequence[Verdict], regressions: Sequence[Regression] = ()) -> Table:
    """Return one row per budget and per compared cost: what was asked, pass or fail, and the reason in full."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("asked", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("reached", overflow="fold")
    for verdict in verdicts:
        asked = f"{verdict.budget.option} {verdict.budget.limit:.10g}"
        table.add_row(Text(asked), _word(verdict.met), Text(verdict.reason))
    for regression in regressions:
        asked = f"--max-regression {100 * regression.limit:.4g}% {regression.cost}"
        table.add_row(Text(asked), _word(regression.met), Text(regression.reason))
    return table


def _word(met: bool) -> Text:
    return Text("pass", style="green") if met else Text("FAIL", style="bold red")
