"""A first guess of a device's rates from its data sheet: where a fit starts."""

from n2n_edge.devices.profile import Profile
from n2n_edge.devices.terms import COMPUTE_CLASSES, MOVING_CLASSES, TERMS, Rates
from n2n_edge.metrics.precisions import BYTES, Precision

__all__ = ["data_sheet_rates"]

_POORER = {"depthwise": 4.0, "grouped": 4.0, "matmul": 2.0, "conv_large": 1.5}
"""How many times longer a multiply-accumulate takes where its operands are used less often than in a dense one."""

_UNPACKED_HALF = 3.0
"""The same for one channel at a time in fp16, where vectors hold twice as many numbers as in fp32."""

_CPU_TO_GPU = 10.0
"""Times slower than memory: what a GPU's runtime has the CPU do, such as picking boxes, goes there and back."""


def data_sheet_rates(profile: Profile, threads: int | None = None, precision: Precision = "fp32") -> Rates:
    """Return ns per unit of every term: 2 / peak for a multiply-accumulate, bytes at half the bandwidth, launches.

    The roofline's terms (Williams, Waterman, Patterson 2009), added up instead of taking the larger one: real kernels
    hardly overlap both.
    """
    gpu = profile.compute_unit == "gpu"
    share = 1.0 if gpu or threads is None else threads / profile.default_threads
    mac = 2 / (profile.peak(precision) * share)
    byte = 2 / profile.bandwidth_gb_s * BYTES[precision] / 4
    launch = profile.launch_overhead_us * 1000
    rates = {f"mac_{name}": mac * _POORER.get(name, 1.0) for name in COMPUTE_CLASSES}
    rates["mac_idle"] = mac
    rates["mac_unpacked"] = mac * (_UNPACKED_HALF if precision == "fp16" and not gpu else 1.0)
    rates |= {term: byte for term in TERMS if term.startswith("byte")}
    rates |= {f"launch_{name}": launch for name in ("compute", *MOVING_CLASSES)}
    rates["reduction"] = 2000 / profile.clock_mhz if gpu else mac
    if gpu:
        rates["launch_selecting"] = launch * _CPU_TO_GPU**2
        rates["byte_slicing"] = byte * _CPU_TO_GPU
    return rates
