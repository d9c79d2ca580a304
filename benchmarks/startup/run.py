"""How long the command takes to answer, beside a program that does nothing.

    python benchmarks/startup/run.py [--rounds 40]

Fresh processes in turns, in another random order each round; `results.json` and `results.md` are written beside this.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GOAL_RATIO, GOAL_GATE_S = 1.5, 1.0
RESAMPLES = 5000

BARE = '''"""A program of two commands that do nothing."""

import typer

app = typer.Typer()


@app.command()
def one() -> None:
    """Do one thing."""


@app.command()
def two() -> None:
    """Do another."""


app()
'''
COMMAND = "import sys; sys.argv[0] = 'n2n-edge'; from n2n_edge.cli.app import main; main()"


def commands(folder: Path) -> dict[str, list[str]]:
    """Return what is timed, by name; `folder` takes the bare program."""
    from n2n_edge._example import teacher_path

    bare = folder / "bare.py"
    bare.write_text(BARE, encoding="utf-8")
    own = [sys.executable, "-c", COMMAND]
    return {
        "python": [sys.executable, "-c", "pass"],
        "bare typer program --help": [sys.executable, str(bare), "--help"],
        "n2n-edge --help": [*own, "--help"],
        "n2n-edge bench --help": [*own, "bench", "--help"],
        "n2n-edge --version": [*own, "--version"],
        "n2n-edge gate MODEL --max-mb 2": [*own, "gate", str(teacher_path()), "--max-mb", "2"],
    }


def timed(command: list[str]) -> float:
    """Return the seconds of one fresh process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def ratio(times: dict[str, list[float]], name: str, base: str) -> dict[str, float]:
    """Return the median over rounds of one time over another, with a 95% interval by a bootstrap over rounds."""
    logs = np.log(times[name]) - np.log(times[base])
    drawn = np.random.default_rng(0).integers(0, len(logs), (RESAMPLES, len(logs)))
    low, high = np.quantile(np.median(logs[drawn], axis=1), [0.025, 0.975])
    found = {"value": float(np.median(logs)), "low": float(low), "high": float(high)}
    return {key: round(float(np.exp(value)), 3) for key, value in found.items()}


def run(rounds: int) -> dict[str, object]:
    """Time everything in turns."""
    times: dict[str, list[float]] = {}
    order = random.Random(0)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        wanted = commands(Path(folder))
        for command in wanted.values():  # files and byte code are read once before
            timed(command)
        for _ in range(rounds):
            for name in order.sample(list(wanted), len(wanted)):
                times.setdefault(name, []).append(timed(wanted[name]))
        times = {name: times[name] for name in wanted}
    bare = "bare typer program --help"
    return {
        "machine": {
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "load_before": round(before, 1),
            "load_after": round(os.getloadavg()[0], 1),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("typer", "rich", "onnx-ir", "numpy", "n2n-edge")},
        },
        "rounds": rounds,
        "seconds": {
            name: {
                "median": round(statistics.median(found), 4),
                "least": round(min(found), 4),
                "most": round(max(found), 4),
            }
            for name, found in times.items()
        },
        "ratio_to_bare": {name: ratio(times, name, bare) for name in times if name.startswith("n2n-edge")},
        "goals": {"help_ratio": GOAL_RATIO, "gate_s": GOAL_GATE_S},
    }


def as_markdown(results: dict[str, object]) -> str:
    """Return the results as a page."""
    seconds, ratios = results["seconds"], results["ratio_to_bare"]
    machine, versions = results["machine"], results["versions"]
    assert isinstance(seconds, dict)
    assert isinstance(ratios, dict)
    assert isinstance(machine, dict)
    assert isinstance(versions, dict)
    lines = [
        f"{results['rounds']} rounds in turns, {machine['cores']} {machine['architecture']} cores, load "
        f"{machine['load_before']} before and {machine['load_after']} after; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "",
        "| command | median, s | least to most, s | times the bare program (95%) |",
        "| --- | --- | --- | --- |",
    ]
    for name, found in seconds.items():
        beside = ratios.get(name)
        words = "" if beside is None else f"{beside['value']:.2f} ({beside['low']:.2f} to {beside['high']:.2f})"
        lines.append(f"| `{name}` | {found['median']:.3f} | {found['least']:.3f} to {found['most']:.3f} | {words} |")
    help_ratio = ratios["n2n-edge --help"]
    gate = seconds["n2n-edge gate MODEL --max-mb 2"]["median"]
    lines += [
        "",
        f"Goals: help at most {GOAL_RATIO} times the bare program: {_met(help_ratio['high'] <= GOAL_RATIO)}; a static "
        f"gate within {GOAL_GATE_S:g} s: {_met(gate <= GOAL_GATE_S)}.",
    ]
    return "\n".join(lines) + "\n"


def _met(met: bool) -> str:
    return "met" if met else "missed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    results = run(parser.parse_args().rounds)
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(as_markdown(results), encoding="utf-8")
    print(as_markdown(results))


if __name__ == "__main__":
    main()
