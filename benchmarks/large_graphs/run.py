"""Processor time and memory of `inspect` and `gate --static` on graphs of 10,000 nodes.

``python -m benchmarks.large_graphs.run [KIND ...]`` from the repository's root writes ``results.json`` and
``results.md``; kinds that aren't named keep their rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.large_graphs.graphs import GRAPHS, write_graph

HERE = Path(__file__).parent
NODES = 10_000
COMMANDS: dict[str, list[str]] = {
    "inspect": [],
    "gate": ["--static", "--no-config", "--max-mb", "1000", "--max-macs", "1e15", "--max-memory-mb", "1e6"],
}
LIMITS = {"inspect": (10.0, 500.0), "gate": (3.0, 300.0)}
"""Seconds and MB that are allowed on an idle core."""


def measure(command: str, path: Path) -> dict[str, object]:
    """Return the processor time (user and system, s) and the largest resident set (MB) of one command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "n2n_edge", command, str(path), *COMMANDS[command]],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    return {
        "exit_code": os.waitstatus_to_exitcode(status),
        "user_s": round(used.ru_utime, 2),
        "system_s": round(used.ru_stime, 2),
        "peak_mb": round(used.ru_maxrss * 1024 / 1e6),
    }


def main() -> None:
    """Measure the kinds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(GRAPHS)}; all by default")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args()
    rows = json.loads(given.out.read_text()) if given.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.kinds or GRAPHS:
            path = write_graph(kind, NODES, Path(folder) / f"{kind}.onnx")
            rows[kind] = {command: measure(command, path) for command in COMMANDS}
            given.out.write_text(json.dumps(rows, indent=1) + "\n")
    _write_table(rows, given.out.with_suffix(".md"))


def _write_table(rows: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    limits = [f"{command} (at most {seconds:g} s, {mb:g} MB)" for command, (seconds, mb) in LIMITS.items()]
    lines = [f"| {NODES:,} nodes | {' | '.join(limits)} |", "| --- |" + " --- |" * len(limits)]
    for kind, row in rows.items():
        cells = [f"{row[command]['user_s']:.1f} s, {row[command]['peak_mb']:.0f} MB" for command in LIMITS]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
