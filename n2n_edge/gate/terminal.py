"""Checks as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from n2n_edge.gate.check import Check
from n2n_edge.metrics.outcome import Outcome
from n2n_edge.metrics.verdict import Verdict

__all__ = ["check_table", "outcome_text", "verdict_table"]

_WORDS: dict[Outcome, tuple[str, str]] = {
    "pass": ("pass", "green"),
    "fail": ("FAIL", "bold red"),
    "inconclusive": ("open", "yellow"),
}


def check_table(checks: Sequence[Check]) -> Table:
    """Return one row per check: what was asked, its outcome, and the reason in full."""
    return _table([(check.asked, check.outcome, check.reason) for check in checks])


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return one row per budget of a run, which is met or missed."""
    return _table([(verdict.asked, "pass" if verdict.met else "fail", verdict.reason) for verdict in verdicts])


def outcome_text(summary: str, outcome: Outcome) -> Text:
    """Return a closing line in the colour of its outcome."""
    return Text(summary, style=_WORDS[outcome][1])


def _table(rows: Sequence[tuple[str, Outcome, str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("asked", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("reached", overflow="fold")
    for asked, outcome, reason in rows:
        word, style = _WORDS[outcome]
        table.add_row(Text(asked), Text(word, style=style), Text(reason))
    return table
