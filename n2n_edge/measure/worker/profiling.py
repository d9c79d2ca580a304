"""Time by kernel, and arena memory, from the profiler of ONNX Runtime."""

from __future__ import annotations

import bisect
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from .session import make_inputs, open_session
from .timing import time_block

PROFILED_RUNS, PROFILED_S = 200, 1.0


def profile_kernels(request: dict[str, Any], scratch: list[str]) -> dict[str, Any]:
    """Run the model under the runtime's own profiler and return its time by kernel, and what its arena held.

    Times are of the runs after warm-up, in us. `run_us` is what the runtime says a whole run took, `plain_us` what one
    takes without the profiler. The arena's figures are in bytes, None where this runtime's profile doesn't say.
    """
    plain = open_session(request)
    feeds = make_inputs(plain, request, [])
    plain_ms: list[float] = []
    folder = tempfile.mkdtemp(prefix="n2n-edge-profile-", dir=request.get("scratch"))
    scratch.append(folder)
    try:
        session = open_session(request, str(Path(folder) / "profile"))
        longest_s = min(PROFILED_S, request["max_time_s"])
        start, runs = time.perf_counter(), 0
        while runs < 6 or (runs < PROFILED_RUNS and time.perf_counter() - start < longest_s):
            plain_ms += time_block(lambda: plain.run(None, feeds), 0.0, 1)
            session.run(None, feeds)
            runs += 1
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8", errors="replace"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counted = max(3, runs - runs // 4)  # the first quarter warms up
    plain_us = 1000 * statistics.mean(fastest(plain_ms[-counted:]))
    return {**read_profile(events, counted), "plain_us": plain_us}


def fastest(times: list[float]) -> list[float]:
    """Return the fastest quarter of some times, at least three of them: runs that nothing disturbed."""
    return sorted(times)[: max(3, len(times) // 4)]


def read_profile(events: list[dict[str, Any]], runs: int) -> dict[str, Any]:
    """Sum up a profile of the runtime: means over the fastest quarter of its last `runs` runs, which nothing disturbed.

    Durations are whole us, cut off: half of one is added to each.
    """
    whole = [event for event in events if event.get("cat") == "Session" and event["name"] == "model_run"][-runs:]
    starts = [event["ts"] for event in whole]
    undisturbed = sorted(range(len(whole)), key=lambda index: whole[index]["dur"])[: max(3, len(whole) // 4)]
    kernels: dict[tuple[str, str, str], float] = {}
    held: list[int] = []
    in_use: list[int] = []
    for event in events:
        args = event.get("args") or {}
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        for name, sizes in (("mem_arena_held", held), ("mem_in_use_peak", in_use)):
            if str(args.get(name, "")).isdigit():
                sizes.append(int(args[name]))
        if bisect.bisect_right(starts, event["ts"]) - 1 not in undisturbed:
            continue
        key = (event["name"][: -len("_kernel_time")], args.get("op_name", ""), args.get("provider", ""))
        kernels[key] = kernels.get(key, 0.0) + (event["dur"] + 0.5) / len(undisturbed)
    return {
        "run_us": sum(whole[index]["dur"] for index in undisturbed) / max(1, len(undisturbed)),
        "kernels": [
            {"name": name, "op_type": op_type, "provider": provider, "us": us}
            for (name, op_type, provider), us in kernels.items()
        ],
        "arena_bytes": max(held) if held else None,
        "arena_in_use_bytes": max(in_use) if in_use else None,
    }
