"""Facts of this machine: processor, memory, packages, and what its small files and tools say."""

from __future__ import annotations

import functools
import importlib
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str | None:
    """Return the text of a small file without surrounding space; None where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """Return the number in a small file; None where there is none."""
    text = read_text(path)
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def output_of(command: list[str]) -> str | None:
    """Return what a command prints, without surrounding space; None if it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TOOL_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


TOOL_TIMEOUT_S = 5.0


@functools.lru_cache(maxsize=1)
def cpu_info() -> dict[str, str]:
    """Return the first processor's entry of /proc/cpuinfo; empty where there is none."""
    text = read_text(Path("/proc/cpuinfo")) or ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model() -> str:
    """Return the name of the processor, after that of the board where it has one."""
    name = cpu_info().get("model name") or platform.processor()
    board = read_text(Path("/proc/device-tree/model"))
    return f"{board or ''} {name}".strip() or platform.machine()


def allowed_cpus() -> list[int]:
    """Return the numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Return the physical cores that this process may run on, at least one."""
    allowed = len(allowed_cpus())
    physical = set()
    for topology in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology"):
        physical.add((read_text(topology / "physical_package_id"), read_text(topology / "core_id")))
    return max(1, min(len(physical) or allowed, allowed))


def memory_bytes(field: str = "MemTotal") -> int | None:
    """Return a field of /proc/meminfo in bytes; None where there is none."""
    for line in (read_text(Path("/proc/meminfo")) or "").splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    return None


def describe() -> dict[str, Any]:
    """Return what machine and Python this is: what has to be equal for two timings to compare."""
    memory = memory_bytes()
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "logical_cpus": os.cpu_count() or 1,
        "memory_mb": None if memory is None else round(memory / 1e6),
        "machine": platform.machine(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def check() -> dict[str, Any]:
    """Return `describe`, and what a measurement needs: packages, providers, free memory and disk, state."""
    facts: dict[str, Any] = {**describe(), "executable": sys.executable, "providers": []}
    facts.update(numpy=None, onnxruntime=None)
    for package in ("numpy", "onnxruntime"):
        try:
            module = importlib.import_module(package)
            facts[package] = module.__version__
            if package == "onnxruntime":
                facts["providers"] = module.get_available_providers()
        except Exception as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == package
            facts[f"{package}_error"] = "" if absent else f"{type(error).__name__}: {error}"
    available = memory_bytes("MemAvailable")
    facts["available_memory_mb"] = None if available is None else round(available / 1e6)
    facts["folder"] = tempfile.gettempdir()
    facts["free_disk_mb"] = round(shutil.disk_usage(facts["folder"]).free / 1e6)
    return facts
