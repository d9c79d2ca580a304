"""Hypothesis strategies that make random convolutional networks, for every test that takes a graph.

>>> @given(cnn_models())
... def test_something(model: ir.Model) -> None: ...

The networks are small (inputs of 8x8 to 12x12, up to four blocks) and mix the pieces that real families are made of:
plain chains, residual blocks with identity, projection and padded shortcuts, separable and inverted residual blocks,
fire modules, dense blocks, grouped convolutions, squeeze-and-excite gates, splits, channel shuffles, self-attention
with one head and with several, ConvNeXt blocks, pre-activation, nested branches, resizing and transposed convolutions,
response, instance and group normalisation.

A failing test prints the `Recipe` of its network: ``build_cnn(Recipe(...))`` makes it again.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import note, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

__all__ = [
    "BLOCKS",
    "GRAPH_SETTINGS",
    "HEADS",
    "GraphBuilder",
    "Recipe",
    "Tensor",
    "build_cnn",
    "cnn_models",
    "cnn_protos",
]

NEWEST_OPSET = 26
"""The newest opset that the pinned onnxruntime runs."""

GRAPH_SETTINGS = settings(deadline=None, derandomize=True, max_examples=int(os.environ.get("N2N_EDGE_EXAMPLES", "12")))
"""For property tests over graphs: the same examples on every run, and no limit on the time of one."""


@dataclass(frozen=True)
class Tensor:
    """A value under construction: its name and its size without the batch; `size` is (rows, columns) or ()."""

    name: str
    channels: int
    size: tuple[int, ...]


@dataclass
class GraphBuilder:
    """An ONNX graph under construction; each method adds nodes and returns what they give."""

    opset: int
    rng: np.random.Generator
    batch_norm: bool = True
    activation: str = "Relu"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, stem: str, array: np.ndarray) -> str:
        """Add an initializer; weights are called ``conv7.weight``, other constants ``shift.12``."""
        name = stem if stem.endswith(".weight") else f"{stem}.{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        """Add a 1-D constant of integers."""
        return self.constant("ints", np.array(values, np.int64))

    def op(self, op_type: str, inputs: Sequence[str], outputs: int = 1, **attributes: object) -> str:
        """Add a node and return the name of its first output; further ones end in ``.1``, ``.2``."""
        name = f"{op_type.lower()}_{len(self.nodes)}"
        names = [f"{name}.{index}" if index else name for index in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=f"n_{name}", **attributes))
        return name

    def conv(
        self,
        x: Tensor,
        width: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        *,
        norm: bool | None = None,
        act: bool = True,
    ) -> Tensor:
        """Conv, then BatchNormalization where the network has norms (else a bias), then the activation."""
        norm = self.batch_norm if norm is None else norm
        fan_in = x.channels // groups * kernel * kernel
        weight = self.rng.normal(0, (2 / fan_in) ** 0.5, (width, x.channels // groups, kernel, kernel))
        inputs = [x.name, self.constant(f"conv{len(self.nodes)}.weight", weight.astype(np.float32))]
        if not norm or self.rng.random() < 0.2:
            inputs.append(self._vector("bias", width))
        pad = kernel // 2
        name = self.op("Conv", inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, group=groups)
        size = tuple((edge + 2 * pad - kernel) // stride + 1 for edge in x.size)
        y = Tensor(name, width, size)
        if norm:
            y = self.norm(y)
        return self.act(y) if act else y

    def norm(self, x: Tensor) -> Tensor:
        """BatchNormalization with random statistics."""
        vectors = [
            self.constant("scale", self.rng.uniform(0.5, 1.5, x.channels).astype(np.float32)),
            self._vector("shift", x.channels),
            self._vector("mean", x.channels),
            self.constant("var", self.rng.uniform(0.5, 2, x.channels).astype(np.float32)),
        ]
        return self._like(x, self.op("BatchNormalization", [x.name, *vectors], epsilon=1e-5))

    def act(self, x: Tensor) -> Tensor:
        """The network's activation."""
        match self.activation:
            case "Clip":
                low, high = (self.constant("bound", np.array(bound, np.float32)) for bound in (0, 6))
                return self._like(x, self.op("Clip", [x.name, low, high]))
            case "PRelu":
                slope = self.constant("slope", self.rng.uniform(0, 0.5, (x.channels, 1, 1)).astype(np.float32))
                return self._like(x, self.op("PRelu", [x.name, slope]))
            case "Swish":
                return self._like(x, self.op("Mul", [x.name, self.op("Sigmoid", [x.name])]))
            case _:
                return self._like(x, self.op(self.activation, [x.name]))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Add of two values of one size."""
        return self._like(x, self.op("Add", [x.name, y.name]))

    def concat(self, *parts: Tensor) -> Tensor:
        """Concat along the channels."""
        name = self.op("Concat", [part.name for part in parts], axis=1)
        return Tensor(name, sum(part.channels for part in parts), parts[0].size)

    def pool(self, x: Tensor, op_type: str = "MaxPool") -> Tensor:
        """2x2 pooling with stride 2."""
        name = self.op(op_type, [x.name], kernel_shape=[2, 2], strides=[2, 2])
        return Tensor(name, x.channels, tuple(edge // 2 for edge in x.size))

    def padded_shortcut(self, x: Tensor, width: int, stride: int) -> Tensor:
        """The shortcut of CIFAR ResNets, option A: a strided Slice, then zeros on both sides of the channels."""
        name = x.name
        if stride > 1:
            bounds = [self.ints(0, 0), self.ints(2**31 - 1, 2**31 - 1), self.ints(2, 3), self.ints(stride, stride)]
            name = self.op("Slice", [name, *bounds])
        before = (width - x.channels) // 2
        name = self.op("Pad", [name, self.ints(0, before, 0, 0, 0, width - x.channels - before, 0, 0)])
        return Tensor(name, width, tuple(-(-edge // stride) for edge in x.size))

    def global_pool(self, x: Tensor, op_type: str, keepdims: bool = True) -> Tensor:
        """GlobalAveragePool, or the ReduceMean over rows and columns that torch exports for ``mean((2, 3))``."""
        if op_type == "GlobalAveragePool":
            return Tensor(self.op(op_type, [x.name]), x.channels, (1, 1))
        if self.opset < 18:
            name = self.op("ReduceMean", [x.name], axes=[2, 3], keepdims=int(keepdims))
        else:
            name = self.op("ReduceMean", [x.name, self.ints(2, 3)], keepdims=int(keepdims))
        return Tensor(name, x.channels, (1, 1) if keepdims else ())

    def flatten(self, x: Tensor) -> Tensor:
        """Flatten, or the Reshape to (0, -1) that some exporters write."""
        features = x.channels * int(np.prod(x.size, dtype=np.int64))
        if self.rng.random() < 0.5:
            return Tensor(self.op("Flatten", [x.name], axis=1), features, ())
        return Tensor(self.op("Reshape", [x.name, self.ints(0, -1)]), features, ())

    def dense(self, x: Tensor, width: int) -> Tensor:
        """Gemm with a transposed or plain weight, or MatMul and Add."""
        form = self.rng.integers(3)
        weight = self.rng.normal(0, x.channels**-0.5, (x.channels, width)).astype(np.float32)
        stem = f"fc{len(self.nodes)}.weight"
        if form == 0:
            inputs = [x.name, self.constant(stem, weight.T), self._vector("bias", width)]
            return Tensor(self.op("Gemm", inputs, transB=1), width, ())
        if form == 1:
            return Tensor(self.op("Gemm", [x.name, self.constant(stem, weight)]), width, ())
        product = self.op("MatMul", [x.name, self.constant(stem, weight)])
        return Tensor(self.op("Add", [product, self._vector("bias", width)]), width, ())

    def linear(self, name: str, inputs: int, outputs: int) -> str:
        """MatMul over the last axis, and its bias."""
        weight = self.rng.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        product = self.op("MatMul", [name, self.constant(f"linear{len(self.nodes)}.weight", weight)])
        return self.op("Add", [product, self._vector("bias", outputs)])

    def layer_norm(self, name: str, channels: int) -> str:
        """LayerNormalization over the last axis, spelled out before opset 17."""
        scale = self.constant("scale", self.rng.uniform(0.5, 1.5, channels).astype(np.float32))
        shift = self._vector("shift", channels)
        if self.opset >= 17:
            return self.op("LayerNormalization", [name, scale, shift], axis=-1)
        two, epsilon = (self.constant("number", np.array(number, np.float32)) for number in (2, 1e-5))
        centred = self.op("Sub", [name, self.op("ReduceMean", [name], axes=[-1])])
        variance = self.op("ReduceMean", [self.op("Pow", [centred, two])], axes=[-1])
        spread = self.op("Sqrt", [self.op("Add", [variance, epsilon])])
        return self.op("Add", [self.op("Mul", [self.op("Div", [centred, spread]), scale]), shift])

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two halves of the channels."""
        sizes = [x.channels // 2, x.channels - x.channels // 2]
        if self.opset < 13:
            name = self.op("Split", [x.name], outputs=2, axis=1, split=sizes)
        else:
            name = self.op("Split", [x.name, self.ints(*sizes)], outputs=2, axis=1)
        return Tensor(name, sizes[0], x.size), Tensor(f"{name}.1", sizes[1], x.size)

    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        """Channel shuffle: Reshape, Transpose, Reshape."""
        apart = self.op("Reshape", [x.name, self.ints(0, groups, x.channels // groups, *x.size)])
        turned = self.op("Transpose", [apart], perm=[0, 2, 1, 3, 4])
        return self._like(x, self.op("Reshape", [turned, self.ints(0, x.channels, *x.size)]))

    def to_proto(self, channels: int, size: int, output: Tensor, *, free_batch: bool, batch: int) -> onnx.ModelProto:
        """Return the finished model, its input called ``input`` and its output ``logits``."""
        self.nodes.append(helper.make_node("Identity", [output.name], ["logits"], name="n_logits"))
        lead: str | int = "batch" if free_batch else batch
        graph = helper.make_graph(
            self.nodes,
            "cnn",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [lead, channels, size, size])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [lead, output.channels, *output.size])],
            self.initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9 if self.opset < 21 else 13
        )
        onnx.checker.check_model(model)
        return model

    def _vector(self, stem: str, width: int) -> str:
        return self.constant(stem, self.rng.normal(0, 0.2, width).astype(np.float32))

    def _like(self, x: Tensor, name: str) -> Tensor:
        return Tensor(name, x.channels, x.size)


Block = Callable[[GraphBuilder, Tensor, int, int], Tensor]
"""``block(builder, x, width, stride)``; a block that can't take the stride or the width leaves it out."""


def _plain(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(s.conv(x, width), width)
    return s.pool(y, str(s.rng.choice(["MaxPool", "AveragePool"]))) if stride > 1 else y


def _residual(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    inner = s.conv(s.conv(x, x.channels), x.channels, act=False)
    return s.act(s.add(inner, x))


def _projection(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    inner = s.conv(s.conv(x, width, stride=stride), width, act=False)
    return s.act(s.add(inner, s.conv(x, width, kernel=1, stride=stride, act=False)))


def _padded(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    width = max(width, x.channels + 2)
    inner = s.conv(s.conv(x, width, stride=stride), width, act=False)
    return s.act(s.add(inner, s.padded_shortcut(x, width, stride)))


def _bottleneck(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    inner = s.conv(s.conv(s.conv(x, max(2, width // 2), kernel=1), max(2, width // 2)), x.channels, kernel=1, act=False)
    return s.act(s.add(x, inner))


def _separable(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    return s.conv(s.conv(x, x.channels, stride=stride, groups=x.channels), width, kernel=1)


def _inverted(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    hidden = 2 * x.channels
    y = s.conv(s.conv(x, hidden, kernel=1), hidden, stride=stride, groups=hidden)
    y = s.conv(y, width if stride > 1 else x.channels, kernel=1, act=False)
    return y if stride > 1 else s.add(x, y)


def _fire(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    squeezed = s.conv(x, max(2, width // 2), kernel=1, norm=False)
    return s.concat(s.conv(squeezed, width, kernel=1, norm=False), s.conv(squeezed, width, norm=False))


def _dense_block(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    for _ in range(2):
        y = s.conv(s.act(s.norm(x)), max(2, width // 2), norm=False, act=False)
        x = s.concat(x, y)
    if stride > 1:
        x = s.pool(s.conv(s.act(s.norm(x)), width, kernel=1, norm=False, act=False), "AveragePool")
    return x


def _grouped(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    even = s.conv(x, width + width % 2, kernel=1)
    return s.conv(even, even.channels, stride=stride, groups=2)


def _gated(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(x, width, stride=stride)
    gate = s.global_pool(y, "GlobalAveragePool" if s.rng.random() < 0.5 else "ReduceMean")
    gate = s.conv(s.conv(gate, max(2, width // 2), kernel=1, norm=False), width, kernel=1, norm=False, act=False)
    return Tensor(s.op("Mul", [y.name, s.op("Sigmoid", [gate.name])]), width, y.size)


def _two_ways(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    first, second = s.split(s.conv(x, max(4, width)))
    return s.concat(first, s.conv(second, second.channels))


def _shuffled(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    first, second = s.split(s.conv(x, 2 * max(2, width // 2)))
    return s.shuffle(s.concat(first, s.conv(second, second.channels)), 2)


def _attention(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    places = int(np.prod(x.size, dtype=np.int64))
    query, key = (s.conv(x, width, kernel=1, norm=False, act=False) for _ in range(2))
    value = s.conv(x, x.channels, kernel=1, norm=False, act=False)
    rows = [s.op("Reshape", [part.name, s.ints(0, part.channels, places)]) for part in (query, key, value)]
    turned = s.op("Transpose", [rows[0]], perm=[0, 2, 1])
    weights = s.op("Softmax", [s.op("MatMul", [turned, rows[1]])], axis=-1)
    mixed = s.op("MatMul", [rows[2], weights])
    return s.add(x, s._like(x, s.op("Reshape", [mixed, s.ints(0, x.channels, *x.size)])))


def _many_heads(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    heads, depth = 2 + width % 2, 2
    places = int(np.prod(x.size, dtype=np.int64))
    rows = s.op("Transpose", [s.op("Reshape", [x.name, s.ints(0, x.channels, places)])], perm=[0, 2, 1])
    mixed = s.linear(rows, x.channels, 3 * heads * depth)
    apart = s.op("Reshape", [mixed, s.ints(0, places, 3, heads, depth)])
    turned = s.op("Transpose", [apart], perm=[2, 0, 3, 1, 4])
    index = [s.constant("index", np.array(i, np.int64)) for i in range(3)]
    query, key, value = (s.op("Gather", [turned, i], axis=0) for i in index)
    products = s.op("MatMul", [query, s.op("Transpose", [key], perm=[0, 1, 3, 2])])
    scale = s.constant("scale", np.array(depth**-0.5, np.float32))
    weights = s.op("Softmax", [s.op("Mul", [products, scale])], axis=3)
    joined = s.op("Transpose", [s.op("MatMul", [weights, value])], perm=[0, 2, 1, 3])
    flat = s.op("Reshape", [joined, s.ints(0, places, heads * depth)])
    back = s.op("Transpose", [s.linear(flat, heads * depth, x.channels)], perm=[0, 2, 1])
    return s.add(x, s._like(x, s.op("Reshape", [back, s.ints(0, x.channels, *x.size)])))


def _convnext(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(x, x.channels, groups=x.channels, norm=False, act=False)
    last = s.op("Transpose", [y.name], perm=[0, 2, 3, 1])
    normed = s.layer_norm(last, x.channels)
    hidden = s.linear(normed, x.channels, 2 * width)
    half, root, one = (s.constant("number", np.array(number, np.float32)) for number in (0.5, 2**-0.5, 1.0))
    gelu = s.op("Mul", [s.op("Mul", [hidden, half]), s.op("Add", [s.op("Erf", [s.op("Mul", [hidden, root])]), one])])
    scaled = s.op("Mul", [s.linear(gelu, 2 * width, x.channels), s._vector("gamma", x.channels)])
    return s.add(x, s._like(x, s.op("Transpose", [scaled], perm=[0, 3, 1, 2])))


def _preactivated(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(s.act(s.norm(x)), width, norm=False, act=False)
    return s.add(x, s.conv(s.act(s.norm(y)), x.channels, norm=False, act=False))


def _nested(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(x, width)
    inner = s.add(y, s.conv(s.conv(y, max(2, width // 2)), width, act=False))
    side = s.conv(x, x.channels, kernel=1, act=False)
    return s.add(s.add(x, side), s.conv(inner, x.channels, act=False))


def _resized(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(x, width, stride=2)
    scales = s.constant("scales", np.array([1, 1, 2, 2], np.float32))
    roi = s.constant("roi", np.zeros(0, np.float32))
    name = s.op("Resize", [y.name, roi, scales], mode="nearest", coordinate_transformation_mode="asymmetric")
    up = Tensor(name, width, tuple(2 * edge for edge in y.size))
    if s.rng.random() < 0.5 and up.size == x.size:
        return s.concat(x, up)
    return up


def _transposed(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(x, width, stride=2)
    weight = s.rng.normal(0, 0.3, (width, x.channels, 2, 2)).astype(np.float32)
    inputs = [y.name, s.constant(f"deconv{len(s.nodes)}.weight", weight), s._vector("bias", x.channels)]
    name = s.op("ConvTranspose", inputs, kernel_shape=[2, 2], strides=[2, 2])
    up = Tensor(name, x.channels, tuple(2 * edge for edge in y.size))
    return s.act(s.add(x, up) if up.size == x.size else up)


def _responding(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(x, width)
    return s.conv(s._like(y, s.op("LRN", [y.name], size=3)), width)


def _instance_normed(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(x, max(4, width), norm=False, act=False)
    first, second = s.split(y)
    vectors = [s.constant("scale", s.rng.uniform(0.5, 1.5, first.channels).astype(np.float32))]
    vectors.append(s._vector("shift", first.channels))
    normed = s._like(first, s.op("InstanceNormalization", [first.name, *vectors]))
    return s.act(s.concat(normed, s.norm(second)))


def _group_normed(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    groups = 2
    y = s.conv(x, width + width % 2, norm=False, act=False)
    ones, zeros = (s.constant("vector", np.full(groups, number, np.float32)) for number in (1, 0))
    rows = s.op("InstanceNormalization", [s.op("Reshape", [y.name, s.ints(0, groups, -1)]), ones, zeros])
    back = s.op("Reshape", [rows, s.ints(0, y.channels, *y.size)])
    scale = s.constant("scale", s.rng.uniform(0.5, 1.5, (y.channels, 1, 1)).astype(np.float32))
    return s.act(s._like(y, s.op("Mul", [back, scale])))


def _shuffled_groups(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    groups = 2 + width % 2
    wide = s.conv(x, groups * (groups + 1), kernel=1)
    y = s.shuffle(s.conv(wide, wide.channels, kernel=1, groups=groups), groups)
    y = s.conv(y, wide.channels, groups=wide.channels, act=False)
    return s.add(wide, s.conv(y, wide.channels, kernel=1, groups=groups, act=False))


def _sliced(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(x, max(4, width))
    half = y.channels // 2
    parts = []
    for start, end in ((0, half), (half, y.channels)):
        name = s.op("Slice", [y.name, s.ints(start), s.ints(end), s.ints(1)])
        parts.append(Tensor(name, end - start, y.size))
    return s.concat(parts[1], s.conv(parts[0], half))


def _hard_gated(s: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = s.conv(x, width, stride=stride)
    gate = s.conv(s.global_pool(y, "GlobalAveragePool"), width, kernel=1, norm=False, act=False)
    return Tensor(s.op("Mul", [s.op("HardSigmoid", [gate.name], alpha=1 / 6), y.name]), width, y.size)


BLOCKS: dict[str, Block] = {
    "plain": _plain,
    "residual": _residual,
    "projection": _projection,
    "padded": _padded,
    "bottleneck": _bottleneck,
    "separable": _separable,
    "inverted": _inverted,
    "fire": _fire,
    "dense": _dense_block,
    "grouped": _grouped,
    "gated": _gated,
    "two_ways": _two_ways,
    "shuffled": _shuffled,
    "attention": _attention,
    "many_heads": _many_heads,
    "convnext": _convnext,
    "preactivated": _preactivated,
    "nested": _nested,
    "resized": _resized,
    "transposed": _transposed,
    "responding": _responding,
    "instance_normed": _instance_normed,
    "group_normed": _group_normed,
    "shuffled_groups": _shuffled_groups,
    "sliced": _sliced,
    "hard_gated": _hard_gated,
}
"""Every kind of block by name."""


def _pooled_head(s: GraphBuilder, x: Tensor, classes: int) -> Tensor:
    return s.dense(s.flatten(s.global_pool(x, "GlobalAveragePool")), classes)


def _mean_head(s: GraphBuilder, x: Tensor, classes: int) -> Tensor:
    return s.dense(s.global_pool(x, "ReduceMean", keepdims=False), classes)


def _flat_head(s: GraphBuilder, x: Tensor, classes: int) -> Tensor:
    hidden = s.act(Tensor(s.dense(s.flatten(s.pool(x)), 6).name, 6, ())) if s.activation != "PRelu" else s.flatten(x)
    return s.dense(hidden, classes)


def _conv_head(s: GraphBuilder, x: Tensor, classes: int) -> Tensor:
    return s.flatten(s.global_pool(s.conv(x, classes, kernel=1, norm=False, act=False), "GlobalAveragePool"))


HEADS = {"pooled": _pooled_head, "mean": _mean_head, "flat": _flat_head, "conv": _conv_head}
"""Every kind of classifier head by name."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a random network; `blocks` are (kind, stride, width)."""

    opset: int
    seed: int
    batch_norm: bool
    activation: str
    channels: int
    size: int
    stem: int
    blocks: tuple[tuple[str, int, int], ...]
    head: str
    classes: int
    free_batch: bool
    batch: int


def build_cnn(recipe: Recipe) -> onnx.ModelProto:
    """Make the network of a recipe; a stride is left out where the image has become too small for it."""
    builder = GraphBuilder(recipe.opset, np.random.default_rng(recipe.seed), recipe.batch_norm, recipe.activation)
    x = builder.conv(Tensor("input", recipe.channels, (recipe.size, recipe.size)), recipe.stem)
    for kind, stride, width in recipe.blocks:
        x = BLOCKS[kind](builder, x, width, stride if min(x.size) >= 4 else 1)
    output = HEADS[recipe.head](builder, x, recipe.classes)
    return builder.to_proto(recipe.channels, recipe.size, output, free_batch=recipe.free_batch, batch=recipe.batch)


@st.composite
def cnn_protos(
    draw: st.DrawFn,
    blocks: Sequence[str] = tuple(BLOCKS),
    heads: Sequence[str] = tuple(HEADS),
    activations: Sequence[str] = ("Relu", "Clip", "LeakyRelu", "Tanh", "PRelu", "Swish", "HardSwish"),
    batch_norm: bool | None = None,
    free_batch: bool | None = None,
    max_blocks: int = 4,
) -> onnx.ModelProto:
    """A random network as ModelProto; None leaves a choice to hypothesis.

    Every activation offered maps 0 to 0, so that a channel with zero weights and shifts stays zero.
    """
    opset = draw(st.integers(11, NEWEST_OPSET), label="opset")
    known = [name for name in activations if name != "HardSwish" or opset >= 14]
    block = st.tuples(st.sampled_from(list(blocks)), st.sampled_from([1, 2]), st.integers(2, 8))
    recipe = Recipe(
        opset=opset,
        seed=draw(st.integers(0, 2**16), label="seed"),
        batch_norm=draw(st.booleans(), label="batch_norm") if batch_norm is None else batch_norm,
        activation=draw(st.sampled_from(known), label="activation"),
        channels=draw(st.sampled_from([1, 3]), label="channels"),
        size=draw(st.integers(8, 12), label="size"),
        stem=draw(st.integers(3, 6), label="stem"),
        blocks=tuple(draw(st.lists(block, min_size=1, max_size=max_blocks), label="blocks")),
        head=draw(st.sampled_from(list(heads)), label="head"),
        classes=draw(st.integers(2, 5), label="classes"),
        free_batch=draw(st.booleans(), label="free_batch") if free_batch is None else free_batch,
        batch=draw(st.integers(1, 2), label="batch"),
    )
    note(f"build_cnn({recipe})")
    return build_cnn(recipe)


def cnn_models(
    blocks: Sequence[str] = tuple(BLOCKS),
    heads: Sequence[str] = tuple(HEADS),
    batch_norm: bool | None = None,
    free_batch: bool | None = None,
    max_blocks: int = 4,
) -> st.SearchStrategy[ir.Model]:
    """A random network as `onnx_ir.Model`; arguments as for `cnn_protos`."""
    protos = cnn_protos(blocks, heads, batch_norm=batch_norm, free_batch=free_batch, max_blocks=max_blocks)
    return protos.map(ir.from_proto)
