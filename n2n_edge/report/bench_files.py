"""The results of a bench as CSV and as Markdown."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from n2n_edge.measure.comparison import Comparison
from n2n_edge.measure.suite import Suite
from n2n_edge.report.bench_document import Benched, BenchJson
from n2n_edge.report.bench_words import bench_cells, comparison_words
from n2n_edge.writing import markdown_text

__all__ = ["bench_csv", "bench_markdown"]

COLUMNS = ("path", "target", "runtime", "threads", "batch", "n", "converged")


def bench_csv(document: BenchJson) -> str:
    """Return a line per model: what it was and how it ran, then each figure's value under its name."""
    rows = []
    for model in document["models"]:
        row = {name: model.get(name, "") for name in (*COLUMNS, "error")}
        row |= {name: value["value"] for name, value in model.items() if _is_figure(value)}
        if "p50_ms" in model:
            row |= {"p50_low_ms": model["p50_ms"]["low"], "p50_high_ms": model["p50_ms"]["high"]}
        against = model.get("against_first")
        if against is not None:
            row |= {
                "ratio": against["ratio"]["value"],
                "ratio_low": against["ratio"]["low"],
                "ratio_high": against["ratio"]["high"],
                "verdict": against["verdict"],
            }
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def bench_markdown(suite: Suite, rows: Sequence[Benched], document: BenchJson) -> str:
    """Return a table with a column per model, the comparisons, and the warnings."""
    good = [row for row in rows if row.entry.measurement is not None]
    lines = [f"Target: {document['target']['name']} ({document['target']['provenance']})", ""]
    if good:
        cells = [bench_cells(row) for row in good]
        lines.append("| | " + " | ".join(markdown_text(row.name) for row in good) + " |")
        lines.append("| --- |" + " ---: |" * len(good))
        for label in dict.fromkeys(label for cell in cells for label in cell):
            lines.append(f"| {label} | " + " | ".join(markdown_text(cell.get(label, "")) for cell in cells) + " |")
        lines.append("")
    first = rows[0].name
    if isinstance(suite.noise_floor, Comparison):
        lines.append("- " + markdown_text(comparison_words(f"noise floor, {first} again", "itself", suite.noise_floor)))
    for row in rows:
        name = row.name
        if row.entry.comparison is not None:
            lines.append("- " + markdown_text(comparison_words(name, first, row.entry.comparison)))
        if row.entry.error is not None:
            lines.append(f"- {markdown_text(row.entry.error.on_command_line())}")
        measured = row.entry.measurement
        lines += [
            f"- {markdown_text(name)}: warning: {markdown_text(str(warning))}"
            for warning in (measured.warnings if measured else ())
        ]
    return "\n".join(lines).rstrip() + "\n"


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and "value" in value and "unit" in value
