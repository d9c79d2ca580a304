"""Small ONNX files for the tests of gates."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["CHANNELS", "MACS", "PARAMS", "save_conv"]

CHANNELS = 8
PARAMS = CHANNELS * 1 * 3 * 3 + CHANNELS
MACS = CHANNELS * 1 * 3 * 3 * 8 * 8


def save_conv(path: Path, channels: int = CHANNELS, size: int = 8) -> Path:
    """Write one 3x3 convolution on (N, 1, size, size)."""
    weights = np.ones((channels, 1, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        "one-conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", channels, size, size])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.zeros(channels, np.float32), "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
