"""Graphs of very many nodes, of the kinds that exporters write.

Every chain is a network on 3x32x32 images with a pooling head, about as many nodes long as asked for.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["GRAPHS", "write_graph"]

CHANNELS = 16
SIZE = 32


class Draft:
    """A graph under construction; `room` is how many nodes are still to come."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """Add a node and return the name of its first output."""
        name = f"v{len(self.nodes)}"
        given = [name, *(f"{name}.{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, inputs, given, name=f"{op_type}_{len(self.nodes)}", **attributes))
        self.room -= 1
        return name

    def constant(self, array: object, dtype: type = np.float32) -> str:
        """Add an initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        """Add an initializer of random values."""
        return self.constant(self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:])))

    def conv(self, source: str, kernel: int = 3, into: int = CHANNELS) -> str:
        """Add a convolution that leaves the size as it is."""
        return self.op("Conv", source, self.weight(CHANNELS, into, kernel, kernel), pads=[kernel // 2] * 4)

    def norm(self, source: str) -> str:
        """Add a BatchNormalization."""
        vectors = [self.constant(np.full(CHANNELS, number)) for number in (1.1, 0.1, 0.0, 1.0)]
        return self.op("BatchNormalization", source, *vectors)

    def steps(self, nodes: int) -> Iterator[int]:
        """Count while there is room for so many nodes more."""
        count = 0
        while self.room >= nodes:
            yield count
            count += 1


GRAPHS: dict[str, Callable[[Draft, str], str]] = {}
"""What lies between the first convolution and the head."""


def _graph(chain: Callable[[Draft, str], str]) -> Callable[[Draft, str], str]:
    GRAPHS[chain.__name__] = chain
    return chain


def write_graph(kind: str, nodes: int, path: Path) -> Path:
    """Write the network called `kind` with about `nodes` nodes to `path`."""
    draft = Draft(nodes)
    last = GRAPHS[kind](draft, draft.conv("x", into=3))
    pooled = draft.op("Flatten", draft.op("GlobalAveragePool", last))
    scores = draft.op("Gemm", pooled, draft.weight(CHANNELS, 10))
    graph = helper.make_graph(
        draft.nodes,
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["N", 10])],
        draft.constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@_graph
def relu(draft: Draft, value: str) -> str:
    for _ in draft.steps(1):
        value = draft.op("Relu", value)
    return value


@_graph
def conv_relu(draft: Draft, value: str) -> str:
    """Every fifth node is a convolution."""
    for _ in draft.steps(5):
        value = draft.conv(value)
        for _ in range(4):
            value = draft.op("Relu", value)
    return value


@_graph
def conv_norm(draft: Draft, value: str) -> str:
    for _ in draft.steps(3):
        value = draft.op("Relu", draft.norm(draft.conv(value)))
    return value


@_graph
def residual(draft: Draft, value: str) -> str:
    """Basic blocks as in a ResNet: one channel group over the whole network."""
    for _ in draft.steps(7):
        branch = draft.op("Relu", draft.norm(draft.conv(value)))
        value = draft.op("Relu", draft.op("Add", value, draft.norm(draft.conv(branch))))
    return value


@_graph
def dense(draft: Draft, value: str) -> str:
    """Concats of what four branches give, each narrowed again."""
    for _ in draft.steps(7):
        parts = [draft.op("Relu", value), draft.op("Sigmoid", value), draft.conv(value), draft.op("Tanh", value)]
        value = draft.op("Relu", draft.conv(draft.op("Concat", *parts, axis=1), 1, 4 * CHANNELS))
    return value


@_graph
def inverted(draft: Draft, value: str) -> str:
    """Depthwise and pointwise convolutions with a gate as in MobileNetV3."""
    for _ in draft.steps(9):
        wide = draft.op("HardSwish", draft.conv(value, 1))
        wide = draft.op("Conv", wide, draft.weight(CHANNELS, 1, 3, 3), pads=[1] * 4, group=CHANNELS)
        gate = draft.op("Relu", draft.conv(draft.op("GlobalAveragePool", wide), 1))
        wide = draft.op("Mul", wide, draft.op("HardSigmoid", draft.conv(gate, 1)))
        value = draft.op("Add", value, wide)
    return value


@_graph
def transformer(draft: Draft, value: str) -> str:
    """Tokens through MatMul, LayerNormalization and attention with two heads."""
    head = CHANNELS // 2
    split = draft.constant([0, -1, 2, head], np.int64)
    merged = draft.constant([0, -1, CHANNELS], np.int64)
    square = draft.constant([0, CHANNELS, SIZE // 4, SIZE // 4], np.int64)
    scale = draft.constant(head**-0.5)
    value = draft.op("AveragePool", value, kernel_shape=[4, 4], strides=[4, 4])
    value = draft.op(
        "Transpose", draft.op("Reshape", value, draft.constant([0, CHANNELS, -1], np.int64)), perm=[0, 2, 1]
    )
    for _ in draft.steps(25):
        normed = draft.op("LayerNormalization", value, draft.weight(CHANNELS), draft.weight(CHANNELS))
        parts = []
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            part = draft.op("Add", draft.op("MatMul", normed, draft.weight(CHANNELS, CHANNELS)), draft.weight(CHANNELS))
            parts.append(draft.op("Transpose", draft.op("Reshape", part, split), perm=perm))
        scores = draft.op("Softmax", draft.op("Mul", draft.op("MatMul", parts[0], parts[1]), scale))
        seen = draft.op("Transpose", draft.op("MatMul", scores, parts[2]), perm=[0, 2, 1, 3])
        seen = draft.op("MatMul", draft.op("Reshape", seen, merged), draft.weight(CHANNELS, CHANNELS))
        value = draft.op("Add", value, seen)
        hidden = draft.op("Relu", draft.op("MatMul", value, draft.weight(CHANNELS, CHANNELS)))
        value = draft.op("Add", value, draft.op("MatMul", hidden, draft.weight(CHANNELS, CHANNELS)))
    return draft.op("Reshape", draft.op("Transpose", value, perm=[0, 2, 1]), square)


@_graph
def shuffle(draft: Draft, value: str) -> str:
    """Split, grouped convolution, Concat and a channel shuffle by Reshape and Transpose."""
    apart = draft.constant([0, 2, CHANNELS // 2, SIZE, SIZE], np.int64)
    joined = draft.constant([0, CHANNELS, SIZE, SIZE], np.int64)
    for _ in draft.steps(7):
        half = draft.op("Split", value, outputs=2, axis=1)
        other = draft.op("Relu", draft.op("Conv", f"{half}.1", draft.weight(CHANNELS // 2, CHANNELS // 2, 1, 1)))
        value = draft.op("Reshape", draft.op("Concat", half, other, axis=1), apart)
        value = draft.op("Reshape", draft.op("Transpose", value, perm=[0, 2, 1, 3, 4]), joined)
    return value


@_graph
def sizes(draft: Draft, value: str) -> str:
    """Reshapes to sizes that are put together from Shape, Gather, Unsqueeze and Concat, as torch exports them."""
    zero, axes = draft.constant(0, np.int64), draft.constant([0], np.int64)
    rest = draft.constant([CHANNELS, SIZE, SIZE], np.int64)
    for _ in draft.steps(6):
        batch = draft.op("Unsqueeze", draft.op("Gather", draft.op("Shape", value), zero), axes)
        value = draft.op("Relu", draft.op("Reshape", value, draft.op("Concat", batch, rest, axis=0)))
    return value


@_graph
def constants(draft: Draft, value: str) -> str:
    """Weights as Constant nodes, some of them transposed."""
    for _ in draft.steps(4):
        weight = numpy_helper.from_array(
            draft.random.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype(np.float32) / 4
        )
        turned = draft.op("Transpose", draft.op("Constant", value=weight), perm=[1, 0, 2, 3])
        value = draft.op("Relu", draft.op("Conv", value, turned))
    return value


@_graph
def shared(draft: Draft, value: str) -> str:
    """One kernel and one shift for all layers."""
    weight, shift = draft.weight(CHANNELS, CHANNELS, 3, 3), draft.weight(1, CHANNELS, 1, 1)
    for _ in draft.steps(3):
        value = draft.op("Relu", draft.op("Add", draft.op("Conv", value, weight, pads=[1] * 4), shift))
    return value


@_graph
def pyramid(draft: Draft, value: str) -> str:
    """Down and up again with skips: MaxPool, Resize, Concat."""
    scales = draft.constant([1, 1, 2, 2])
    for _ in draft.steps(7):
        low = draft.op("Relu", draft.conv(draft.op("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])))
        high = draft.op("Resize", low, "", scales, mode="nearest")
        value = draft.op("Relu", draft.conv(draft.op("Concat", value, high, axis=1), 1, 2 * CHANNELS))
    return value


@_graph
def branches(draft: Draft, value: str) -> str:
    """Thousands of readers of one value, joined by one Concat."""
    parts = [draft.op("Relu", draft.conv(value, 1)) for _ in draft.steps(2)]
    return draft.conv(draft.op("Concat", *parts, axis=1), 1, CHANNELS * len(parts))


@_graph
def control(draft: Draft, value: str) -> str:
    """Ifs whose condition is told by the network's own values."""
    for _ in draft.steps(4):
        mean = draft.op("ReduceMean", value, keepdims=0)
        condition = draft.op("Greater", mean, draft.constant(0.0))
        name = f"b{len(draft.nodes)}"
        bodies = [
            helper.make_graph(
                [helper.make_node(op, [value], [f"{name}.{op}"])],
                f"{name}_{op}",
                [],
                [helper.make_tensor_value_info(f"{name}.{op}", TensorProto.FLOAT, None)],
            )
            for op in ("Relu", "Sigmoid")
        ]
        value = draft.conv(draft.op("If", condition, then_branch=bodies[0], else_branch=bodies[1]))
    return value
