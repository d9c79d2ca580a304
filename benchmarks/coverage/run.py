"""The coverage table: every family through n2n-edge and torch-pruning, each in a process of its own.

Rows that are in ``results.json`` already are kept unless ``--again``; ``--only`` names families; ``--zoo`` is a folder
where exported networks are kept between runs (about 4 GB). Writes ``results.json`` and ``results.md``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from families import FAMILIES
from table import write_table

HERE = Path(__file__).parent


def main() -> None:
    """Fill the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, help="folder of exported networks; default: a temporary one")
    parser.add_argument("--models", type=Path, help="folder of real models (*.onnx) to judge too")
    parser.add_argument("--no-families", action="store_true", help="judge the models of --models alone")
    parser.add_argument("--only", nargs="*", help="families to do; default: all")
    parser.add_argument("--tools", nargs="*", default=["ours", "peer"], choices=["ours", "peer"])
    parser.add_argument("--again", action="store_true", help="do rows again that are there")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one row")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        zoo = options.zoo or Path(folder)
        zoo.mkdir(parents=True, exist_ok=True)
        families = () if options.no_families else FAMILIES
        tasks = [(family.name, family.kind, zoo / f"{family.name}.onnx") for family in families]
        if options.models:
            tasks += [(path.stem, "real model", path) for path in sorted(options.models.glob("*.onnx"))]
        for name, kind, file in tasks:
            if options.only and name not in options.only:
                continue
            row = rows.setdefault(name, {"kind": kind})
            for tool in options.tools:
                if (tool in row and not options.again) or (tool == "peer" and kind == "real model"):
                    continue
                row[tool] = _run_row(tool, name, file, options.timeout)
                print(name, tool, json.dumps(row[tool]), flush=True)
                _write(options.out, rows)
            if not options.zoo and kind != "real model":
                file.unlink(missing_ok=True)
    write_table(rows, options.out.with_suffix(".md"))


def _run_row(tool: str, name: str, file: Path, timeout: float) -> dict[str, object]:
    command = [sys.executable, str(HERE / "row.py"), tool, name, str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [""])[-1][:160]
        return {"error": f"the process ended with {done.returncode}: {last}"}
    return dict(json.loads(lines[-1]))


def _write(path: Path, rows: dict[str, object]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    main()
