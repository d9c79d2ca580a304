"""What the tests of commands read from their output."""

import json
from typing import Any

from typer.testing import Result

__all__ = ["document_of", "line_of"]


def document_of(result: Result) -> dict[str, Any]:
    """Return the one JSON document that a command printed."""
    assert result.exit_code == 0, result.output
    loaded = json.loads(result.stdout)
    assert isinstance(loaded, dict)
    return loaded


def line_of(result: Result, *words: str) -> str:
    """Return the first line of the output that has all these words."""
    lines = [line for line in result.stdout.splitlines() if all(word in line for word in words)]
    assert lines, result.stdout
    return lines[0]
