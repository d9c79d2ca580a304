"""Graphs of very many nodes, one kind of chain each, for everything that walks over a graph.

>>> deep_model("Relu", 10_000)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["DEEP_GRAPHS", "deep_model"]

CHANNELS = 4
SIZE = 8


@dataclass
class Draft:
    """A graph under construction; `room` is how many nodes are still to come, those of the head not counted."""

    room: int
    batch: str | int = "N"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """Add a node and return the name of its first output."""
        name = f"v{len(self.nodes)}"
        given = [name, *(f"{name}.{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, list(inputs), given, **attributes))
        self.room -= 1
        return name

    def constant(self, array: object, dtype: type = np.float32) -> str:
        """Add an initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        """Add an initializer of values of its own."""
        values = np.random.default_rng(len(self.constants)).standard_normal(shape)
        return self.constant(values / np.sqrt(np.prod(shape[1:])))

    def conv(self, source: str, *, into: int = CHANNELS, out: int = CHANNELS, pads: int = 1, kernel: int = 3) -> str:
        """Add a convolution with a weight of its own."""
        return self.op("Conv", source, self.weight(out, into, kernel, kernel), pads=[pads] * 4)


Chain = Callable[[Draft], str]

DEEP_GRAPHS: dict[str, Chain] = {}
"""What lies between the image ``x`` and the head: adds nodes until there is no room left, gives the feature map."""


def deep_graph(chain: Chain) -> Chain:
    """Register a chain under its name."""
    DEEP_GRAPHS[chain.__name__] = chain
    return chain


