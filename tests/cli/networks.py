"""Small networks with an output for each kind of labels, for tests of whole commands."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

__all__ = ["SIDE", "detector", "keypoint_network", "segmenter"]

SIDE = 32
"""Height and width of the images, which have three channels."""


class _Graph:
    def __init__(self) -> None:
        self.nodes, self.weights, self._random = [], [], np.random.default_rng(0)

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        values = (self._random.normal(size=shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def sizes(self, name: str, values: list[int]) -> str:
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"/{name}", **attributes))
        return name

    def conv(self, source: str, name: str, cin: int, cout: int, size: int, stride: int = 1) -> str:
        pad = (size - 1) // 2 if stride == 1 else 0
        weight = self.weight(f"{name}.weight", (cout, cin, size, size))
        return self.node("Conv", [source, weight], name, strides=[stride, stride], pads=[pad] * 4)

    def body(self, stride: int) -> str:
        first = self.node("Relu", [self.conv("images", "stem", 3, 8, stride, stride)], "stem.relu")
        return self.node("Relu", [self.conv(first, "body", 8, 8, 3)], "body.relu")

    def write(self, path: Path, output: str, shape: list[int]) -> Path:
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes])
            for name, sizes in (("images", [3, SIDE, SIDE]), (output, shape))
        ]
        graph = helper.make_graph(self.nodes, "network", values[:1], values[1:], self.weights)
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
        return path


def detector(path: Path, classes: int = 3) -> Path:
    """Write a detector with a head as YOLOX has it, ``(N, 21, 5 + classes)``."""
    graph = _Graph()
    level, parts = graph.body(8), []
    shape = graph.sizes("flat", [0, 5 + classes, -1])
    for stride in (8, 16, 32):
        raw = graph.conv(level, f"head{stride}", 8, 5 + classes, 1)
        parts.append(graph.node("Reshape", [raw, shape], f"flat{stride}"))
        level = graph.node("MaxPool", [level], f"pool{stride}", kernel_shape=[2, 2], strides=[2, 2])
    graph.nodes = [each for each in graph.nodes if each.output[0] != "pool32"]
    joined = graph.node("Concat", parts, "joined", axis=2)
    graph.node("Transpose", [joined], "output", perm=[0, 2, 1])
    return graph.write(path, "output", [21, 5 + classes])


def segmenter(path: Path, classes: int = 3, end: str = "Softmax") -> Path:
    """Write a network that gives a map ``(N, classes, SIDE, SIDE)``."""
    graph = _Graph()
    raw = graph.conv(graph.node("Relu", [graph.conv("images", "stem", 3, 8, 3)], "stem.relu"), "head", 8, classes, 3)
    output = graph.node(end, [raw], "output", **({"axis": 1} if end == "Softmax" else {})) if end else raw
    return graph.write(path, output, [classes, SIDE, SIDE])


def keypoint_network(path: Path, points: int = 2) -> Path:
    """Write a network that gives ``(N, 2 points)`` coordinates as shares of the image."""
    graph = _Graph()
    pooled = graph.node("GlobalAveragePool", [graph.body(4)], "pooled")
    flat = graph.node("Flatten", [pooled], "flat")
    raw = graph.node("Gemm", [flat, graph.weight("head.weight", (2 * points, 8))], "raw", transB=1)
    graph.node("Sigmoid", [raw], "output")
    return graph.write(path, "output", [2 * points])
