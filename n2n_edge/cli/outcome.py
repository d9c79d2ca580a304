"""Summary of a finished student, the same for `compress` and for `pareto --ship`."""

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from n2n_edge.cli.output import print_json
from n2n_edge.errors import BudgetMissedError, UnsuitableEnvironmentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from n2n_edge.metrics.verdict import Verdict
    from n2n_edge.report.document import RunReport
    from n2n_edge.runs.run import Run

__all__ = ["conclude"]


def conclude(run: "Run", as_json: bool) -> NoReturn:
    """Print the result, as one JSON document on request, and end the command.

    Raises:
        BudgetMissedError: the file misses a budget.
        UnsuitableEnvironmentError: what was measured leaves open whether it meets one.
        typer.Exit: it meets them all.
    """
    report, verdicts = run.report, run.verdicts
    if as_json:
        print_json(report)
    else:
        _print(run, report, verdicts)
    if not all(verdict.met for verdict in verdicts):
        missed = any(verdict.outcome == "fail" for verdict in verdicts)
        reasons = "; ".join(f"{one.budget.option}: {one.reason}" for one in verdicts if not one.met)
        raise BudgetMissedError(reasons) if missed else UnsuitableEnvironmentError(reasons)
    raise typer.Exit(0)


def _print(run: "Run", report: "RunReport", verdicts: "Sequence[Verdict]") -> None:
    from rich.text import Text

    from n2n_edge.cli.comparison import comparison_table, conditions_table
    from n2n_edge.cli.console import Console
    from n2n_edge.gating.terminal import check_table
    from n2n_edge.report.score import score_words

    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(comparison_table(report))
    if words := score_words(report):
        console.print(Text(words, style="bold"))
    if verdicts:
        console.print(check_table(verdicts))
    if "conditions" in report:
        console.print(conditions_table(report["conditions"]))
    for note in report.get("notes", []):
        console.print(Text(f"note: {note}", style="dim"))
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))
    console.print(Text(f"student: {run.student}"), soft_wrap=True)
    console.print(Text(f"report:  {run.folder / 'report.html'}"), soft_wrap=True)