def deep_model(kind: str, nodes: int) -> onnx.ModelProto:
    """Return a network that ends in a pooling head (4 channels to 3 classes), about `nodes` long."""
    draft = Draft(nodes)
    last = DEEP_GRAPHS[kind](draft)
    pooled = draft.op("GlobalAveragePool", last)
    scores = draft.op("Gemm", draft.op("Flatten", pooled), draft.weight(CHANNELS, 3))
    graph = helper.make_graph(
        draft.nodes,
        "deep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [draft.batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, [draft.batch, 3])],
        draft.constants,
    )
    imports = [helper.make_opsetid("", 17)]
    if draft.functions:
        imports.append(helper.make_opsetid("deep", 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=9, functions=draft.functions)


def first(draft: Draft) -> str:
    return draft.conv("x", into=3)


def times(draft: Draft, nodes: int = 1) -> Iterator[int]:
    """Count while there is room for so many nodes more."""
    count = 0
    while draft.room >= nodes:
        yield count
        count += 1


@deep_graph
def relu(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft):
        value = draft.op("Relu", value)
    return value


@deep_graph
def mixed_unary(draft: Draft) -> str:
    value = first(draft)
    for index in times(draft):
        value = draft.op(("Sigmoid", "Tanh", "LeakyRelu", "Softplus", "HardSwish")[index % 5], value)
    return value


@deep_graph
def relu_after_unlike_widths(draft: Draft) -> str:
    """A removable layer that changes the width, whose readers are refitted far behind it."""
    value = draft.conv(first(draft), out=CHANNELS + 2)
    for _ in times(draft, 2):
        value = draft.op("Relu", value)
    return draft.conv(value, into=CHANNELS + 2)


@deep_graph
def fan_out(draft: Draft) -> str:
    """Two readers of everything."""
    value = first(draft)
    for _ in times(draft, 3):
        value = draft.op("Mul", draft.op("Relu", value), draft.op("Sigmoid", value))
    return value


@deep_graph
def conv_relu(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft, 2):
        value = draft.op("Relu", draft.conv(value))
    return value


@deep_graph
def depthwise(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft, 2):
        value = draft.op("Conv", value, draft.weight(CHANNELS, 1, 3, 3), pads=[1] * 4, group=CHANNELS)
        value = draft.conv(value, kernel=1, pads=0)
    return value


@deep_graph
def grouped(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft):
        value = draft.op("Conv", value, draft.weight(CHANNELS, 2, 1, 1), group=2)
    return value


@deep_graph
def pad_conv(draft: Draft) -> str:
    value = first(draft)
    pads = draft.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    for _ in times(draft, 2):
        value = draft.conv(draft.op("Pad", value, pads), pads=0)
    return value


@deep_graph
def residual(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft, 3):
        value = draft.op("Add", value, draft.conv(draft.op("Relu", value)))
    return value


@deep_graph
def sums_of_sums(draft: Draft) -> str:
    """``((a + b) + c) + ...``: one sum over the branches of one value."""
    source = first(draft)
    value = draft.op("Relu", source)
    for _ in times(draft, 2):
        value = draft.op("Add", value, draft.conv(source, kernel=1, pads=0))
    return value


@deep_graph
def sum_of_one(draft: Draft) -> str:
    """``((a + a) + a) + ...``."""
    source = first(draft)
    value = source
    for _ in times(draft):
        value = draft.op("Sum", value, source)
    return value


@deep_graph
def doubled(draft: Draft) -> str:
    """``x = x + x``: as many paths as there are numbers."""
    value = first(draft)
    for _ in times(draft):
        value = draft.op("Add", value, value)
    return value


@deep_graph
def wide_sum(draft: Draft) -> str:
    source = first(draft)
    branches = [draft.conv(source, kernel=1, pads=0) for _ in times(draft)]
    return draft.op("Sum", *branches)


@deep_graph
def wide_concat(draft: Draft) -> str:
    source = first(draft)
    branches = [draft.op("Relu", source) for _ in times(draft)]
    joined = draft.op("Concat", *branches, axis=1)
    return draft.conv(joined, into=CHANNELS * len(branches), kernel=1, pads=0)


@deep_graph
def batch_norm(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft):
        vectors = [draft.constant([number] * CHANNELS) for number in (1.1, 0.1, 0.0, 1.0)]
        value = draft.op("BatchNormalization", value, *vectors)
    return value


@deep_graph
def conv_batch_norm(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft, 3):
        vectors = [draft.constant([number] * CHANNELS) for number in (1.1, 0.1, 0.0, 1.0)]
        value = draft.op("Relu", draft.op("BatchNormalization", draft.conv(value), *vectors))
    return value


@deep_graph
def clip(draft: Draft) -> str:
    value = first(draft)
    for index in times(draft):
        value = draft.op("Clip", value, draft.constant(-1.0 - index), draft.constant(6.0))
    return value


@deep_graph
def identity(draft: Draft) -> str:
    value = first(draft)
    for index in times(draft):
        value = draft.op(("Identity", "Dropout")[index % 2], value)
    return value


@deep_graph
def pooling(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft):
        value = draft.op("MaxPool", value, kernel_shape=[3, 3], pads=[1] * 4)
    return value


@deep_graph
def reshapes(draft: Draft) -> str:
    value = first(draft)
    flat = draft.constant([0, CHANNELS, -1], np.int64)
    square = draft.constant([0, CHANNELS, SIZE, SIZE], np.int64)
    for _ in times(draft, 2):
        value = draft.op("Reshape", draft.op("Reshape", value, flat), square)
    return value


@deep_graph
def transposes(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft, 2):
        value = draft.op("Transpose", draft.op("Transpose", value, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    return value


@deep_graph
def squeezes(draft: Draft) -> str:
    value = first(draft)
    axes = draft.constant([1], np.int64)
    for _ in times(draft, 2):
        value = draft.op("Squeeze", draft.op("Unsqueeze", value, axes), axes)
    return value


@deep_graph
def flattens(draft: Draft) -> str:
    value = draft.op("Flatten", draft.op("GlobalMaxPool", first(draft)))
    for index in times(draft, 5):
        value = draft.op(("Flatten", "Relu")[index % 2], value)
    value = draft.op("Gemm", value, draft.weight(CHANNELS, CHANNELS))
    axes = draft.constant([2, 3], np.int64)
    return draft.op("Unsqueeze", value, axes)


@deep_graph
def matrices(draft: Draft) -> str:
    value = draft.op("Transpose", first(draft), perm=[0, 2, 3, 1])
    for _ in times(draft, 2):
        value = draft.op("Add", draft.op("MatMul", value, draft.weight(CHANNELS, CHANNELS)), draft.weight(CHANNELS))
    return draft.op("Transpose", value, perm=[0, 3, 1, 2])


@deep_graph
def slices(draft: Draft) -> str:
    value = first(draft)
    bounds = [draft.constant([number], np.int64) for number in (0, CHANNELS // 2, CHANNELS, 1)]
    for _ in times(draft, 3):
        halves = [draft.op("Slice", value, bounds[at], bounds[at + 1], bounds[3]) for at in (0, 1)]
        value = draft.op("Concat", *reversed(halves), axis=1)
    return value


@deep_graph
def splits(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft, 2):
        half = draft.op("Split", value, outputs=2, axis=1)
        value = draft.op("Concat", f"{half}.1", half, axis=1)
    return value


@deep_graph
def pads(draft: Draft) -> str:
    """Pads of rows alone, each taken away again."""
    value = first(draft)
    amounts = [draft.constant([0, 0, n, 0, 0, 0, 0, 0], np.int64) for n in (1, -1)]
    for _ in times(draft, 2):
        for amount in amounts:
            value = draft.op("Pad", value, amount)
    return value


@deep_graph
def channel_pads(draft: Draft) -> str:
    """Channels of zeros from a Concat, cut off again: each Concat becomes a Pad, and the batch is opened."""
    draft.batch = 1
    value = first(draft)
    zeros = draft.constant(np.zeros((1, 1, SIZE, SIZE)))
    bounds = [draft.constant([number], np.int64) for number in (0, CHANNELS, 1)]
    for _ in times(draft, 2):
        value = draft.op("Slice", draft.op("Concat", value, zeros, axis=1), *bounds)
    return value


@deep_graph
def weight_forms(draft: Draft) -> str:
    """A weight read through Identity, Transpose, Reshape and Cast, one behind the other."""
    weight = draft.weight(CHANNELS, 3, 3, 3)
    shape = draft.constant([CHANNELS, 3, 3, 3], np.int64)
    for index in times(draft, 6):
        match index % 4:
            case 0:
                weight = draft.op("Identity", weight)
            case 1:
                weight = draft.op("Transpose", weight, perm=[0, 1, 3, 2])
            case 2:
                weight = draft.op("Reshape", weight, shape)
            case _:
                weight = draft.op("Cast", weight, to=TensorProto.FLOAT)
    return draft.op("Conv", "x", weight, pads=[1] * 4)


@deep_graph
def shared_weight_forms(draft: Draft) -> str:
    """The same, of a weight that is read as it is, too, so that the other form stays calculated."""
    weight = other = draft.weight(CHANNELS, CHANNELS, 5, 5)
    for index in times(draft, 6):
        other = draft.op(*(("Transpose", other), ("Identity", other))[index % 2])
        if index % 2 == 0:
            draft.nodes[-1].attribute.append(helper.make_attribute("perm", [0, 1, 3, 2]))
    value = draft.op("Conv", first(draft), weight, pads=[2] * 4)
    return draft.op("Conv", value, other, pads=[2] * 4)


@deep_graph
def stacked_weights(draft: Draft) -> str:
    """A weight in other forms for every one of its many readers."""
    value = first(draft)
    weight = draft.weight(CHANNELS, CHANNELS, 3, 3)
    for _ in times(draft, 3):
        value = draft.op("Conv", value, weight, pads=[1] * 4)
        weight = draft.op("Transpose", weight, perm=[0, 1, 3, 2])
    return value


@deep_graph
def transposed_weights(draft: Draft) -> str:
    """Matrices that are stored transposed, one for each layer."""
    value = draft.op("Transpose", first(draft), perm=[0, 2, 3, 1])
    for _ in times(draft, 4):
        weight = draft.op("Transpose", draft.weight(CHANNELS, CHANNELS), perm=[1, 0])
        value = draft.op("Relu", draft.op("MatMul", value, weight))
    return draft.op("Transpose", value, perm=[0, 3, 1, 2])


@deep_graph
def expanded_weights(draft: Draft) -> str:
    """One row that is repeated to a kernel, again and again."""
    weight = draft.weight(1, 1, 1, 1)
    shape = draft.constant([CHANNELS, 3, 3, 3], np.int64)
    weight = draft.op("Expand", weight, shape)
    for index in times(draft, 6):
        weight = draft.op("Expand", weight, shape) if index % 2 else draft.op("Identity", weight)
    return draft.op("Conv", "x", weight, pads=[1] * 4)


@deep_graph
def constant_sums(draft: Draft) -> str:
    """A weight that is calculated by doubling: as many paths as there are numbers."""
    weight = draft.weight(CHANNELS, 3, 3, 3)
    half = draft.constant(0.5)
    for _ in times(draft, 7):
        weight = draft.op("Mul", draft.op("Add", weight, weight), half)
    return draft.op("Conv", "x", weight, pads=[1] * 4)


@deep_graph
def constant_nodes(draft: Draft) -> str:
    """Constant nodes and a chain on what they give."""
    value = first(draft)
    for index in times(draft, 3):
        number = numpy_helper.from_array(np.array([index], np.float32))
        constant = draft.op("Identity", draft.op("Constant", value=number))
        value = draft.op("Add", value, constant)
    return value


@deep_graph
def sizes(draft: Draft) -> str:
    """Arithmetic on a shape, which follows from that of the input."""
    value = first(draft)
    shape = draft.op("Shape", value)
    zero = draft.constant([0, 0, 0, 0], np.int64)
    for _ in times(draft, 6):
        shape = draft.op("Add", shape, zero)
    return draft.op("Reshape", value, shape)


@deep_graph
def sizes_everywhere(draft: Draft) -> str:
    """Reshapes to a shape that is put together anew for each."""
    value = first(draft)
    zero, axes = draft.constant(0, np.int64), draft.constant([0], np.int64)
    rest = draft.constant([CHANNELS, SIZE, SIZE], np.int64)
    for _ in times(draft, 5):
        batch = draft.op("Unsqueeze", draft.op("Gather", draft.op("Shape", value), zero), axes)
        value = draft.op("Reshape", value, draft.op("Concat", batch, rest, axis=0))
    return value


@deep_graph
def gates(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft, 4):
        gate = draft.op("Sigmoid", draft.conv(draft.op("GlobalAveragePool", value), kernel=1, pads=0))
        value = draft.op("Mul", value, gate)
    return value


@deep_graph
def layer_norms(draft: Draft) -> str:
    value = draft.op("Transpose", first(draft), perm=[0, 2, 3, 1])
    for _ in times(draft):
        value = draft.op("LayerNormalization", value, draft.weight(CHANNELS), draft.weight(CHANNELS))
    return draft.op("Transpose", value, perm=[0, 3, 1, 2])


@deep_graph
def attention(draft: Draft) -> str:
    value = draft.op("Transpose", first(draft), perm=[0, 2, 3, 1])
    for _ in times(draft, 5):
        scores = draft.op("MatMul", value, draft.op("Transpose", value, perm=[0, 1, 3, 2]))
        seen = draft.op("MatMul", draft.op("Softmax", scores), value)
        value = draft.op("Add", value, draft.op("MatMul", seen, draft.weight(CHANNELS, CHANNELS)))
    return draft.op("Transpose", value, perm=[0, 3, 1, 2])


@deep_graph
def quantized(draft: Draft) -> str:
    value = first(draft)
    scale, zero = draft.constant(0.1), draft.constant(0, np.int8)
    for _ in times(draft, 2):
        value = draft.op("DequantizeLinear", draft.op("QuantizeLinear", value, scale, zero), scale, zero)
    return value


@deep_graph
def quantized_weight(draft: Draft) -> str:
    weight = draft.weight(CHANNELS, 3, 3, 3)
    scale, zero = draft.constant(0.1), draft.constant(0, np.int8)
    for _ in times(draft, 6):
        weight = draft.op("DequantizeLinear", draft.op("QuantizeLinear", weight, scale, zero), scale, zero)
    return draft.op("Conv", "x", weight, pads=[1] * 4)


@deep_graph
def unknown_ops(draft: Draft) -> str:
    value = first(draft)
    for _ in times(draft):
        value = draft.op("Cosh", value)
    return value


@deep_graph
def unread(draft: Draft) -> str:
    """A long branch that nothing reads."""
    value = first(draft)
    other = value
    for _ in times(draft):
        other = draft.op("Relu", other)
    return value


@deep_graph
def nested_functions(draft: Draft) -> str:
    """Functions that each call the one before."""
    value = first(draft)
    inner = "Relu"
    for index in times(draft):
        domain = "deep" if index else ""
        call = helper.make_node(inner, ["a"], ["b"], domain=domain)
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("deep", 1)]
        draft.functions.append(helper.make_function("deep", f"f{index}", ["a"], ["b"], [call], imports))
        inner = f"f{index}"
        draft.room -= 1
    return draft.op(inner, value, domain="deep")


@deep_graph
def unsorted(draft: Draft) -> str:
    """Nodes in the opposite order."""
    value = relu(draft)
    draft.nodes.reverse()
    return value
