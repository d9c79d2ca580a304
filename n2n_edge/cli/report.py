"""`n2n-edge report`: the report of a run or a bench, written anew, and its pictures for slides."""

from pathlib import Path
from typing import Annotated

import typer

from n2n_edge.cli.output import print_json, print_line
from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.metrics.figures import SCHEMA_VERSION

__all__ = ["report"]


def report(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a run, or a document that `bench --save` wrote.", show_default=False),
    ],
    open_it: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    png: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pictures to a folder as PNGs, for slides.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON document.")] = False,
) -> None:
    """Write the HTML report of a run, or of a bench, from its JSON document.

    Examples:

    - `n2n-edge report demo-run --open`
    - `n2n-edge report demo-run --png slides`
    - `n2n-edge report bench.json`
    """
    from n2n_edge.report.writing import write_report

    page, pictures = write_report(run, png)
    if as_json:
        written = {"report": str(page), "pictures": [str(picture) for picture in pictures]}
        print_json({"schema_version": SCHEMA_VERSION, **written})
    else:
        print_line(f"report: {page}")
        for picture in pictures:
            print_line(f"picture: {picture}")
    if open_it:
        _open(page)


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.absolute().as_uri()):
        raise UnsuitableEnvironmentError(f"--open: no browser was found here; open {page} in one yourself")
