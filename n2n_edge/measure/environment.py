"""What machine and software a measurement was made on."""

from functools import cache
from importlib import metadata

import psutil

from n2n_edge.figures import MB
from n2n_edge.measure.worker import cpu_info, describe, usable_cores

__all__ = ["cpu_flags", "environment", "usable_cores"]

RUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-silicon")


def environment() -> dict[str, str | int | float]:
    """Return the fingerprint of this machine and its software: what has to be equal for two timings to compare."""
    return {
        **describe(),
        "memory_mb": round(psutil.virtual_memory().total / MB),
        "onnxruntime": _first_version(RUNTIME_PACKAGES),
        "n2n_edge": _first_version(("n2n-edge",)),
    }


@cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty elsewhere."""
    info = cpu_info()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def _first_version(packages: tuple[str, ...]) -> str:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
