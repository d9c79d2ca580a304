"""A small network, and what ONNX Runtime's quantizer makes of it in each of its formats."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from n2n_edge.quantize.device_plan import host_plan

__all__ = ["KINDS", "STATIC", "Images", "floats", "quantized", "training_form", "weights_alone"]

STATIC = ("operators", "pairs", "pairs per channel")
KINDS = (*STATIC, "dynamic")
"""Ways to quantize."""


class Images(CalibrationDataReader):
    """Images for the input of a model: random ones unless given, `(N, C, H, W)`."""

    def __init__(self, source: Path, images: np.ndarray | None) -> None:
        generator = np.random.default_rng(0)
        (given,) = onnx.load(source).graph.input
        shape = [dim.dim_value or 1 for dim in given.type.tensor_type.shape.dim]
        chosen = generator.random((3, *shape[1:]), np.float32) if images is None else images
        self._images = iter([{given.name: image[np.newaxis]} for image in chosen])

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


def training_form(
    source: Path,
    target: Path | None = None,
    images: np.ndarray | None = None,
    activations: QuantType = QuantType.QUInt8,
    *,
    shipped: bool = False,
    keep: tuple[str, ...] = (),
) -> Path:
    """Put pairs around weights, per channel, and activations of a file; weights and biases stay floats.

    With `shipped` they become integers. `keep` names nodes that stay float.
    """
    target = target or source.with_name("training.onnx")
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_static(
                source,
                target,
                Images(source, images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(keep),
                extra_options={
                    "AddQDQPairToWeight": not shipped,
                    "QuantizeBias": shipped,
                    "ActivationSymmetric": activations == QuantType.QInt8,
                },
            )
    finally:
        logging.disable(logging.NOTSET)
    return target


def quantized(source: Path, kind: str, target: Path | None = None, images: np.ndarray | None = None) -> Path:
    """Quantize a file; activations are uint8, weights int8 (uint8 where the former are scaled at run time)."""
    target = target or source.with_name(f"{kind}.onnx")
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
                    Images(source, images),
                    quant_format=QuantFormat.QOperator if kind == "operators" else QuantFormat.QDQ,
                    per_channel=kind == "pairs per channel",
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    reduce_range=host_plan().weight_bits == 7,  # where kernels add products of bytes in 16 bits
                )
    finally:
        logging.disable(logging.NOTSET)
    return target


def weights_alone(path: Path) -> Path:
    """A convolution whose weight alone is kept in 8 bits."""
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], "dequantize"),
        helper.make_node("Conv", ["x", "d"], ["y"], "conv", pads=[1, 1, 1, 1]),
    ]
    weight = np.random.default_rng(0).integers(-127, 127, (16, 3, 3, 3)).astype(np.int8)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 32, 32])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(0.1, np.float32), "s")],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    return path
