"""A small network, and what ONNX Runtime's quantizer makes of it in each of its formats."""

import logging
import warnings
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

__all__ = ["KINDS", "STATIC", "Images", "floats", "quantized"]

STATIC = ("operators", "pairs", "pairs per channel")
KINDS = (*STATIC, "dynamic")
"""Ways to quantize."""


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._images = iter([{"x": generator.random((1, 3, 32, 32), np.float32)} for _ in range(3)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._images, None)


def floats(path: Path) -> Path:
    """A residual network: Conv, Relu, Conv, Add, Sigmoid gate, depthwise Conv, global pool, Gemm."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": (16, 3, 3, 3), "b0": (16,), "w1": (16, 16, 3, 3), "b1": (16,), "w2": (16, 1, 3, 3), "b2": (16,),
        "w3": (16, 10), "b3": (10,),
    }  # fmt: skip
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=pads, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], pads=pads, kernel_shape=[3, 3]),
        helper.make_node("Add", ["c1", "r0"], ["a"]),
        helper.make_node("Relu", ["a"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=pads, kernel_shape=[3, 3], group=16),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), n) for n, shape in weights.items()],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    return path


def quantized(source: Path, kind: str) -> Path:
    target = source.with_name(f"{kind}.onnx")
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "dynamic":
                quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
            else:
                quantize_static(
                    source,
                    target,
                    Images(),
                    quant_format=QuantFormat.QOperator if kind == "operators" else QuantFormat.QDQ,
                    per_channel=kind == "pairs per channel",
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )
    finally:
        logging.disable(logging.NOTSET)
    return target
