"""Killing a run at any instant loses nothing that counts: resumed, it ends with the same student.

`test_compress` has one kill amid a search by default.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the built-in example needs scikit-learn")

SETTINGS = ["--max-mb", "0.2", "--max-macs", "3e6", "--effort", "quick", "--candidates", "6", "--epochs", "3"]

IN_PRECISION = ["--precision", "auto", "--max-mb", "0.05", "--device", "raspberry-pi-4", *SETTINGS[4:]]
"""Int8 is what the budget asks for; on a board nothing is timed, so that what ships isn't a matter of chance."""


def command(out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "n2n_edge", "compress", *words, "--out", str(out)]


def run_to_the_end(out: Path, *words: str) -> float:
    start = time.monotonic()
    done = subprocess.run(command(out, *words), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - start


def kill_after(out: Path, seconds: float, *words: str) -> bool:
    """Run and kill after `seconds`; tell whether the run was still going."""
    process = subprocess.Popen(
        command(out, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def winner(out: Path) -> str:
    import json

    report = json.loads((out / "report.json").read_text())
    return json.dumps(report["architecture"], sort_keys=True)


def check_kills(tmp_path: Path, kills: int, seed: int, settings: list[str] = SETTINGS, latest: float = 0.75) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    duration = run_to_the_end(whole, *settings)
    moments = random.Random(seed)
    begun = 0
    for _ in range(kills):
        words = ["--resume"] if (broken / "run.toml").exists() else settings
        begun += kill_after(broken, moments.uniform(0.1, latest) * duration, *words)
    assert begun > 0, "no kill met a running process: the run is over too soon to test anything"
    run_to_the_end(broken, "--resume") if (broken / "run.toml").exists() else run_to_the_end(broken, *settings)
    assert winner(broken) == winner(whole)
    assert (broken / "student.onnx").read_bytes() == (whole / "student.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kill_9_at_random_moments_changes_nothing(tmp_path: Path, seed: int) -> None:
    check_kills(tmp_path, kills=1, seed=100 + seed)


@pytest.mark.slow
def test_ten_kills_of_one_run_change_nothing(tmp_path: Path) -> None:
    check_kills(tmp_path, kills=10, seed=1)


@pytest.mark.slow
def test_kills_of_a_run_that_chooses_precision_change_nothing(tmp_path: Path) -> None:
    check_kills(tmp_path, kills=4, seed=7, settings=IN_PRECISION, latest=0.5)
    import json

    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "broken")]
    assert [report["precision"]["ships"] for report in reports] == ["int8", "int8"]
    assert reports[0]["precision"]["steps"] == reports[1]["precision"]["steps"]
    assert list((tmp_path / "broken").glob("*.checkpoint*")) == []
