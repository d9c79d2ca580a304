"""Terms of a predicted latency: the amounts that a device's rates are given for."""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["COMPUTE_CLASSES", "MOVING_CLASSES", "TERMS", "UNITS", "Rates"]

Rates = Mapping[str, float]

COMPUTE_CLASSES = (
    "conv_1x1", "conv_3x3", "conv_3x3_strided", "conv_large", "depthwise", "grouped", "gemm", "matmul",
)  # fmt: skip
"""Classes of kernels that multiply; 3x3 convolutions of stride 1 stand apart since they run under Winograd."""

MOVING_CLASSES = ("pooling", "residual", "elementwise", "layout", "slicing", "selecting")
"""Classes of kernels that only move or combine bytes."""

BYTE_CLASSES = ("dense", "depthwise", "weights", *MOVING_CLASSES)

UNITS: Mapping[str, str] = MappingProxyType(
    {
        **{f"mac_{name}": f"a multiply-accumulate of {name}" for name in COMPUTE_CLASSES},
        **{f"byte_{name}": f"a byte (fp32) read or written: {name}" for name in BYTE_CLASSES},
        "byte_spilled": "a byte (fp32) of a kernel's output beyond the first million: more than caches keep",
        "mac_unpacked": "a multiply-accumulate of a convolution that has channels in no multiple of four",
        "mac_idle": "a multiply-accumulate of a dense convolution that only fills up a block of channels",
        "reduction": "a multiply-accumulate behind one output element: what no parallel unit can shorten",
        "launch_compute": "a kernel that multiplies",
        **{f"launch_{name}": f"a kernel of {name}" for name in MOVING_CLASSES},
    }
)
"""What one unit of each term is; a rate is nanoseconds for that."""

TERMS = tuple(UNITS)
