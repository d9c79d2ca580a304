"""Main loop: requests from stdin, events to stdout, and an orderly end whatever happens."""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from typing import Any

from . import PROTOCOL, FallbackError, RefusedError
from .commands import Leftovers, Worker
from .memory import peak_rss_bytes, watch_memory
from .runtimes import DEFAULT, version_of


def option(arguments: list[str], name: str) -> str | None:
    """Return the word after `name`; None where it isn't there."""
    return arguments[arguments.index(name) + 1] if name in arguments else None


def serve(arguments: list[str]) -> None:
    """Answer requests until stdin ends.

    ``--holder [--folder PATH]``: hold a folder for models instead of timing. ``--watch-memory BYTES``: end when its own
    memory exceeds it. ``--silence S``: end when nothing was heard for so long. ``--runtime NAME``: with what it times.
    """
    # Native code may print: events keep the real stdout for themselves, everything else goes to stderr.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Builds for Linux and macOS report usage over the network, and leave files behind, unless told not to in time.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    leftovers = Leftovers()
    lock = threading.Lock()

    def emit(event: dict[str, Any]) -> None:
        try:
            with lock:
                events.write(json.dumps(event) + "\n")
                events.flush()
        except OSError:  # nobody listens any more
            leftovers.clear_and_exit()

    for name in ("SIGINT", "SIGPIPE"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: leftovers.clear_and_exit())
    limit_bytes, silence_s = option(arguments, "--watch-memory"), option(arguments, "--silence")
    holder = "--holder" in arguments
    if holder:
        try:
            leftovers.folder = tempfile.mkdtemp(prefix="n2n-edge-", dir=option(arguments, "--folder"))
        except OSError as error:
            emit({"event": "error", "kind": "failed", "message": f"no folder for models: {error}"})
            return
    requests: queue.Queue[str] = queue.Queue()
    heard = [time.monotonic()]
    threading.Thread(target=read_requests, args=(requests, heard, leftovers), daemon=True).start()
    silence = float(silence_s) if silence_s else None
    threading.Thread(target=watch, args=(os.getppid(), heard, silence, leftovers), daemon=True).start()
    if limit_bytes is not None:
        threading.Thread(target=watch_memory, args=(int(limit_bytes), emit), daemon=True).start()
    ready = {
        "event": "ready",
        "protocol": PROTOCOL,
        "runtime": None,
        "baseline_rss_bytes": None,
        "folder": leftovers.folder,
    }
    if not holder:
        try:
            ready.update(import_runtime(option(arguments, "--runtime") or DEFAULT))
        except Exception as error:
            emit({"event": "error", "kind": "missing", "message": f"{type(error).__name__}: {error}"})
            return
    emit(ready)
    worker = Worker(emit, leftovers)
    while True:
        line = requests.get()
        try:
            emit({"event": "result", **worker.answer(json.loads(line))})
        except RefusedError as error:
            emit({"event": "error", "kind": "refused", "message": str(error)})
        except FallbackError as error:
            emit({"event": "error", "kind": "fallback", "message": str(error)})
        except Exception as error:
            emit({"event": "error", "kind": "failed", "message": f"{type(error).__name__}: {error}"})
        gc.collect()


def import_runtime(runtime: str) -> dict[str, Any]:
    """Import what timing needs, and return the runtime's version and the memory of a process that has only done so."""
    import numpy  # noqa: F401  (part of the import-only baseline)

    version = version_of(runtime)
    return {"runtime": version, "baseline_rss_bytes": peak_rss_bytes()}


def read_requests(requests: queue.Queue[str], heard: list[float], leftovers: Leftovers) -> None:
    """Pass stdin on, line by line, until it ends. An empty line only says that somebody is still there."""
    for line in sys.stdin:
        heard[0] = time.monotonic()
        if line.strip() and line.endswith("\n"):  # else it was cut off
            requests.put(line)
    leftovers.clear_and_exit()


def watch(parent: int, heard: list[float], silence_s: float | None, leftovers: Leftovers) -> None:
    """End the process once its parent is gone (some other child may still hold stdin open), or has fallen silent.

    Silence is believed the third time: while native code holds the interpreter nobody hears anything.
    """
    silent = 0
    while os.getppid() == parent and silent < 3:
        time.sleep(1)
        silent = silent + 1 if silence_s is not None and time.monotonic() - heard[0] > silence_s else 0
    leftovers.clear_and_exit()
