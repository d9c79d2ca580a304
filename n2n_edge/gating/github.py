"""A gate as GitHub Actions shows it: annotations on the log, and the job's summary.

Forms and limits: GitHub's documentation, "Workflow commands for GitHub Actions".
"""

from collections.abc import Sequence
from pathlib import Path

from n2n_edge.foreign import printable
from n2n_edge.gating.check import Gated, exit_code_of
from n2n_edge.gating.markdown import gate_markdown
from n2n_edge.gating.repository_path import repository_path
from n2n_edge.metrics.outcome import Outcome, worst

__all__ = ["SUMMARY_BYTES", "append_outputs", "append_summary", "github_annotations", "github_error"]

SUMMARY_BYTES = 1024 * 1024
"""The most that a step's summary may hold; a larger one isn't shown at all."""

_ANNOTATIONS = 10
"""The most annotations of one level that are shown of one step."""

_LEVELS: dict[Outcome, str] = {"fail": "error", "inconclusive": "warning"}


def github_annotations(found: Sequence[Gated]) -> list[str]:
    """Return a line per check that didn't pass, ten a level at the most: the tenth then counts the others."""
    lines = []
    for outcome, level in _LEVELS.items():
        wanted = [
            _command(level, check.reason, file=repository_path(gated.model), title=f"n2n-edge gate: {check.asked}")
            for gated in found
            for check in gated.checks
            if check.outcome == outcome
        ]
        if len(wanted) > _ANNOTATIONS:
            more = len(wanted) - _ANNOTATIONS + 1
            wanted = [
                *wanted[: _ANNOTATIONS - 1],
                _command(level, f"and {more} more, see the summary", title="n2n-edge gate"),
            ]
        lines += wanted
    return lines


def github_error(message: str) -> str:
    """Return the line that shows why a gate couldn't begin."""
    return _command("error", message, title="n2n-edge gate")


def append_summary(found: Sequence[Gated], path: Path) -> None:
    """Add the tables to a job's summary, as much of them as fits beside what is there.

    Raises:
        OSError: the file can't be written.
    """
    room = SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
    text = gate_markdown(found, most_bytes=room - 1)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)


def append_outputs(found: Sequence[Gated], path: Path) -> None:
    """Add `outcome` and `exit-code` to the outputs of a step.

    Raises:
        OSError: the file can't be written.
    """
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"outcome={worst(one.outcome for one in found)}\nexit-code={exit_code_of(found)}\n")


def _command(level: str, message: str, **properties: str) -> str:
    words = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {words}::{_data(message)}"


def _data(text: str) -> str:
    """Escape text as GitHub asks; its own line breaks stay, other control characters show."""
    text = "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))
    return text.replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
