"""A board whose figures are made up, so that tests don't depend on what was measured last."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from n2n_edge.calibration.builder import Net
from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.devices.registry import read_profile
from n2n_edge.devices.terms import TERMS

BOARD_TOML = """\
name = "made-up"
aliases = ["mu1", "mu2"]
description = "a board for tests"
cores = 4
clock_mhz = 1500
default_threads = 4
runtime = "onnxruntime"
providers = ["CPUExecutionProvider"]
compute_unit = "cpu"
memory_mb = 4000.0          # all of it
usable_memory_mb = 3500.0
peak_gflops = 48.0
bandwidth_gb_s = 12.0
launch_overhead_us = 10.0
channel_multiple = 4
relative = "raspberry-pi-4"

[power_modes.low]
watts = 5
cores = 2

[sources]
memory_mb = "made up"
usable_memory_mb = "made up"
peak_gflops = "made up"
bandwidth_gb_s = "made up"
launch_overhead_us = "made up"
channel_multiple = "made up"
"""

CALIBRATION_TOML = """
[[calibrations]]
threads = {threads}
measured_on = "made-up"
runtime = "onnxruntime 1.20"
precisions = ["fp32"]
models = 30
median_error = 0.05
p90_error = 0.2
low_ratio = 0.8
high_ratio = 1.25
macs = [1e3, 1e12]
input_pixels = [1.0, 1e6]
source = "made up"

[calibrations.rates]
mac_conv_3x3 = {mac}
byte_dense = 0.01
launch_compute = 1000.0
"""

CALIBRATED_TOML = (
    BOARD_TOML + CALIBRATION_TOML.format(threads=1, mac=0.5) + CALIBRATION_TOML.format(threads=4, mac=0.125)
)
"""Two calibrations: with one thread and with four."""


def read_text(text: str) -> Profile:
    return read_profile(Path("made-up.toml"), text)


def rates(ns: float = 1.0, **others: float) -> dict[str, float]:
    """The same rate for every term, but for `others`."""
    return {**dict.fromkeys(TERMS, ns), **others}


def calibration(**changes: Any) -> Calibration:
    """Fitted with four threads of the made-up board in fp32, good for models of any size."""
    values: dict[str, Any] = {
        "measured_on": "made-up", "runtime": "onnxruntime 1.20", "threads": 4, "precisions": ("fp32",), "models": 30,
        "median_error": 0.05, "p90_error": 0.2, "low_ratio": 0.8, "high_ratio": 1.25, "macs": (1.0, 1e15),
        "input_pixels": (1.0, 1e9), "source": "made up", "rates": rates(),
    }  # fmt: skip
    return Calibration.model_validate(values | changes)


def board(*calibrations: Calibration, **changes: Any) -> Profile:
    """The made-up board with these calibrations."""
    values = read_text(BOARD_TOML).model_dump()
    return Profile.model_validate(values | {"calibrations": [each.model_dump() for each in calibrations]} | changes)


def gpu_board(*calibrations: Calibration, **changes: Any) -> Profile:
    return board(
        *calibrations,
        **{"compute_unit": "gpu", "providers": ("CUDAExecutionProvider",), "relative": "jetson-orin-nano"} | changes,
    )


def net_model(width: int = 16, size: int = 32, classes: int = 10) -> ir.Model:
    """Convolutions, a residual sum, pooling and a fully connected layer."""
    net = Net("small", 3, size, size, seed=0)
    x = net.conv(net.input, width, 3)
    x = net.add(net.conv(x, width, 3, act=None), x, "relu")
    return net.model(net.linear(net.global_pool(x), classes))


def replaced(text: str, edits: Mapping[str, str]) -> str:
    """Return a text with edits; what is replaced has to be there."""
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new, 1)
    return text
