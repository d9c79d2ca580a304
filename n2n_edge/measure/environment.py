"""What machine and software a measurement was made on."""

from functools import cache

import psutil

from n2n_edge.measure.worker import cpu_info, describe, usable_cores
from n2n_edge.metrics.figures import MB
from n2n_edge.versions import ORT_PACKAGES, first_version

__all__ = ["cpu_flags", "environment", "usable_cores"]


def environment() -> dict[str, str | int | float]:
    """Return the fingerprint of this machine and its software: what has to be equal for two timings to compare."""
    return {
        **describe(),
        "memory_mb": round(psutil.virtual_memory().total / MB),
        "onnxruntime": first_version(*ORT_PACKAGES) or "unknown",
        "n2n_edge": first_version("n2n-edge") or "unknown",
    }


@cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty elsewhere."""
    info = cpu_info()
    return frozenset((info.get("flags") or info.get("Features") or "").split())
