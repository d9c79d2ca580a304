"""The `n2n-edge` command: one thin file per command, errors turned into one line and an exit code here."""

import errno
import gc
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Protocol, cast, runtime_checkable

import typer

from n2n_edge.cli.bench import bench
from n2n_edge.cli.commands import Commands
from n2n_edge.cli.compress import compress
from n2n_edge.cli.device import device_app
from n2n_edge.cli.doctor import doctor
from n2n_edge.cli.export import export
from n2n_edge.cli.gate import gate
from n2n_edge.cli.inspect import inspect
from n2n_edge.cli.output import print_error, print_line
from n2n_edge.cli.pareto import pareto
from n2n_edge.cli.predict import predict
from n2n_edge.cli.profiles import profiles_app
from n2n_edge.cli.quantize import quantize
from n2n_edge.cli.report import report
from n2n_edge.cli.streams import standard_streams
from n2n_edge.foreign import printable

__all__ = ["app", "main"]

_WRONG_INPUT, _ENVIRONMENT, _LOST = 2, 3, 3

_EXHAUSTED = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
"""What no other input would mend."""

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

        print_line(f"n2n-edge {own_version()}")
        for name, version in runtime_versions().items():
            print_line(f"{name} {version}")
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
app.command()(quantize)
app.command()(bench)
app.command()(export)
app.command()(predict)
app.command()(inspect)
app.command()(gate)
app.command()(report)
app.command()(doctor)
app.add_typer(device_app, name="device")
app.add_typer(profiles_app, name="profiles")


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 budget missed, 2 bad input, 3 can't tell, 4 out of memory."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    else:  # what onnx_ir finds odd in a file would stand above the one line that says what is wrong with it
        logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)
    # graphs are many objects that live to the end: searching them for garbage again and again took a third of the time
    gc.set_threshold(100_000, 20, 50)
    with standard_streams() as streams:
        decided = _run(debug)
    sys.exit(_LOST if decided is None and streams.lost else decided or 0)


def _run(debug: bool) -> int | None:
    """Run the command and return the exit code that it decided on, None if it came to its end without deciding."""
    from n2n_edge.errors import N2NError, lack_behind, message_of

    try:
        return cast("int | None", app(standalone_mode=False))
    except N2NError as error:
        _show(error, debug, error.on_command_line())
        return error.exit_code
    except OSError as error:
        code, text = _refusal(error)
        _show(error, debug, text)
        return code
    except typer.Abort:
        print_line("Aborted.", on_stderr=True)
        return 1
    except (
        Exception
    ) as error:  # a bug, or something about this machine: one line too, never the code of a failed budget
        if isinstance(error, _UsageError):
            return _show_usage_error(error)
        text = message_of(error) or "no message"
        lack = lack_behind(error)
        if lack is not None:
            _show(error, debug, f"there is too little of {lack} for this ({text}); allow this process more (ulimit -a)")
            return _ENVIRONMENT
        _show(error, debug, f"unexpected {type(error).__name__}: {text}; run again with --debug for details")
        return _ENVIRONMENT


@runtime_checkable
class _UsageError(Protocol):
    """What typer raises for words that it doesn't understand; it names no public class for all of them."""

    message: str
    exit_code: int

    def format_message(self) -> str: ...


def _show_usage_error(error: _UsageError) -> int:
    from typer.rich_utils import rich_format_error

    error.message = printable(error.message or "")
    rich_format_error(error)  # type: ignore[arg-type]
    return error.exit_code


def _show(error: Exception, debug: bool, text: str | None = None) -> None:
    if debug:
        for line in "".join(traceback.format_exception(error)).splitlines():
            print_line(line, on_stderr=True)
    print_error(error if text is None else text)


def _refusal(error: OSError) -> tuple[int, str]:
    """Return exit code and words for what the system refused: a file that was named, or what there is too little of."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None and error.errno not in _EXHAUSTED:
        return _WRONG_INPUT, f"{os.fsdecode(error.filename)}: {reason}; check the path and its permissions"
    try:
        Path.cwd()
    except OSError:
        return _WRONG_INPUT, "the folder that this was started in is gone; change to one that is there"
    return _ENVIRONMENT, f"the system refused: {reason}; run again with --debug for details"
