"""Child process of a worker: its start, its requests, and its end when it crashes or hangs."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from typing import Any, Generic, TypeVar

from n2n_edge.closing import ClosedAtExit
from n2n_edge.errors import InputError, MemoryLimitError, N2NError
from n2n_edge.measure.channel import Channel, FloodError
from n2n_edge.measure.launch import Launch
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.messages import (
    FailureMessage,
    HolderReady,
    InvalidMessageError,
    Message,
    PhaseMessage,
    WorkerReady,
    one_line,
    parse,
)
from n2n_edge.measure.worker import PROTOCOL
from n2n_edge.metrics.figures import MB

__all__ = ["ChildProcess", "HolderProcess", "WorkerProcess"]

START_TIMEOUT_S = 120.0
GRACE_S = 5.0
TIMED = "in timed runs"

CLOCK_SLACK = 1.1
"""Clocks differ a little: so much more than it was given may a worker say that its work has taken."""

Ready = TypeVar("Ready", WorkerReady, HolderReady)
Answer = TypeVar("Answer", bound=Message)


class ChildProcess(ClosedAtExit, Generic[Ready]):
    """One child process that answers requests; after a crash or hang it is dead (`alive` is False).

    The child ends with its stdin, so it can't outlive this process. What it says is read as `messages` has it, in
    bounded time and amount: a board may be broken, or hostile.
    """

    def __init__(self, launch: Launch, ready: type[Ready], where: str = "the worker") -> None:
        """Start it; `ready` is the message by which it says that it can be asked, `where` names the target in errors.

        Raises:
            MeasurementError: it ends before it is ready: no Python, no runtime, no connection.
        """
        self._launch = launch
        self._stopped = threading.Event()
        try:
            self._process = subprocess.Popen(
                launch.argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # so that whatever the command starts can be stopped with it
            )
        except (OSError, ValueError) as error:
            raise _not_started(where, error) from error
        self._channel = Channel(self._process)
        self.served = 0
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            self._send(launch.preamble, deadline)
            if launch.heartbeat_s is not None:
                threading.Thread(target=self._beat, args=(launch.heartbeat_s,), daemon=True).start()
            self.ready: Ready = self._await("ready", ready, where, START_TIMEOUT_S, phase="while starting")
            if self.ready.protocol != PROTOCOL:
                raise MeasurementError(
                    f"{where}: {launch.speaker} speaks protocol {self.ready.protocol}, not {PROTOCOL}"
                )
        except RuntimeError as error:
            self.close()
            raise _not_started(where, error) from error
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
        self, answer: type[Answer], label: str, timeout_s: float, timed_s: float | None = None, **fields: object
    ) -> Answer:
        """Send the request that `answer` belongs to, and return what came; `label` names the model in errors.

        `timeout_s` is how long it may take; once runs are being timed, they may take `timed_s` from there.

        Raises:
            InputError: the runtime refuses the model, or an option can't be had.
            MemoryLimitError: the process went over its memory limit.
            MeasurementError: the run failed, the process died, nothing came within `timeout_s` (it is then killed), or
                what came can't be true.
        """
        line = json.dumps({"protocol": PROTOCOL, "command": answer.command, **fields}) + "\n"
        try:
            self._send(line.encode(), time.monotonic() + timeout_s)
        except TimeoutError:
            self.close()
            raise self._late(label, timeout_s, "while the request was sent") from None
        self.served += 1
        result = self._await("result", answer, label, timeout_s, timed_s)
        allowed_s = CLOCK_SLACK * (timeout_s + (timed_s or 0.0))
        if not result.claimed_ms() <= 1000 * allowed_s:
            claimed = f"{result.claimed_ms() / 1000:g} s of work, more than the {allowed_s:g} s that it was given"
            raise self._invalid(label, f"'s answer ({answer.command}) tells of {claimed}")
        return result

    def close(self) -> None:
        """Kill the process and let go of its pipes; safe to call twice."""
        self._stopped.set()
        self._channel.close_stdin()
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._channel.close()

    def finish(self, timeout_s: float) -> None:
        """Close stdin and give the process a moment to clear up before `close`."""
        self._channel.close_stdin()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.close()

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            self._channel.send(data, deadline)
        except TimeoutError:
            raise
        except OSError:  # it has ended, perhaps with a message: the wait for its answer says of what
            return

    def _beat(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            try:
                self._channel.beat()
            except OSError:
                return

    def _await(
        self,
        wanted: str,
        kind: type[Answer],
        label: str,
        timeout_s: float,
        timed_s: float | None = None,
        phase: str = "before it was loaded",
    ) -> Answer:
        """Return the event that is wanted; the time that timed runs have begins once, whatever is said of phases."""
        deadline = time.monotonic() + timeout_s
        allowed_s, timing = timeout_s, False
        while True:
            try:
                line = self._channel.line(deadline)
            except TimeoutError:
                self.close()
                raise self._late(label, allowed_s, phase) from None
            except FloodError as error:
                raise self._invalid(label, f" {error} {phase}") from None
            if line is None:
                raise self._death(label, phase)
            event = self._event(line, label, phase)
            if event.get("event") == "phase":
                phase = self._parsed(PhaseMessage, event, label).phase
                if phase == TIMED and timed_s is not None and not timing:
                    deadline, allowed_s, timing = time.monotonic() + timed_s, timed_s, True
            elif event.get("event") == "error":
                raise self._failure(self._parsed(FailureMessage, event, label), label, phase)
            elif event.get("event") == wanted:
                return self._parsed(kind, event, label)

    def _event(self, line: bytes, label: str, phase: str) -> dict[str, Any]:
        """Return the object on a line; an empty one for a line that is none: a login shell may have its own to say."""
        if not line.lstrip().startswith(b"{"):
            return {}
        try:
            event = json.loads(line)
        except (ValueError, RecursionError) as error:
            text = f" sent a message that can't be read ({type(error).__name__}) {phase}"
            raise self._invalid(label, text) from None
        return event if isinstance(event, dict) else {}

    def _parsed(self, kind: type[Answer], event: dict[str, Any], label: str) -> Answer:
        try:
            return parse(kind, event)
        except InvalidMessageError as error:
            raise self._invalid(label, f"'s answer ({kind.command or event['event']}) {error}") from None

    def _invalid(self, label: str, text: str) -> MeasurementError:
        """Stop a process that says what can't be, and return the error of it; `text` follows on who says it."""
        self.close()
        return MeasurementError(
            f"{label}: {self._launch.speaker}{text}; it was stopped and nothing of it is used, check what runs there"
        )

    def _late(self, label: str, allowed_s: float, phase: str) -> MeasurementError:
        return MeasurementError(
            f"{label}: no answer within {allowed_s:g} s, {phase}; the worker was stopped, allow more time (‹timeout_s›)"
        )

    def _failure(self, event: FailureMessage, label: str, phase: str) -> N2NError:
        """Turn an ``error`` event into what the caller sees."""
        kind, message = event.kind, one_line(event.message)
        if kind == "refused":
            return InputError(f"{label}: {message}")
        if kind == "fallback":
            return MeasurementError(f"{label}: {message}; leave the provider out to time what runs instead")
        if kind == "memory" and self._launch.limit_bytes is not None:
            return self._over_limit(label, phase, event.reached_bytes)
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
            said = self._channel.last_words(time.monotonic() + GRACE_S)
        except FloodError as error:
            return self._invalid(label, f" {error} {phase}")
        code = self._process.poll()
        if code is None:
            self.close()
            return MeasurementError(f"{label}: the worker closed its output {phase} and was stopped")
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


WorkerProcess = ChildProcess[WorkerReady]
HolderProcess = ChildProcess[HolderReady]


def _not_started(where: str, error: Exception) -> MeasurementError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return MeasurementError(
        f"{where}: a worker can't be started ({one_line(reason or type(error).__name__)}); allow this process more "
        "memory, open files and threads (ulimit -a)"
    )
