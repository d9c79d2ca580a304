"""`n2n-edge doctor`: what works on this machine, what doesn't, and how to mend it."""

from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.cli.output import print_json
from n2n_edge.metrics.figures import SCHEMA_VERSION

if TYPE_CHECKING:
    from n2n_edge.doctor import Diagnosis

__all__ = ["doctor"]

STYLES = {"ok": "green", "limited": "yellow", "missing": "bold red"}


def doctor(
    imports: Annotated[
        bool, typer.Option("--imports", help="Import torch, torchvision and timm, too, which takes seconds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Say what works on this machine, what is limited or missing, what for, and the command that mends it.

    A model of one node is really timed. Where torch is installed, it trains a convolution that crashes or hangs on some
    processors, in a process of its own. Exit code 3 if something is missing that every command needs; extras that
    aren't installed are no failure.

    Examples:

    - `n2n-edge doctor`
    - `n2n-edge doctor --json`
    """
    from n2n_edge.doctor import diagnose

    found = diagnose(imports=imports)
    if as_json:
        document = {
            "schema_version": SCHEMA_VERSION,
            "kind": "doctor",
            "works": found.works,
            "checks": [check.to_json() for check in found.checks],
        }
        print_json(document)
    else:
        _print(found)
    if not found.works:
        raise typer.Exit(3)


def _print(found: "Diagnosis") -> None:
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.cli.console import Console

    console = Console()
    table = Table("", "what", "found", "for")
    group = ""
    for check in found.checks:
        if group and check.group != group:
            table.add_section()
        group = check.group
        status = Text(check.status, style=STYLES[check.status])
        table.add_row(status, check.name, Text(check.found, overflow="fold"), check.purpose)
    console.print(table)
    for check in found.checks:
        if check.remedy:
            text = Text.assemble((check.status, STYLES[check.status]), f" {check.name}: {check.remedy}")
            console.print(text, soft_wrap=True)
    missing = [check.name for check in found.checks if check.needed and check.status == "missing"]
    console.print(
        Text.assemble(("works", "green"), ": models can be inspected, predicted, timed and gated here")
        if found.works
        else Text.assemble(("does not work", "bold red"), f": {', '.join(missing)} missing")
    )
