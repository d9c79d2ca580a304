"""What this machine is, for the profile that describes it."""

import psutil

from n2n_edge.measure.board import cpu_flags, usable_cores
from n2n_edge.metrics.figures import MB

__all__ = ["HOST_FIELDS", "host_peak_gflops", "host_values"]

HOST_FIELDS = ("cores", "clock_mhz", "default_threads", "memory_mb", "usable_memory_mb", "peak_gflops", "channel_block")
"""Fields that a profile with ``is_host = true`` may give as the text ``"host"``."""

ASSUMED_CLOCK_MHZ = 2000.0


def host_values() -> dict[str, int | float]:
    """Return a value for each of `HOST_FIELDS`, as this machine is now: threads default to the usable cores."""
    memory = psutil.virtual_memory()
    return {
        "cores": usable_cores(),
        "clock_mhz": _clock_mhz(),
        "default_threads": usable_cores(),
        "memory_mb": round(memory.total / MB, 1),
        "usable_memory_mb": round(memory.available / MB, 1),
        "peak_gflops": host_peak_gflops(),
        "channel_block": 16 if "avx512f" in cpu_flags() else 8,
    }


def host_peak_gflops() -> float:
    """Estimate dense fp32 GFLOP/s over the usable cores: cores times clock times FLOP a cycle of the vector unit.

    An estimate, for want of a data sheet: 32 FLOP a cycle (two 256-bit fused multiply-adds) where x86 has AVX2 or
    AVX-512, 8 (one of 128 bits) otherwise.
    """
    flop_per_cycle = 32 if {"avx2", "avx512f"} & cpu_flags() else 8
    return round(usable_cores() * _clock_mhz() / 1000 * flop_per_cycle, 1)


def _clock_mhz() -> float:
    """Return the highest clock that the operating system tells, else the present one, else an assumed one."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError):
        frequency = None
    if frequency is None or not (frequency.max or frequency.current):
        return ASSUMED_CLOCK_MHZ
    return round(float(frequency.max or frequency.current), 1)
