"""What machine and software a measurement was made on."""

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

from n2n_edge.figures import MB

__all__ = ["cpu_flags", "cpu_model", "environment", "usable_cores"]

RUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-silicon")


def environment() -> dict[str, str | int | float]:
    """Return the fingerprint of this machine and its software: what has to be equal for two timings to compare."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "logical_cpus": psutil.cpu_count(logical=True) or usable_cores(),
        "memory_mb": round(psutil.virtual_memory().total / MB),
        "machine": platform.machine(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": _first_version(RUNTIME_PACKAGES),
        "n2n_edge": _first_version(("n2n-edge",)),
    }


def usable_cores() -> int:
    """Return the physical cores that this process may run on, at least one."""
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count(logical=True) or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


@cache
def cpu_model() -> str:
    """Return the name of the processor, or of the board where the processor has none."""
    name = _cpu_info().get("model name") or platform.processor()
    board = Path("/proc/device-tree/model")
    if board.is_file():
        name = f"{board.read_text(errors='replace').rstrip(chr(0))} {name}".strip()
    return name or platform.machine()


@cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty elsewhere."""
    info = _cpu_info()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


@cache
def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _first_version(packages: tuple[str, ...]) -> str:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
