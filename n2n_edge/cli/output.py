"""Lines and documents that commands print."""

import json
import sys
from collections.abc import Iterable

from n2n_edge.cli.streams import StandardStream
from n2n_edge.errors import N2NError
from n2n_edge.foreign import encodable, printable

__all__ = ["print_commands", "print_error", "print_json", "print_line", "print_warning"]


def print_line(text: object, *, on_stderr: bool = False) -> None:
    """Print text on one line, whatever is in the names that it holds."""
    print(printable(text), file=sys.stderr if on_stderr else sys.stdout)


def print_warning(text: object) -> None:
    """Print a warning on stderr."""
    print_line(f"warning: {text}", on_stderr=True)


def print_error(error: object) -> None:
    """Print an error on stderr, as one line."""
    text = error.on_command_line() if isinstance(error, N2NError) else str(error)
    print_line(f"n2n-edge: {' '.join(text.split())}", on_stderr=True)


def print_json(document: object) -> None:
    """Print a document on stdout, in characters that every encoding has.

    Raises:
        ValueError: the document holds a number that isn't finite.
    """
    print(json.dumps(encodable(document), indent=2, allow_nan=False))


def print_commands(lines: Iterable[str], *, on_stderr: bool) -> None:
    """Print lines that a CI runner is to obey."""
    stream = sys.stderr if on_stderr else sys.stdout
    for line in lines:
        if isinstance(stream, StandardStream):
            stream.write_command(line)
        else:
            print(line, file=stream)
