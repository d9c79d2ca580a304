"""What a finished student is reported with: the same for `compress` and for `pareto --ship`."""

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from n2n_edge.cli.output import print_json
from n2n_edge.errors import BudgetMissedError, UnsuitableEnvironmentError

if TYPE_CHECKING:
    from n2n_edge.runs.finish import CompressResult

__all__ = ["conclude"]


def conclude(result: "CompressResult", as_json: bool) -> NoReturn:
    """Print the result, as one JSON document on request, and end the command.

    Raises:
        BudgetMissedError: the file misses a budget.
        UnsuitableEnvironmentError: what was measured leaves open whether it meets one.
        typer.Exit: it meets them all.
    """
    if as_json:
        print_json(result.report)
    else:
        _print(result)
    if not result.met:
        missed = any(verdict.outcome == "fail" for verdict in result.verdicts)
        reasons = "; ".join(f"{one.budget.option}: {one.reason}" for one in result.verdicts if not one.met)
        raise BudgetMissedError(reasons) if missed else UnsuitableEnvironmentError(reasons)
    raise typer.Exit(0)


def _print(result: "CompressResult") -> None:
    from rich.text import Text

    from n2n_edge.cli.comparison import comparison_table, conditions_table
    from n2n_edge.cli.console import Console
    from n2n_edge.gate.terminal import check_table

    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(comparison_table(result.report))
    if result.verdicts:
        console.print(check_table(result.verdicts))
    if "conditions" in result.report:
        console.print(conditions_table(result.report["conditions"]))
    for note in result.report.get("notes", []):
        console.print(Text(f"note: {note}", style="dim"))
    for warning in result.report["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))
    console.print(Text(f"student: {result.student}"), soft_wrap=True)
    console.print(Text(f"report:  {result.folder / 'report.html'}"), soft_wrap=True)
