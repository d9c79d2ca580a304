"""Watchdog over long calculations: what takes far too long is named, and what never ends is ended.

>>> with watched(print, "--resume goes on without it"), phase("removal 1/12"), step("training step"):
...     train_on(batch)

Code that calculates marks its steps with `step`, which costs nothing where nobody watches. A thread compares the step
under way with those of its kind before it.
"""

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from n2n_edge.errors import InputError

__all__ = ["EXIT_CODE", "STALL_VARIABLE", "Limits", "Watchdog", "phase", "step", "watched"]

EXIT_CODE = 3
STALL_VARIABLE = "N2N_EDGE_STALL_S"
"""Environment variable: seconds after which a step that doesn't end is given up, 0 for never."""

_STALL_S = 1800.0
_SLOW_S = 60.0
_SLOW_TIMES = 10.0
_STALL_TIMES = 100.0
_KEPT = 101
"""Durations of which the median is taken."""


@dataclass(frozen=True)
class Limits:
    """When a step counts as slow, and when as one that never ends: seconds at least, and times the median."""

    slow_s: float = _SLOW_S
    stall_s: float = _STALL_S

    @classmethod
    def from_environment(cls) -> "Limits | None":
        """Return the limits that the environment asks for, None for no watching; raises InputError for nonsense."""
        text = os.environ.get(STALL_VARIABLE)
        if text is None:
            return cls()
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise InputError(f"{STALL_VARIABLE}={text!r}: give seconds, or 0 to wait for ever")
        return cls(min(_SLOW_S, seconds / 4), seconds) if seconds else None

    def slow(self, median_s: float | None) -> float:
        """Return the seconds after which a step is reported."""
        return max(self.slow_s, _SLOW_TIMES * (median_s or 0.0))

    def stall(self, median_s: float | None) -> float:
        """Return the seconds after which a step is given up."""
        return max(self.stall_s, _STALL_TIMES * (median_s or 0.0))


@dataclass
class _Step:
    """A step under way; `watched_s` is the time that the watching thread has seen of it."""

    name: str
    start: float
    watched_s: float = 0.0
    reported: bool = False


@dataclass
class Watchdog:
    """Knows what goes on: phases within phases, and the step under way."""

    limits: Limits
    tell: Callable[[str], None]
    advice: str
    stacks: TextIO | None = None
    _phases: list[str] = field(default_factory=list)
    _steps: list[_Step] = field(default_factory=list)
    _durations: dict[str, deque[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what goes on while in the block."""
        with self._lock:
            self._phases.append(name)
        try:
            yield
        finally:
            with self._lock:
                self._phases.pop()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Watch one step while in the block; of steps within steps the innermost is watched."""
        now = _Step(name, time.monotonic())
        with self._lock:
            self._steps.append(now)
        try:
            yield
        finally:
            with self._lock:
                self._steps.remove(now)
                self._durations.setdefault(name, deque(maxlen=_KEPT)).append(time.monotonic() - now.start)
                for outer in self._steps:  # what holds a step that ended isn't stuck
                    outer.watched_s = 0.0

    def look(self, passed_s: float) -> None:
        """Compare the step under way, which went on for `passed_s` more, with its limits."""
        with self._lock:
            if not self._steps:
                return
            now = self._steps[-1]
            now.watched_s += passed_s
            known = self._durations.get(now.name)
            median_s = statistics.median(known) if known else None
            stalled = now.watched_s > self.limits.stall(median_s)
            slow = not now.reported and now.watched_s > self.limits.slow(median_s)
            now.reported = now.reported or slow
            where = ", ".join([*self._phases, now.name])
            usual = "" if median_s is None else f" (those before took {median_s:.2g} s at the median)"
            seconds = now.watched_s
        if stalled:
            self._end(f"{where}: has not ended for {seconds:.0f} s{usual}")
        elif slow:
            self.tell(f"{where}: still under way after {seconds:.0f} s{usual}")

    def _end(self, what: str) -> None:
        """Show where every thread is, and end the process: a loop in native code can't be interrupted."""
        if self.stacks is not None:
            faulthandler.dump_traceback(self.stacks)
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        text = f"n2n-edge: {what}: given up; {self.advice}\n"
        os.write(2, text.encode(errors="backslashreplace"))
        os._exit(EXIT_CODE)


_current: Watchdog | None = None


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Name what goes on while in the block, where somebody watches."""
    if _current is None:
        yield
    else:
        with _current.phase(name):
            yield


@contextmanager
def step(name: str) -> Iterator[None]:
    """Watch one step while in the block, where somebody watches."""
    if _current is None:
        yield
    else:
        with _current.step(name):
            yield


@contextmanager
def watched(tell: Callable[[str], None], advice: str, stacks: Path | None = None) -> Iterator[None]:
    """Watch this process while in the block: tell of slow steps, end the process where one never ends.

    `advice` says what to do then. The file `stacks` gets the stacks of every thread then, and where the process dies of
    a fatal signal; it is left where it holds something. Where something watches already, this does nothing.
    """
    global _current
    limits = Limits.from_environment()
    if _current is not None or limits is None:
        yield
        return
    file = None if stacks is None else stacks.open("a")
    own_handler = file is not None and not faulthandler.is_enabled()
    if file is not None and own_handler:
        faulthandler.enable(file)
    watchdog = Watchdog(limits, tell, advice, file)
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(watchdog, over), daemon=True, name="watchdog")
    _current = watchdog
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _current = None
        if own_handler:
            faulthandler.disable()
        if file is not None and stacks is not None:
            file.close()
            if stacks.exists() and not stacks.stat().st_size:  # a run that was refused takes its folder with it
                stacks.unlink()


def _watch(watchdog: Watchdog, over: threading.Event) -> None:
    interval = min(1.0, watchdog.limits.slow_s / 4)
    last = time.monotonic()
    while not over.wait(interval):
        now = time.monotonic()
        watchdog.look(min(now - last, 2 * interval))  # a process that was stopped for an hour hasn't stalled
        last = now
