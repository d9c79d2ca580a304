"""Times one model after another in a process of its own.

Self-contained (standard library, numpy, onnxruntime; Python >= 3.9), because this one file is also what runs on a
board. It speaks JSON, one document a line: requests on stdin, events on stdout. First comes ``ready``; then, for each
``measure`` request, ``phase`` events and at last ``result`` or ``error``. It ends when stdin does, or when its parent
is gone.
"""

from __future__ import annotations

import base64
import functools
import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

PROTOCOL = 1

WARM_UP_RUNS = 3
WARM_UP_S = 0.2
MAX_SAMPLES = 100_000


class RefusedError(Exception):
    """The model or an option can't be used as given: the user's to change."""


@functools.lru_cache(maxsize=4096)
def median_ranks(n: int) -> tuple[int, int] | None:
    """Return 0-based ranks (low, high) of the sorted samples that bound the median with at least 95% confidence.

    Order statistics: the number of samples below the median is binomial(n, 1/2), whatever the distribution (Conover,
    Practical Nonparametric Statistics, 3.2). None below six samples, where no pair of ranks reaches 95%.
    """
    if n < 6:
        return None
    if n > 1000:
        low = int(n / 2 - 0.98 * n**0.5) - 1
        return low, n - 1 - low
    term, tail, low = 0.5**n, 0.0, -1
    while tail + term <= 0.025:
        tail += term
        low += 1
        term *= (n - low) / (low + 1)
    return low, n - 1 - low


