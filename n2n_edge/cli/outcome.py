"""Summary of finished students, the same for `compress` and for `pareto --ship`."""

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from n2n_edge.cli.output import print_error, print_json, print_line
from n2n_edge.errors import BudgetMissedError, N2NError, UnsuitableEnvironmentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from n2n_edge.metrics.verdict import Verdict
    from n2n_edge.report.document import RunReport
    from n2n_edge.runs.run import Run

__all__ = ["conclude", "conclude_several"]


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
    if (fault := _fault(verdicts)) is not None:
        raise fault
    raise typer.Exit(0)


def conclude_several(
    run: "Path",
    numbers: "Sequence[int]",
    shipped: "Mapping[int, Run]",
    errors: "Mapping[int, N2NError]",
    as_json: bool,
) -> NoReturn:
    """Print what became of several candidates of a run, as one JSON document on request, and end the command.

    Raises:
        typer.Exit: with the highest code of any of them, each having had its line.
    """
    from n2n_edge.metrics.figures import SCHEMA_VERSION

    faults = {**errors}
    for number, one in shipped.items():
        if (fault := _fault(one.verdicts)) is not None:
            faults[number] = fault
    if as_json:
        rows: list[dict[str, object]] = []
        for number in numbers:
            told = {"error": faults[number].on_command_line()} if number in faults else {}
            done = (
                {"folder": str(shipped[number].folder), "report": shipped[number].report} if number in shipped else {}
            )
            rows.append({"candidate": number, "passed": number not in faults, **told, **done})
        print_json({"schema_version": SCHEMA_VERSION, "kind": "shipped", "run": str(run), "candidates": rows})
    else:
        for number in numbers:
            if number in shipped:
                print_line(f"candidate {number}")
                _print(shipped[number], shipped[number].report, shipped[number].verdicts)
    for number in numbers:
        if number in faults:
            print_error(f"candidate {number}: {faults[number].on_command_line()}")
    raise typer.Exit(max((fault.exit_code for fault in faults.values()), default=0))


def _fault(verdicts: "Sequence[Verdict]") -> "N2NError | None":
    """Return the error of a student that misses a budget, or leaves open whether it meets one."""
    if all(verdict.met for verdict in verdicts):
        return None
    missed = any(verdict.outcome == "fail" for verdict in verdicts)
    reasons = "; ".join(f"{one.budget.option}: {one.reason}" for one in verdicts if not one.met)
    return BudgetMissedError(reasons) if missed else UnsuitableEnvironmentError(reasons)


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
