"""A board that answers as a test wants it to: a program in the place of ``ssh``."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from n2n_edge.measure.worker import PROTOCOL

READY: dict[str, Any] = {
    "protocol": PROTOCOL,
    "runtime": "onnxruntime 1.20.0",
    "baseline_rss_bytes": 50_000_000,
    "folder": "/tmp/n2n-edge-x",
}
OPENED: dict[str, Any] = {
    "session_ms": 2.0,
    "first_run_ms": 1.5,
    "engine_ms": 0.0,
    "providers": ["CPUExecutionProvider"],
    "warnings": ["input 'x': free axis 2 (H) was set to 224"],
    "peak_rss_bytes": 60_000_000,
}
ENERGY: dict[str, Any] = {"joules": 3.0, "seconds": 1.0, "runs": 50, "idle_watts": 1.5, "source": "INA"}
KERNEL: dict[str, Any] = {"name": "conv1", "op_type": "Conv", "provider": "CPUExecutionProvider", "us": 700.0}
CLOCK: dict[str, Any] = {"cpu": "cpu0", "governor": "performance", "khz": 1.5e6, "max_khz": 1.5e6}
ANSWERS: dict[str, dict[str, Any]] = {
    "open": OPENED,
    "measure": {
        **OPENED,
        "samples_ms": [1.0, 1.25, 1.0] * 10,
        "converged": True,
        "clock_mhz": [1500.0, 1500.0],
        "energy": ENERGY,
        "others_cores": 0.1,
    },
    "block": {"samples_ms": [1.0, 1.25, 1.0], "others_cores": 0.1, "clock_mhz": 1500.0},
    "throughput": {"seconds": 2.0, "window_counts": [1] * 10, "samples_ms": [1.0] * 10},
    "profile": {
        "run_us": 1000.0,
        "plain_us": 900.0,
        "kernels": [KERNEL],
        "arena_bytes": 1_000_000,
        "arena_in_use_bytes": 500_000,
    },
    "check": {
        "cpu": "Board",
        "cores": 4,
        "logical_cpus": 4,
        "memory_mb": 4000,
        "machine": "aarch64",
        "os": "Linux 6.6",
        "python": "3.11.2",
        "executable": "/usr/bin/python3",
        "numpy": "1.26.0",
        "numpy_error": "",
        "onnxruntime": "1.20.0",
        "onnxruntime_error": "",
        "providers": ["CPUExecutionProvider"],
        "available_memory_mb": 3000,
        "folder": "/tmp",
        "free_disk_mb": 9000,
    },
    "state": {"clocks": [CLOCK], "millidegrees": [48_000.0], "tools": {"get_throttled": "throttled=0x0"}},
    "reference": {"samples": 4},
    "infer": {"samples": 4},
    "put": {"path": "/tmp/n2n-edge-x/m.onnx"},
    "limit": {"cgroup": "/sys/fs/cgroup/x", "prefix": ["sh", "-c", "exec"]},
    "limit_facts": {"killed": False},
}
"""An answer to each request that is as it should be."""

SCRIPT = """
import json, os, sys, time
nan, inf = float("nan"), float("inf")
ANSWERS = {answers!r}
READY = {ready!r}

def send(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()

def say(**event):
    send((json.dumps(event) + "\\n").encode())

def greet():
    say(event="ready", **READY)

def requests():
    sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
    for line in sys.stdin.buffer:
        if line.strip():
            yield json.loads(line)

{before}
greet()
for request in requests():
    command = request["command"]
    answer = json.loads(json.dumps(ANSWERS[command]))
{during}
    say(event="result", **answer)
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *, before: str = "", during: str = "") -> None:
    """Put a board in the place of ssh; `before` runs first of all, `during` may change `answer` to a `command`."""
    script = folder / "board.py"
    lines = "".join(f"    {line}\n" for line in during.splitlines())
    script.write_text(SCRIPT.format(answers=ANSWERS, ready=READY, before=before, during=lines), encoding="utf-8")
    monkeypatch.setenv("N2N_EDGE_SSH", shlex.join([sys.executable, str(script)]))
