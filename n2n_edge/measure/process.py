"""The worker as a child process: started, spoken to, and buried when it crashes or hangs."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from n2n_edge.closing import ClosedAtExit
from n2n_edge.errors import InputError, MemoryLimitError, N2NError
from n2n_edge.figures import MB
from n2n_edge.measure import worker
from n2n_edge.measure.measurement import MeasurementError

__all__ = ["WORKER_SCRIPT", "Event", "Launch", "WorkerProcess", "one_line"]

WORKER_SCRIPT = Path(worker.__file__)
START_TIMEOUT_S = 120.0
GRACE_S = 5.0
TIMED = "in timed runs"

Event = Mapping[str, Any]


def _unexplained(code: int, stderr: str) -> N2NError | None:
    return None


@dataclass(frozen=True)
class Launch:
    """How a worker is started: the command, what it is told first, and what its deaths mean.

    `heartbeat_s`: how often an empty line tells a far-away worker that somebody is still there. `limit_bytes` is the
    limit on its memory, if it has one; `was_over_limit` tells whether a killed worker was killed for that. `explain`
    may turn an exit code and the last words on stderr into an error.
    """

    argv: Sequence[str]
    preamble: bytes = b""
    heartbeat_s: float | None = None
    limit_bytes: int | None = None
    was_over_limit: Callable[[], bool] = lambda: True
    explain: Callable[[int, str], N2NError | None] = _unexplained


class WorkerProcess(ClosedAtExit):
    """One child process that times models; after a crash or hang it is dead (`alive` is False).

    The child ends with its stdin, so it can't outlive this process. Its stderr goes to a file without a name.
    """

    def __init__(self, launch: Launch, where: str = "the worker") -> None:
        """Start it; `where` names the target in errors.

        Raises:
            MeasurementError: it ends before it is ready: no Python, no runtime, no connection.
        """
        self._launch = launch
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._write_lock = threading.Lock()
        self._stopped = threading.Event()
        self._process = subprocess.Popen(
            launch.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # so that whatever the command starts can be stopped with it
        )
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read_events, daemon=True)
        self._reader.start()
        self.served = 0
        try:
            with contextlib.suppress(OSError):  # it may have died already: `_await` says of what
                self._write(launch.preamble)
            if launch.heartbeat_s is not None:
                threading.Thread(target=self._beat, args=(launch.heartbeat_s,), daemon=True).start()
            self.ready = self._await("ready", where, START_TIMEOUT_S, "while starting")
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

    def request(
        self, command: str, label: str, timeout_s: float, timed_s: float | None = None, **fields: object
    ) -> Event:
        """Send one request and return its ``result`` event; `label` names the model in errors.

        `timeout_s` is how long it may take; once runs are being timed, they may take `timed_s` from there.

        Raises:
            InputError: the runtime refuses the model, or an option can't be had.
            MemoryLimitError: the process went over its memory limit.
            MeasurementError: the run failed, the process died, or nothing came within `timeout_s` (it is then killed).
        """
        line = json.dumps({"protocol": worker.PROTOCOL, "command": command, **fields}) + "\n"
        try:
            self._write(line.encode())
        except OSError as error:
            raise self._death(label, "before it was timed") from error
        self.served += 1
        return self._await("result", label, timeout_s, timed_s=timed_s)

    def close(self) -> None:
        """Kill the process and let go of its pipes; safe to call twice."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(GRACE_S)
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def finish(self, timeout_s: float) -> None:
        """Close stdin and give the process a moment to clear up before `close`."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.close()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with self._write_lock:
            try:
                self._process.stdin.write(data)
                self._process.stdin.flush()
            except ValueError as error:  # closed by now
                raise OSError("the worker is closed") from error

    def _beat(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            try:
                self._write(b"\n")
            except OSError:
                return

    def _await(
        self,
        wanted: str,
        label: str,
        timeout_s: float,
        phase: str = "before it was loaded",
        timed_s: float | None = None,
    ) -> Event:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.close()
                allowed = timeout_s if timed_s is None or phase != TIMED else timed_s
                raise MeasurementError(
                    f"{label}: no answer within {allowed:g} s, {phase}; the worker was stopped, allow more time "
                    "(--timeout)"
                ) from None
            if event is None:
                raise self._death(label, phase)
            if event["event"] == "phase":
                phase = str(event["phase"])
                if phase == TIMED and timed_s is not None:
                    deadline = time.monotonic() + timed_s
            elif event["event"] == "error":
                raise self._failure(event, label, phase)
            elif event["event"] == wanted:
                return event

    def _failure(self, event: Event, label: str, phase: str) -> N2NError:
        """Turn an ``error`` event into what the caller sees."""
        kind, message = event["kind"], one_line(str(event["message"]))
        if kind == "refused":
            return InputError(f"{label}: {message}")
        if kind == "fallback":
            return MeasurementError(f"{label}: {message}; leave the provider out to time what runs instead")
        if kind == "memory":
            return self._over_limit(label, phase, int(event["message"]))
        if kind == "missing":
            return MeasurementError(
                f"{label}: the worker's Python can't import the runtime: {message}; see `n2n-edge device check`"
            )
        return MeasurementError(f"{label}: the run failed {phase}: {message}")

    def _over_limit(self, label: str, phase: str, reached: int | None) -> MemoryLimitError:
        assert self._launch.limit_bytes is not None
        how = f"reached {reached / MB:.1f} MB" if reached is not None else "was stopped by the system"
        return MemoryLimitError(
            f"{label}: the worker {how} {phase}, over its memory limit of {self._launch.limit_bytes / MB:g} MB; "
            "give it more, or a smaller model"
        )

    def _death(self, label: str, phase: str) -> N2NError:
        """Return the error of a process that has ended by itself, or has stopped to speak."""
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.close()
            return MeasurementError(f"{label}: the worker closed its output {phase} and was stopped")
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()
        explained = self._launch.explain(code, said)
        if explained is not None:
            return explained
        number = -code if code < 0 else code - 128 if code > 128 else 0  # a shell reports 128 + signal
        if number == signal.SIGKILL and self._launch.limit_bytes is not None and self._launch.was_over_limit():
            return self._over_limit(label, phase, None)
        if number:
            try:
                name = signal.Signals(number).name
            except ValueError:
                name = str(number)
            how = f"killed by {name}"
            if name == "SIGKILL":
                how += ", probably for want of memory"
        else:
            how = f"exit code {code}"
        last = f": {one_line(said.splitlines()[-1])}" if said else ""
        return MeasurementError(f"{label}: the runtime's process ended {phase} ({how}){last}")

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stdout:
                with contextlib.suppress(ValueError):  # a login shell may have its own to say, in any encoding
                    event = json.loads(line)
                    if isinstance(event, dict) and "event" in event:
                        self._events.put(event)
        self._events.put(None)


def one_line(text: str, length: int = 300) -> str:
    """Return a text on one line, cut where it is longer than `length`."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."
