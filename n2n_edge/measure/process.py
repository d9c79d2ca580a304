"""The worker as a child process: started, spoken to, and buried when it crashes or hangs."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from n2n_edge.errors import InputError
from n2n_edge.measure import worker
from n2n_edge.measure.measurement import MeasurementError

__all__ = ["WORKER_SCRIPT", "WorkerProcess"]

WORKER_SCRIPT = Path(worker.__file__)
START_TIMEOUT_S = 120.0

Event = Mapping[str, Any]


class WorkerProcess:
    """One child process that times models; after a `MeasurementError` of a crash or hang it is dead (`alive` is False).

    The child ends with its stdin, so it can't outlive this process. Its stderr goes to a file without a name.
    """

    def __init__(self, script: Path = WORKER_SCRIPT) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        # -P keeps the script's folder off the import path: its neighbours must not hide other modules
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read_events, daemon=True)
        self._reader.start()
        self.served = 0
        try:
            self.ready = self._await("ready", "starting", START_TIMEOUT_S)
            if self.ready["protocol"] != worker.PROTOCOL:
                raise MeasurementError(f"the worker speaks protocol {self.ready['protocol']}, not {worker.PROTOCOL}")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def measure(self, request: Mapping[str, Any], label: str, timeout_s: float) -> Event:
        """Send one request and return its ``result`` event; `label` names the model in errors.

        Raises:
            InputError: the runtime refuses the model, or an option can't be had.
            MeasurementError: the run failed, the process died, or nothing came within `timeout_s` (it is then killed).
        """
        line = json.dumps({"protocol": worker.PROTOCOL, "command": "measure", **request}) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except OSError as error:
            raise MeasurementError(f"{label}: {self._cause_of_death('before it was timed')}") from error
        self.served += 1
        return self._await("result", label, timeout_s)

    def close(self) -> None:
        """Kill the process and let go of its pipes; safe to call twice."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _await(self, wanted: str, label: str, timeout_s: float) -> Event:
        deadline = time.monotonic() + timeout_s
        phase = "before it was loaded"
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.close()
                raise MeasurementError(
                    f"{label}: no answer within {timeout_s:g} s, {phase}; the worker was stopped, allow more time"
                ) from None
            if event is None:
                raise MeasurementError(f"{label}: {self._cause_of_death(phase)}")
            if event["event"] == "phase":
                phase = str(event["phase"])
            elif event["event"] == "error" and event["kind"] == "refused":
                raise InputError(f"{label}: {_one_line(event['message'])}")
            elif event["event"] == "error":
                raise MeasurementError(f"{label}: the run failed {phase}: {_one_line(event['message'])}")
            elif event["event"] == wanted:
                return event

    def _cause_of_death(self, phase: str) -> str:
        code = self._process.wait()
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = str(-code)
            how = f"killed by {name}"
            if name == "SIGKILL":
                how += ", probably for want of memory"
        else:
            how = f"exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        said = f": {_one_line(lines[-1])}" if lines else ""
        return f"the runtime's process ended {phase} ({how}){said}"

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._events.put(json.loads(line))
        self._events.put(None)


def _one_line(text: str, length: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."
