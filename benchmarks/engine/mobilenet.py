"""MobileNetV2 as an ONNX graph of random weights, at any width, for benchmarks of training."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["FEATURES", "Graph", "blocks", "half_width", "mobilenet_v2"]

FEATURES = 1280
"""Channels before the head, at full width."""

_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def blocks(share: float) -> tuple[tuple[int, int, int, int], ...]:
    """Return expansion, channels, repeats and first stride of the stages, at a share of the width."""
    return tuple((expansion, int(width * share), repeats, first) for expansion, width, repeats, first in _BLOCKS)


@dataclass
class Graph:
    """The nodes of a network, and its weights by name; `random` draws those that come."""

    random: np.random.RandomState
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def model(self, size: int, output: str, outputs: int | None) -> onnx.ModelProto:
        """Return what gives a value for images ``x`` `(N, 3, size, size)`; None for outputs of whatever shape."""
        shape = None if outputs is None else ["batch", outputs]
        graph = helper.make_graph(
            self.nodes,
            "mobilenet_v2",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, size, size])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(array, name) for name, array in self.arrays.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mobilenet_v2(share: float, activation: Literal["Relu", "Relu6"]) -> Graph:
    """Return the network up to its features, ``features`` `(N, share * 1280)`."""
    graph = Graph(np.random.RandomState(0))

    def add(op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def conv(
        source: str, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1, active: bool = True
    ) -> str:
        name = f"c{len(graph.nodes)}"
        shape = (outputs, inputs // groups, kernel, kernel)
        weight = graph.random.randn(*shape) * (2 / np.prod(shape[1:])) ** 0.5
        graph.arrays[f"{name}.w"] = weight.astype(np.float32)
        norm = [f"{name}.{part}" for part in ("scale", "shift", "mean", "var")]
        graph.arrays |= {
            part: np.full(outputs, value, np.float32) for part, value in zip(norm, (1, 0, 0, 1), strict=True)
        }
        sizes = {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": groups}
        y = add("Conv", [source, f"{name}.w"], f"{name}.y", name=name, **sizes)
        y = add("BatchNormalization", [y, *norm], f"{name}.n")
        if not active:
            return y
        return add("Relu", [y], f"{name}.r") if activation == "Relu" else add("Clip", [y, "low", "high"], f"{name}.r")

    if activation == "Relu6":
        graph.arrays |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    width = int(32 * share)
    last = conv("x", 3, width, 3, 2)
    for expansion, channels, repeats, first in blocks(share):
        for turn in range(repeats):
            stride = first if turn == 0 else 1
            wide = width * expansion
            inner = conv(last, width, wide, 1, 1) if expansion > 1 else last
            inner = conv(inner, wide, wide, 3, stride, groups=wide)
            inner = conv(inner, wide, channels, 1, 1, active=False)
            if stride == 1 and width == channels:
                inner = add("Add", [last, inner], f"a{len(graph.nodes)}")
            last, width = inner, channels
    last = conv(last, width, int(FEATURES * share), 1, 1)
    add("Flatten", [add("GlobalAveragePool", [last], "pooled")], "features")
    return graph


def half_width(size: int) -> ir.Model:
    """Return a network of half the width and 100 classes."""
    graph = mobilenet_v2(0.5, "Relu")
    graph.arrays["fc"] = (graph.random.randn(100, FEATURES // 2) * 0.05).astype(np.float32)
    graph.nodes.append(helper.make_node("Gemm", ["features", "fc"], ["y"], transB=1))
    return ir.from_proto(graph.model(size, "y", 100))
