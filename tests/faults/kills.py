"""Runs that are killed in a chosen phase, at a chosen moment of it, and gone on with.

A run announces its phases, those that the watchdog names and the writing of the report, on its stdout; `SIGKILL` comes
from outside, whatever the process is at.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.killed_run import MARK
from tests.fork_server import Forks
from tests.runs.small import images_npz, teacher_file

__all__ = ["MODULES", "PHASES", "Killed", "Timeline", "begin", "finished", "kills_of_a_run", "outcome_of", "words"]

ROOT = Path(__file__).resolve().parents[2]

PHASES = (
    "start", "preparation", "schedule", "importance of channels", "sensitivity profile", "removal", "shrinkage",
    "finalist", "final distillation", "export and tests", "report",
)  # fmt: skip
"""In the order of a run: its two stages are called removal and shrinkage, its rungs are of finalists."""

TIME_LIMIT_S = 600

MODULES = ("n2n_edge.cli.app", "torch", "lightning_fabric", "onnxscript", "n2n_edge.runs.execution")
"""What a server of forks that begins many runs does well to have imported."""


def words(folder: Path) -> list[str]:
    """Return the words of a run of a few seconds that goes through every phase, its teacher and data in `folder`."""
    teacher, data = teacher_file(folder / "teacher.onnx"), images_npz(folder / "data.npz", 200, labels=False)
    return [
        str(teacher), "--data", str(data), "--mean", "0.5", "--std", "0.5", "--max-params", "4000",
        "--device", "raspberry-pi-4", "--effort", "quick", "--candidates", "8", "--epochs", "4",
    ]  # fmt: skip


@dataclass
class Timeline:
    """When each phase began, and when the process ended, in seconds."""

    begun: list[tuple[str, float]] = field(default_factory=list)
    end_s: float = 0.0

    def duration_s(self, phase: str) -> float:
        """Return how long a phase took, with all its parts."""
        starts = [start for _, start in self.begun[1:]] + [self.end_s]
        return sum(after - start for (name, start), after in zip(self.begun, starts, strict=True) if name == phase)


def phase_named(text: str) -> str | None:
    """Return the phase that a line announces, without its number."""
    return next((phase for phase in PHASES if text.startswith(phase)), None)


def begin(forks: Forks, out: Path, given: Sequence[str] | None, log: Path | None = None) -> "subprocess.Popen[bytes]":
    """Begin a run, or go on with one where no words are given; what it says goes to `log`, by default beside it."""
    words = ["--resume"] if given is None else given
    address = "" if forks.address is None else str(forks.address)
    argv = [sys.executable, "-m", "tests.faults.killed_run", address, "compress", *words, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with (log or out.parent / f"{out.name}.log").open("ab") as said:
        return subprocess.Popen(forks.argv(argv), stdout=subprocess.PIPE, stderr=said, env=environment, cwd=ROOT)


def _announced(process: "subprocess.Popen[bytes]") -> Iterator[tuple[str, str]]:
    assert process.stdout is not None
    for line in process.stdout:
        text = line.decode(errors="replace")
        if text.startswith(MARK):
            name = text.removeprefix(MARK).strip()
            pid, _, rest = name.partition(" ")
            phase = phase_named(rest if pid.isdecimal() else name)
            if phase is not None:
                yield phase, pid


def finished(forks: Forks, out: Path, given: Sequence[str] | None = None) -> Timeline:
    """Run, or go on, to the end; raises AssertionError where it ends in another way."""
    timeline, start = Timeline(), time.monotonic()
    with begin(forks, out, given) as process:
        for phase, _ in _announced(process):
            if not timeline.begun or timeline.begun[-1][0] != phase:
                timeline.begun.append((phase, time.monotonic() - start))
        code = process.wait(TIME_LIMIT_S)
    timeline.end_s = time.monotonic() - start
    assert code == 0, (out.parent / f"{out.name}.log").read_text()[-2000:]
    return timeline


@dataclass(frozen=True)
class Killed:
    """A kill: the phase that was wanted, and the one that it met; None where the run was over before."""

    wanted: str
    met: str | None


def killed(forks: Forks, out: Path, given: Sequence[str] | None, phase: str, wait_s: float) -> Killed:
    """Begin, or go on with, a run, and kill it some seconds after it entered a phase, or one behind that."""
    met: str | None = None
    with begin(forks, out, given) as process:
        pid = 0
        for found, number in _announced(process):
            if number.isdecimal():
                pid = int(number)
            met = found
            if PHASES.index(found) >= PHASES.index(phase):
                break
        else:
            assert process.wait(TIME_LIMIT_S) == 0, (out.parent / f"{out.name}.log").read_text()[-2000:]
            return Killed(phase, None)
        end = time.monotonic() + wait_s
        os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
        pending = b""
        while time.monotonic() < end and process.poll() is None:
            time.sleep(min(0.01, max(0.0, end - time.monotonic())))
            pending += process.stdout.read() or b""  # type: ignore[union-attr]
        lines = [line.removeprefix(MARK) for line in pending.decode(errors="replace").splitlines()]
        met = next((name for name in map(phase_named, reversed(lines)) if name is not None), met)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            met = None
        process.wait(TIME_LIMIT_S)
    return Killed(phase, met)


def kills_of_a_run(
    forks: Forks, out: Path, given: Sequence[str], phases: Sequence[str], whole: Timeline, random: Random
) -> list[Killed]:
    """Kill a run once in each of `phases`, each time going on with what there is, then let it finish.

    The moment is anywhere in what the phase took in the unbroken run `whole`.
    """
    found = []
    for phase in phases:
        words = None if (out / "run.toml").exists() else given
        found.append(killed(forks, out, words, phase, random.random() * whole.duration_s(phase)))
    finished(forks, out, None if (out / "run.toml").exists() else given)
    return found


def outcome_of(out: Path) -> tuple[bytes, str, list[str]]:
    """Return what has to be the same however often a run is killed: the student, the winner, and all trials."""
    from n2n_edge.search.store import Journal

    report = json.loads((out / "report.json").read_text())
    with Journal.read(out / "journal.sqlite") as journal:
        trials = [
            f"{trial.stage} {trial.number} {trial.key} {trial.reward!r} {trial.score!r}" for trial in journal.trials()
        ]
    return (out / "student.onnx").read_bytes(), json.dumps(report["architecture"], sort_keys=True), trials
