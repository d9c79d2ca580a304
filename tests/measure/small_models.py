"""Small ONNX files for tests of measuring and predicting."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_conv_model(path: Path, width: int = 8, size: int = 16, batch: int | str = "batch") -> Path:
    """Write Conv, BatchNorm, Relu, Conv, Add, Relu on (batch, 3, size, size) with `width` channels."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"], "norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["y"], "relu2"),
    ]
    weights = [weight("w1", width, 3, 3, 3), weight("w2", width, width, 3, 3)]
    weights += [weight(name, width) for name in ("scale", "shift", "mean")]
    weights.append(numpy_helper.from_array(np.ones(width, np.float32), "var"))
    return _write(path, nodes, weights, [batch, 3, size, size], [batch, width, size, size])


def write_gemm_model(path: Path, width: int) -> Path:
    """Write one Gemm with `width` x `width` fp32 weights."""
    weights = [numpy_helper.from_array(np.ones((width, width), np.float32), "w")]
    return _write(
        path, [helper.make_node("Gemm", ["x", "w"], ["y"], "fc")], weights, ["batch", width], ["batch", width]
    )


def write_failing_model(path: Path) -> Path:
    """Write a model that loads but fails when it runs: it reshapes 3 elements into 7."""
    shape = numpy_helper.from_array(np.array([7], np.int64), "shape")
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], "bad")]
    return _write(path, nodes, [shape], ["batch", 3], ["n"])


def write_sized_model(path: Path, *, sizes: tuple[int, ...] | None = None) -> Path:
    """Write a model that reshapes 12 elements to what a further input says; `sizes` makes that input optional."""
    path = _write(path, [helper.make_node("Reshape", ["x", "sizes"], ["y"], "sized")], [], [1, 12], ["a", "b"])
    proto = onnx.load(path)
    proto.graph.input.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, [2]))
    if sizes is not None:
        proto.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), "sizes"))
    onnx.save(proto, path)
    return path


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    input_shape: list[int | str],
    output_shape: list[int | str],
) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path
