"""Commands that a worker carries out."""

from __future__ import annotations

import base64
import errno
import gc
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from . import PROTOCOL, FallbackError, RefusedError
from .energy import Energy
from .memory import limit_memory, oom_kills, peak_rss_bytes, remove_cgroup
from .profiling import profile_kernels
from .runtimes import DEFAULT, OpenedElsewhere, stacked, write_reference
from .session import CPU, Opened, bind
from .state import Load, board_state, cpu_mhz
from .system import check
from .timing import throughput, time_block, time_runs, warm_up


class Leftovers:
    """Folders and control groups that a process would leave behind if nobody removed them."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.scratch: list[str] = []
        self.groups: list[str] = []

    def clear_and_exit(self) -> None:
        """Remove them and end the process at once, even amid a run."""
        for folder in (self.folder, *self.scratch):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        for group in self.groups:
            remove_cgroup(group)
        os._exit(0)


COMMANDS = (
    "measure",
    "open",
    "block",
    "throughput",
    "profile",
    "reference",
    "infer",
    "check",
    "state",
    "put",
    "limit",
    "limit_facts",
)


class Worker:
    """Answers requests; at most one model is open at a time."""

    def __init__(self, emit: Any, leftovers: Leftovers) -> None:
        self.emit = emit
        self.leftovers = leftovers
        self.opened: Opened | OpenedElsewhere | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request and return what the ``result`` event says."""
        if request.get("protocol") != PROTOCOL:
            raise RefusedError(f"this worker speaks protocol {PROTOCOL}, not {request.get('protocol')}")
        command = request.get("command")
        if command not in COMMANDS:
            raise RefusedError(f"this worker knows no command {command!r}")
        result: dict[str, Any] = getattr(self, str(command))(request)
        return result

    def load(self, request: dict[str, Any]) -> Opened | OpenedElsewhere:
        """Let go of the model that is open and return another, run once."""
        self.opened = None
        bind(request)
        kind = Opened if request.get("runtime", DEFAULT) == DEFAULT else OpenedElsewhere
        return kind(request, self.emit)

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open a model, time it until its median has settled, and close it."""
        with Energy() as energy:
            idle_watts = None
            if energy.available and request.get("idle_s"):
                time.sleep(request["idle_s"])
                idle_watts = energy.read() / request["idle_s"]
            load = Load()
            opened = self.load(request)
            self.emit({"event": "phase", "phase": "in timed runs"})
            clock_mhz = [cpu_mhz()]
            warm_up(opened.run, request["max_time_s"] / 4)
            joules, start = energy.read() if energy.available else 0.0, time.perf_counter()
            samples, converged = time_runs(opened.run, request)
            spent = None
            if energy.available:
                spent = {
                    "joules": energy.read() - joules,
                    "seconds": time.perf_counter() - start,
                    "runs": len(samples),
                    "idle_watts": idle_watts,
                    "source": energy.source,
                }
            clock_mhz.append(cpu_mhz())
        return {
            **opened.facts(),
            "samples_ms": samples,
            "converged": converged,
            "clock_mhz": clock_mhz,
            "energy": spent,
            "peak_rss_bytes": peak_rss_bytes(),
            "others_cores": load.others(),
        }

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open a model for `block` and `throughput`, and warm it up."""
        self.opened = self.load(request)
        warm_up(self.opened.run, request["max_time_s"] / 4)
        gc.collect()
        return {**self.opened.facts(), "peak_rss_bytes": peak_rss_bytes()}

    def block(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time the open model for a moment."""
        assert self.opened is not None
        self.emit({"event": "phase", "phase": "in timed runs"})
        load = Load()
        samples = time_block(self.opened.run, request["seconds"], request["least"])
        return {"samples_ms": samples, "others_cores": load.others(), "clock_mhz": cpu_mhz()}

    def throughput(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run the open model in several streams at once."""
        assert isinstance(self.opened, Opened)
        self.emit({"event": "phase", "phase": "in timed runs"})
        runs = [self.opened.runner() for _ in range(request["streams"])]
        return throughput(runs, request["seconds"])

    def profile(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a model under the runtime's profiler."""
        self.opened = None
        bind(request)
        self.emit({"event": "phase", "phase": "while being profiled"})
        profile = profile_kernels(request, self.leftovers.scratch)
        wanted = (request["providers"] or [CPU])[0]
        used = sorted({kernel["provider"] for kernel in profile["kernels"]})
        if used and wanted not in used:
            raise FallbackError(f"{wanted} was asked for, but every operator ran on {', '.join(used)}")
        return profile

    def reference(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write samples of a model's inputs, and what ONNX Runtime makes of them."""
        self.opened = None
        return {"samples": write_reference(request)}

    def infer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a converted model on samples and write what it gives."""
        import numpy as np

        self.opened = None
        opened = OpenedElsewhere(request, self.emit)
        outputs = opened.outputs()
        np.savez(request["outputs_path"], **stacked("out", outputs))
        return {"samples": len(outputs)}

    def check(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say what is here."""
        return check()

    def state(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say how the board stands."""
        return board_state()

    def limit(self, request: dict[str, Any]) -> dict[str, Any]:
        """Prepare a limit on the memory of one worker."""
        means = limit_memory(request["bytes"])
        if means["cgroup"]:
            self.leftovers.groups.append(means["cgroup"])
        return means

    def limit_facts(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say whether a limit was met."""
        return {"killed": oom_kills(request["cgroup"]) > 0}

    def put(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add a piece to a file of the folder; with the last one, hold it against its checksum."""
        assert self.leftovers.folder is not None
        folder = Path(self.leftovers.folder)
        path = folder / request["name"]
        if path.parent != folder:
            raise RefusedError(f"{request['name']}: not a plain file name")
        try:
            with path.open("ab") as file:
                file.write(base64.b64decode(request["data_base64"]))
        except OSError as error:
            path.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free_mb = shutil.disk_usage(str(folder)).free / 1e6
                raise OSError(f"no room in {folder.parent}: {free_mb:.1f} MB free, the model needs more") from error
            raise
        if request["last"]:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != request["sha256"]:
                path.unlink()
                raise OSError(f"{request['name']} arrived damaged")
        return {"path": str(path)}
