"""Processor time and line coverage of the default tests, of one state of the program or of two side by side.

    python benchmarks/suite/run.py . [../old-checkout] [--coverage] [--only REGEX]

Each checkout is tested with the interpreter of its own `.venv`, where there is one. Its tests run in pieces of a few
files, one process after another, the checkouts in turns. `results.json`, written beside this after every piece, keeps
what is there: a run that was broken off goes on. `--coverage` counts lines of `n2n_edge`, of subprocesses, too; it
takes more time, and its seconds are kept apart.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
FILES = 6
"""Files of a piece: each piece imports everything anew, and each should end within a few minutes."""

PLUGIN = """
import json, os, pytest

def spent():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system

@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    before = spent()
    yield
    with open(os.environ["SUITE_TESTS"], "a") as file:
        file.write(json.dumps([item.nodeid, spent() - before]) + "\\n")
"""
"""What each test takes; the children of a server of processes count when the server ends, for the last test."""


def pieces(root: Path) -> dict[str, list[str]]:
    """Return the test files of a checkout in pieces, by folder."""
    folders: dict[str, list[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        parts = path.relative_to(root).parts
        folders.setdefault(parts[1] if len(parts) > 2 else "top", []).append(path.relative_to(root).as_posix())
    return {
        f"{name} {start // FILES}": files[start : start + FILES]
        for name, files in folders.items()
        for start in range(0, len(files), FILES)
    }


def run_piece(root: Path, files: list[str], data: Path | None) -> dict[str, Any]:
    """Run some test files, and return their seconds of processor time, those of children included."""
    python = root / ".venv" / "bin" / "python"
    command = [str(python) if python.exists() else sys.executable]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "suite_times.py").write_text(PLUGIN, encoding="utf-8")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SUITE_TESTS": str(folder / "tests"), "PYTHONPATH": name}
        if data is not None:
            settings = folder / "coverage.ini"
            settings.write_text(f"[run]\nsource = n2n_edge\ndata_file = {data}\nparallel = true\npatch = subprocess\n")
            command += ["-m", "coverage", "run", f"--rcfile={settings}"]
        command += ["-m", "pytest", "-q", "-p", "suite_times", "-p", "no:cacheprovider", *files]
        start = time.monotonic()
        log = folder / "log"
        with log.open("w") as said:
            process = subprocess.Popen(command, cwd=root, env=environment, stdout=said, stderr=said)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        times = folder / "tests"
        rows = [json.loads(line) for line in times.read_text().splitlines()] if times.exists() else []
        return {
            "exit": process.returncode,
            "cpu_s": round(used.ru_utime + used.ru_stime, 1),
            "wall_s": round(time.monotonic() - start, 1),
            "said": log.read_text().strip().splitlines()[-1:],
            "dearest": [[test, round(spent, 1)] for test, spent in sorted(rows, key=lambda row: -row[1])[:5]],
        }


def state_of(root: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def covered(root: Path, data: Path) -> float:
    """Return the percentage of the package's lines that ran."""
    python = root / ".venv" / "bin" / "python"
    coverage = [str(python) if python.exists() else sys.executable, "-m", "coverage"]
    option = f"--data-file={data}"
    subprocess.run([*coverage, "combine", "--keep", "-q", option, str(data.parent)], cwd=root, check=True)
    report = [*coverage, "report", option, "--format=total", "--precision=2"]
    return float(subprocess.run(report, cwd=root, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--only", default="", help="pieces whose name this pattern finds")
    given = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    todo = []
    for root in (path.resolve() for path in given.checkouts):
        label = state_of(root) + (" with coverage" if given.coverage else "")
        for number, (name, files) in enumerate(pieces(root).items()):
            if re.search(given.only, name) and name not in results.get(label, {}).get("pieces", {}):
                todo.append((number, label, root, name, files))
    for _, label, root, name, files in sorted(todo, key=lambda one: one[0]):
        data = HERE / f".coverage-{label.split()[0]}" / "data" if given.coverage else None
        if data is not None:
            data.parent.mkdir(exist_ok=True)
        state = results.setdefault(label, {"pieces": {}})
        piece = state["pieces"][name] = run_piece(root, files, data)
        state["cpu_s"] = round(sum(each["cpu_s"] for each in state["pieces"].values()), 1)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(label, name, piece["cpu_s"], *piece["said"], flush=True)
    for label, root in {label: root for _, label, root, _, _ in todo}.items() if given.coverage else ():
        results[label]["lines_percent"] = covered(root, HERE / f".coverage-{label.split()[0]}" / "data")
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
