"""Hunt for faults: mutated files, read in a process with limits, and what became of each.

>>> with running_hunt(tmp_path) as hunt:
...     found = hunt.read("onnx", Random(7))
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.subjects import CONTROL, ROOT, SUBJECTS, Files
from tests.faults.worker import MOST_BYTES
from tests.fork_server import Forks

__all__ = ["FAULTS", "Finding", "Hunt", "running_hunt", "shares"]

ANSWER_S = 20.0
"""What an answer may take, of the processor's time."""
_PATIENCE = 5
FAULTS = ("traceback", "several lines", "signal", "slow", "memory", "overwritten", "left behind")


@dataclass(frozen=True)
class Finding:
    """What became of one input: accepted, refused, unforeseen, or a fault."""

    kind: str
    outcome: str
    text: str
    traceback: str
    seconds: float
    peak_bytes: int
    files: Files

    @property
    def is_fault(self) -> bool:
        return self.outcome in FAULTS

    def keep(self, folder: Path) -> None:
        """Write the input to a folder, to look at it again."""
        write(self.files, folder)


def write(files: Files, folder: Path) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def shares(inputs: int) -> dict[str, int]:
    """Return how many of so many inputs are of which kind."""
    total = sum(subject.weight for subject in SUBJECTS.values())
    found = {kind: inputs * subject.weight // total for kind, subject in SUBJECTS.items()}
    first = next(iter(found))
    return {**found, first: found[first] + inputs - sum(found.values())}


class Hunt:
    """A process that reads, started anew whenever an input ends it."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self._folder, self._forks = folder, forks
        self._worker: subprocess.Popen[bytes] | None = None
        self._log = folder / "worker.log"
        self._count = 0

    def read(self, kind: str, random: Random) -> Finding:
        """Make an input of a kind, hand it to the program, and return what became of it."""
        return self.read_files(kind, SUBJECTS[kind].make(random), random.randrange(2**31))

    def read_files(self, kind: str, files: Files, seed: int) -> Finding:
        self._count += 1
        folder = self._folder / f"input-{self._count}"
        write(files, folder)
        found = self._ask(kind, folder, seed)
        outcome, text = found["outcome"], found["text"]
        subject = SUBJECTS.get(kind, CONTROL)
        if outcome not in FAULTS:
            if found["seconds"] > ANSWER_S:
                outcome, text = "slow", f"{found['seconds']:.0f} s: {text}"
            elif found["peak_bytes"] > MOST_BYTES:
                outcome, text = "memory", f"{found['peak_bytes'] / 1e6:,.0f} MB: {text}"
                self.stop()  # what it holds counts for the next
            changed = [name for name, data in files.items() if (folder / name).read_bytes() != data]
            if changed:
                outcome, text = "overwritten", ", ".join(changed)
            there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
            more = [name for name in there - set(files) if not name.endswith(subject.writes or ("\0",))]
            if more:
                outcome, text = "left behind", ", ".join(more)
        shutil.rmtree(folder)
        return Finding(
            kind, outcome, text.replace(str(folder), "FOLDER"), found.get("traceback", ""), found["seconds"],
            found["peak_bytes"], files,
        )  # fmt: skip

    def _ask(self, kind: str, folder: Path, seed: int) -> dict[str, Any]:
        if self._worker is None:
            self._worker = self._start()
        worker = self._worker
        assert worker.stdin is not None
        assert worker.stdout is not None
        start = time.monotonic()
        worker.stdin.write(json.dumps({"kind": kind, "folder": str(folder), "seed": seed}).encode() + b"\n")
        worker.stdin.flush()
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select(
                [worker.stdout], [], [], max(0.0, start + _PATIENCE * ANSWER_S - time.monotonic())
            )
            if not ready:
                stack = self._stack()
                self.stop()
                return {
                    "outcome": "slow",
                    "text": "no answer",
                    "traceback": stack,
                    "seconds": ANSWER_S,
                    "peak_bytes": 0,
                }
            part = os.read(worker.stdout.fileno(), 1 << 20)
            if not part:
                code = worker.wait()
                self.stop()
                text = f"signal {-code}" if code < 0 else f"exit {code}"
                said = self._log.read_text(errors="replace")[-3000:]
                seconds = time.monotonic() - start
                return {"outcome": "signal", "text": text, "traceback": said, "seconds": seconds, "peak_bytes": 0}
            line += part
        return dict(json.loads(line))

    def _stack(self) -> str:
        """Have the worker write where it is, and return that."""
        assert self._worker is not None
        self._worker.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._worker.wait(5)
        return self._log.read_text(errors="replace")[-3000:]

    def _start(self) -> subprocess.Popen[bytes]:
        address = "" if self._forks.address is None else str(self._forks.address)
        argv = self._forks.argv([sys.executable, "-m", "tests.faults.worker", address])
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1",
            "XDG_CONFIG_HOME": str(self._folder / "config"),
        }  # fmt: skip
        with self._log.open("wb") as log:
            return subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=ROOT
            )

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            for stream in (self._worker.stdin, self._worker.stdout):
                assert stream is not None
                stream.close()
            self._worker = None


@contextlib.contextmanager
def running_hunt(folder: Path, forks: Forks) -> Iterator[Hunt]:
    """Give a hunt that keeps its inputs, while they are read, in `folder`."""
    hunt = Hunt(folder, forks)
    try:
        yield hunt
    finally:
        hunt.stop()
