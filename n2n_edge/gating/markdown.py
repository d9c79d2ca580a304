"""A gate as Markdown, for a job's summary or a comment."""

from collections.abc import Sequence

from n2n_edge.gating.check import Gated, summary_of
from n2n_edge.gating.repository_path import repository_path
from n2n_edge.metrics.outcome import Outcome
from n2n_edge.writing import markdown_code, markdown_text

__all__ = ["gate_markdown"]

_WORDS: dict[Outcome, str] = {"pass": "pass", "fail": "**FAIL**", "inconclusive": "*inconclusive*"}
_CUT = "\n*{} lines are left out here, since the summary would be too large.*\n"


def gate_markdown(found: Sequence[Gated], most_bytes: int | None = None) -> str:
    """Return a table per model, warnings and notes below it, those that didn't pass first.

    With `most_bytes` whole lines are left out from the end until it fits, and their number is said.
    """
    lines = ["## n2n-edge gate", "", f"**{markdown_text(summary_of(found))}**", ""]
    for gated in sorted(found, key=lambda one: one.outcome == "pass"):
        lines += [
            f"### {markdown_code(repository_path(gated.model))}",
            "",
            "| asked | verdict | reached |",
            "| --- | --- | --- |",
        ]
        for check in sorted(gated.checks, key=lambda one: one.outcome == "pass"):
            lines.append(f"| {markdown_code(check.asked)} | {_WORDS[check.outcome]} | {markdown_text(check.reason)} |")
        remarks = [f"- **warning**: {markdown_text(str(warning))}" for warning in gated.warnings]
        remarks += [f"- {markdown_text(str(note))}" for note in gated.notes]
        lines += ["", *remarks, *([""] if remarks else [])]
    return _fitted(lines, most_bytes)


def _fitted(lines: Sequence[str], most_bytes: int | None) -> str:
    text = "\n".join(lines).rstrip() + "\n"
    if most_bytes is None or len(text.encode()) <= most_bytes:
        return text
    kept = list(lines)
    size = len(text.encode()) + len(_CUT.format(len(lines)).encode())
    while kept and size > most_bytes:
        size -= len(kept.pop().encode()) + 1
    cut = _CUT.format(len(lines) - len(kept))
    return "\n".join(kept).rstrip() + "\n" + cut if kept else ""
