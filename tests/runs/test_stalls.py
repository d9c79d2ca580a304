"""A candidate whose training stalls or kills the process fails alone: the run ends, and resumed goes on without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import n2n_edge
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.search.store import Journal
from tests.fork_server import Forks
from tests.runs.small import images_npz, teacher_file

TIME_LIMIT_S = 300
SETTINGS = ["--max-params", "4000", "--effort", "quick", "--candidates", "3", "--epochs", "1", "--policy", "random"]

COMMAND = """
import os, sys, time
from n2n_edge.cli.app import main
from n2n_edge.training.optimiser import Optimiser

real, modules = Optimiser._step, []

def step(self, *given):
    if self.module not in modules:
        modules.append(self.module)
    if len(modules) == 3:  # the first is that of the timed steps, the third of the second candidate
        WHAT
    return real(self, *given)

Optimiser._step = step
main()
"""
STALL = "while True: time.sleep(0.05)"
CRASH = "os.abort()"
VANISH = "os.kill(os.getpid(), 9)"


def compress(forks: Forks, out: Path, *words: str, fault: str = "pass") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"}
    limit = {"N2N_EDGE_STALL_S": "20"} if fault == STALL else {}
    return subprocess.run(
        forks.argv([sys.executable, "-c", COMMAND.replace("WHAT", fault), "compress", *words, "--out", str(out)]),
        env={**environment, **limit}, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip


def small(folder: Path) -> list[str]:
    """Return the words that name a small teacher and its data."""
    teacher, data = teacher_file(folder / "teacher.onnx"), images_npz(folder / "data.npz")
    return [str(teacher), "--data", str(data), "--mean", "0.5", "--std", "0.5", *SETTINGS]


def resume(out: Path) -> str:
    """Go on with a run to its end, and return what it said."""
    said: list[str] = []

    class Listening(RunCallback):
        def on_message(self, text: str) -> None:
            said.append(text)

    n2n_edge.compress(out=out, resume=True, callbacks=[Listening()])
    return "\n".join(said)


@pytest.mark.parametrize(
    ("fault", "code"),
    [pytest.param(STALL, 3, id="stall"), pytest.param(CRASH, -6, id="crash", marks=pytest.mark.slow)],
)
def test_a_candidate_that_ends_the_process_fails_alone(
    fault: str, code: int, torch_forks: Forks, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = compress(torch_forks, out, *small(tmp_path), fault=fault)
    assert ended.returncode == code, ended.stderr
    assert "in step" in (ended.stderr if fault == STALL else (out / "stacks.txt").read_text())
    if fault == STALL:
        last = ended.stderr.strip().splitlines()[-1]
        assert "/3, training candidate " in last or "/2, training candidate " in last
        assert ", training step: has not ended for" in last
        assert f"--resume --out {out}" in last
    said = resume(out)
    assert "crashed or stalled before" in said
    assert "left out, since it ended the process before" in said
    assert not (out / "stacks.txt").exists()
    with Journal.read(out / "journal.sqlite") as journal:
        rows = journal.trials()
    failed = [row for row in rows if not row.feasible and row.costs.params <= 4000]
    assert len({row.key for row in failed}) == 1
    assert all(row.reward < 0 and row.score is None for row in failed)
    assert any(row.feasible for row in rows)
    assert json.loads((out / "report.json").read_text())["student"]["params"]["value"] <= 4000


@pytest.mark.slow
def test_a_candidate_that_kills_the_process_without_a_word_is_tried_three_times(
    torch_forks: Forks, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert compress(torch_forks, out, *small(tmp_path), fault=VANISH).returncode == -9
    # a resumed process trains the same candidate first
    program = COMMAND.replace("len(modules) == 3", "True").replace("WHAT", VANISH)
    for _ in range(2):
        ended = subprocess.run(
            torch_forks.argv([sys.executable, "-c", program, "compress", "--resume", "--out", str(out)]),
            capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False,
        )  # fmt: skip
        assert ended.returncode == -9, ended.stderr
    assert "left out, since it ended the process before" in resume(out)
