"""The `n2n-edge` command: one thin file per command, errors turned into one line and an exit code here."""

import sys
from typing import Annotated

import typer

from n2n_edge.cli.bench import bench
from n2n_edge.cli.commands import Commands
from n2n_edge.cli.compress import compress
from n2n_edge.cli.device import device_app
from n2n_edge.cli.doctor import doctor
from n2n_edge.cli.gate import gate
from n2n_edge.cli.inspect import inspect
from n2n_edge.cli.pareto import pareto
from n2n_edge.cli.predict import predict
from n2n_edge.cli.profiles import profiles_app
from n2n_edge.cli.report import report

__all__ = ["app", "main"]

app = typer.Typer(
    name="n2n-edge",
    cls=Commands,
    help="Make a trained neural network fit a real embedded board.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # in rich's own markup what stands in brackets vanishes from help texts
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from n2n_edge.versions import own_version, runtime_versions

        print(f"n2n-edge {own_version()}")
        for name, version in runtime_versions().items():
            print(f"{name} {version}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the versions of n2n-edge, Python and what it runs on, and exit.",
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make a trained neural network fit a real embedded board."""


app.command()(compress)
app.command()(pareto)
app.command()(bench)
app.command()(predict)
app.command()(inspect)
app.command()(gate)
app.command()(report)
app.command()(doctor)
app.add_typer(device_app, name="device")
app.add_typer(profiles_app, name="profiles")


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 budget missed, 2 bad input, 3 can't tell, 4 out of memory."""
    from n2n_edge.errors import N2NError

    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except N2NError as error:
        if debug:
            raise
        print(f"n2n-edge: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (
        Exception
    ) as error:  # a bug, or something about this machine: one line too, never the code of a failed budget
        if debug:
            raise
        text = " ".join(str(error).split()) or "no message"
        print(
            f"n2n-edge: unexpected {type(error).__name__}: {text}; run again with --debug for details", file=sys.stderr
        )
        sys.exit(3)
