"""Documents of one state of the program, to hold against those of another.

``python -m benchmarks.behaviour.freeze OUT [MODEL ...]`` writes what `inspect`, `gate`, `predict` and `pareto` print as
JSON, and report, journal and the student's digest of short runs on the built-in example at fixed seeds.
``--against OTHER`` then names every difference and exits with 1 if there is one. Both states must run on the same
processor: trained weights depend on it.
"""

import argparse
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

_BUDGETS = ["--device", "raspberry-pi-4", "--max-mb", "0.12", "--max-latency-ms", "1.0"]
_RUNS = {
    "example": [*_BUDGETS, "--effort", "quick", "--epochs", "3"],
    "two-devices": [
        "--device",
        "raspberry-pi-4",
        "--device",
        "jetson",
        "--max-mb",
        "0.12",
        "--candidates",
        "4",
        "--epochs",
        "1",
    ],
    "no-budget": ["--device", "raspberry-pi-4", "--candidates", "4", "--epochs", "1"],
    "values": [*_BUDGETS, "--task", "regression", "--candidates", "4", "--epochs", "1"],
    **{
        name: [*_BUDGETS, "--policy", name, "--candidates", "4", "--epochs", "1"]
        for name in ("n2n", "random", "greedy", "evolution")
    },
}
_UNSTABLE = re.compile(r"(seconds|_at|created|time|date|elapsed|platform|version|cpu|host)$")


def _command(out: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "n2n_edge", *arguments],
        capture_output=True, text=True, timeout=1200, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout.replace(str(out), "OUT")


def _stable(value: object) -> object:
    """Return a document without the clock's part in it."""
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if not _UNSTABLE.search(key)}
    return [_stable(item) for item in value] if isinstance(value, list) else value


def _write(path: Path, code: int, text: str) -> None:
    try:
        body: object = _stable(json.loads(text))
    except ValueError:
        body = text.splitlines()
    path.write_text(json.dumps({"exit_code": code, "document": body}, indent=1, ensure_ascii=False), encoding="utf-8")


def _journal(path: Path) -> dict[str, list[list[str]]]:
    """Return every table's rows; times and digests of nothing that a user sees stay out."""
    base = sqlite3.connect(path)
    tables = [name for (name,) in base.execute("select name from sqlite_master where type='table' order by name")]
    rows = {name: [[str(item) for item in row] for row in base.execute(f'select * from "{name}"')] for name in tables}
    base.close()
    return rows


def freeze(out: Path, models: list[Path], runs: bool) -> None:
    """Write the documents of this state into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for model in models:
        _write(out / f"inspect-{model.stem}.json", *_command(out, "inspect", str(model), "--json"))
        _write(
            out / f"predict-{model.stem}.json",
            *_command(out, "predict", str(model), "--device", "raspberry-pi-4", "--json"),
        )
        gate = (
            "gate",
            str(model),
            "--static",
            "--no-config",
            "--max-mb",
            "1",
            "--max-params",
            "300000",
            "--max-macs",
            "1e8",
        )
        _write(out / f"gate-{model.stem}.json", *_command(out, *gate, "--json"))
    for name, options in _RUNS.items() if runs else ():
        folder = out / f"run-{name}"
        code, text = _command(out, "compress", *options, "--out", str(folder), "--json")
        _write(out / f"report-{name}.json", code, text)
        _write(out / f"pareto-{name}.json", *_command(out, "pareto", str(folder), "--json"))
        student = folder / "student.onnx"
        digest = hashlib.sha256(student.read_bytes()).hexdigest() if student.is_file() else "none"
        facts = {"student": digest, "journal": _journal(folder / "journal.sqlite")}
        (out / f"facts-{name}.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _differences(one: object, other: object, where: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted({*one, *other})
            for line in _differences(one.get(key), other.get(key), f"{where}.{key}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line
            for at, (a, b) in enumerate(zip(one, other, strict=True))
            for line in _differences(a, b, f"{where}[{at}]")
        ]
    return [] if one == other else [f"{where}: {json.dumps(one)[:160]} -> {json.dumps(other)[:160]}"]


def main() -> int:
    """Freeze this state, and compare it with another if one is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--no-runs", action="store_true")
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    freeze(given.out, given.models, not given.no_runs)
    lines: list[str] = []
    for path in sorted(given.against.glob("*.json")) if given.against else ():
        here = given.out / path.name
        if here.is_file():
            lines += [
                f"{path.name} {line}"
                for line in _differences(json.loads(path.read_text()), json.loads(here.read_text()))
            ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
