"""`n2n-edge device`: what a board has, and what a measurement on it would miss."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.figures import SCHEMA_VERSION

if TYPE_CHECKING:
    from n2n_edge.measure.readiness import Readiness

__all__ = ["device_app"]

device_app = typer.Typer(help="Look at a board.", no_args_is_help=True)


@device_app.callback()
def device() -> None:
    """Look at a board."""


@device_app.command()
def check(
    target: Annotated[str, typer.Argument(help="host, or ssh://[user@]host[:port][/folder][?python=PATH].")] = "host",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Say what is there: Python, runtime, cores, memory, clocks, disk; and what is missing, with how to get it.

    Exit code 3 if models can't be timed there as it is.
    """
    from n2n_edge.measure import open_target
    from n2n_edge.measure.readiness import readiness

    with open_target(target) as place:
        found = readiness(place)
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, "target": target, **found.to_json()}
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        _print(target, found)
    if not found.ready:
        raise typer.Exit(3)


def _print(target: str, found: "Readiness") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table("", escape(target), title="what is there", title_justify="left")
    for name, value in found.facts.items():
        table.add_row(name, Text(value))
    console.print(table)
    for problem in found.missing:
        console.print(Text(f"missing: {problem.what}; {problem.remedy}"), soft_wrap=True, style="bold red")
    for doubt in found.doubts:
        console.print(Text(f"warning: {doubt}"), soft_wrap=True)
    console.print("[green]ready[/]: models can be timed here" if found.ready else "[bold red]not ready[/]")