def peak_rss_bytes() -> int | None:
    """Return the largest resident set so far, in bytes; None where the system doesn't say.

    On Linux from VmHWM: the maximum that getrusage gives is inherited from the process that started this one.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def make_inputs(session: Any, batch: int, seed: int, warnings: list[str]) -> dict[str, Any]:
    """Return random values for every input: the first free dimension is the batch, other free ones become 1."""
    import numpy as np

    kinds = {
        "tensor(float)": np.float32,
        "tensor(double)": np.float64,
        "tensor(float16)": np.float16,
        "tensor(int8)": np.int8,
        "tensor(uint8)": np.uint8,
        "tensor(int16)": np.int16,
        "tensor(uint16)": np.uint16,
        "tensor(int32)": np.int32,
        "tensor(uint32)": np.uint32,
        "tensor(int64)": np.int64,
        "tensor(uint64)": np.uint64,
        "tensor(bool)": np.bool_,
    }
    generator = np.random.default_rng(seed)
    feeds = {}
    for value in session.get_inputs():
        if value.type not in kinds:
            raise RefusedError(f"input '{value.name}' is of type {value.type}, for which no random values can be made")
        shape = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int) and size > 0:
                if axis == 0 and batch not in (1, size):
                    raise RefusedError(f"input '{value.name}' has a fixed batch of {size}; {batch} was asked for")
                if axis == 0 and size != batch:
                    warnings.append(
                        f"input '{value.name}' has a fixed first axis of {size}: each run computes all of it"
                    )
                shape.append(size)
            elif axis == 0:
                shape.append(batch)
            else:
                warnings.append(f"input '{value.name}': free axis {axis} ({size}) was set to 1")
                shape.append(1)
        dtype = np.dtype(kinds[value.type])
        if dtype.kind == "f":
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
        else:  # small numbers: they may be used as indices
            feeds[value.name] = generator.integers(0, 2, shape).astype(dtype)
    return feeds


def open_session(request: dict[str, Any]) -> Any:
    """Create the session: threads fixed, spinning off, all graph optimisations on, no silent change of provider."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    providers = request["providers"] or ["CPUExecutionProvider"]
    missing = [provider for provider in providers if provider not in available]
    if missing:
        raise RefusedError(f"provider {missing[0]} is not in this onnxruntime; it has {', '.join(available)}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    model = request["model_path"] if request.get("model_path") else base64.b64decode(request["model_base64"])
    try:
        session = onnxruntime.InferenceSession(model, sess_options=options, providers=providers)
    except Exception as error:
        if "alloc" in str(error).lower():
            raise
        raise RefusedError(f"onnxruntime refuses it: {error}") from error
    session.disable_fallback()
    return session


def time_runs(run: Any, request: dict[str, Any]) -> tuple[list[float], bool]:
    """Return the times (ms) of repeated runs, and whether the median's 95% interval came within the tolerance."""
    start = time.perf_counter()
    longest_s = request["max_time_s"] / 4
    count, elapsed = 0, 0.0
    while elapsed < min(WARM_UP_S, longest_s) or (count < WARM_UP_RUNS and elapsed < longest_s):
        run()
        count += 1
        elapsed = time.perf_counter() - start
    clock = time.perf_counter_ns
    samples: list[float] = []
    converged = False
    next_check = 6
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        while len(samples) < MAX_SAMPLES:
            before = clock()
            run()
            samples.append((clock() - before) / 1e6)
            elapsed = time.perf_counter() - start
            if elapsed >= request["max_time_s"]:
                break
            # checks get rarer as samples accumulate, so that sorting stays a small part of the time
            if len(samples) >= next_check and elapsed >= request["min_time_s"]:
                if within_tolerance(samples, request["tolerance"]):
                    break
                next_check = len(samples) + max(5, len(samples) // 10)
        converged = within_tolerance(samples, request["tolerance"])
    finally:
        gc.enable()
    return samples, converged


def within_tolerance(samples: list[float], tolerance: float) -> bool:
    """Return whether both ends of the median's 95% interval lie within `tolerance` (a share) of the median."""
    ranks = median_ranks(len(samples))
    if ranks is None:
        return False
    ordered = sorted(samples)
    n = len(ordered)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return max(ordered[ranks[1]] - median, median - ordered[ranks[0]]) <= tolerance * median


def measure(request: dict[str, Any], emit: Any) -> dict[str, Any]:
    """Carry out one ``measure`` request and return the ``result`` event."""
    warnings: list[str] = []
    emit({"event": "phase", "phase": "while creating the session"})
    cpu_start_s = time.process_time()
    start = time.perf_counter()
    session = open_session(request)
    session_ms = (time.perf_counter() - start) * 1000
    feeds = make_inputs(session, request["batch"], request["seed"], warnings)
    emit({"event": "phase", "phase": "in its first run"})
    start = time.perf_counter()
    session.run(None, feeds)
    first_run_ms = (time.perf_counter() - start) * 1000
    emit({"event": "phase", "phase": "in timed runs"})
    samples, converged = time_runs(lambda: session.run(None, feeds), request)
    used = session.get_providers()
    if request["providers"] and used[0] != request["providers"][0]:
        warnings.append(f"{request['providers'][0]} was asked for; onnxruntime fell back to {used[0]}")
    return {
        "event": "result",
        "samples_ms": samples,
        "converged": converged,
        "first_run_ms": first_run_ms,
        "session_ms": session_ms,
        "providers": used,
        "peak_rss_bytes": peak_rss_bytes(),
        "cpu_s": time.process_time() - cpu_start_s,
        "warnings": warnings,
    }


def serve() -> None:
    """Answer requests until stdin ends."""
    # Native code may print: events keep the real stdout for themselves, everything else goes to stderr.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=read_requests, args=(requests,), daemon=True).start()
    threading.Thread(target=watch_parent, args=(os.getppid(),), daemon=True).start()

    # Builds for Linux and macOS report usage over the network, and leave files behind, unless told not to in time.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy  # noqa: F401  (part of the import-only baseline)
    import onnxruntime

    emit(
        {
            "event": "ready",
            "protocol": PROTOCOL,
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "baseline_rss_bytes": peak_rss_bytes(),
        }
    )
    while True:
        request = json.loads(requests.get())
        try:
            if request.get("protocol") != PROTOCOL or request.get("command") != "measure":
                raise RefusedError(f"this worker speaks protocol {PROTOCOL}, not {request.get('protocol')}")
            emit(measure(request, emit))
        except RefusedError as error:
            emit({"event": "error", "kind": "refused", "message": str(error)})
        except Exception as error:
            emit({"event": "error", "kind": "failed", "message": f"{type(error).__name__}: {error}"})
        gc.collect()


def read_requests(requests: queue.Queue[str]) -> None:
    """Pass stdin on, line by line; when it ends, end the process at once, even amid a run."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def watch_parent(parent: int) -> None:
    """End the process once its parent is gone: some other child may still hold stdin open."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    serve()
