"""Checks as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from n2n_edge.gating.check import Check
from n2n_edge.metrics.outcome import Outcome

__all__ = ["check_table", "outcome_text"]

_WORDS: dict[Outcome, tuple[str, str]] = {
    "pass": ("pass", "green"),
    "fail": ("FAIL", "bold red"),
    "inconclusive": ("open", "yellow"),
}


def check_table(checks: Sequence[Check]) -> Table:
    """Return one row per check: what was asked, its outcome, and the reason in full."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("asked", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("reached", overflow="fold")
    for check in checks:
        word, style = _WORDS[check.outcome]
        table.add_row(Text(check.asked), Text(word, style=style), Text(check.reason))
    return table


def outcome_text(summary: str, outcome: Outcome) -> Text:
    """Return a closing line in the colour of its outcome."""
    return Text(summary, style=_WORDS[outcome][1])
