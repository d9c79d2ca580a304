"""A small builder of ONNX graphs, for networks that are only timed: their shapes are right, their weights say nothing.

Weights are zeros that share one number in memory, so that VGG-16 costs nothing to hold, or random. BatchNorms are
folded, as runtimes do when they load a model.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

__all__ = ["Net", "shape"]

Pads = Sequence[int]


class Net:
    """A graph under construction; every method adds operators and returns their output, whose shape is known.

    Weights are zeros, or small random numbers where a `seed` is given.

    >>> net = Net("tiny", 3, 32, 32)
    >>> x = net.conv(net.input, 16, 3, stride=2)
    >>> model = net.model(net.linear(net.global_pool(x), 10))
    """

    def __init__(self, name: str, channels: int, height: int, width: int, seed: int | None = None) -> None:
        self.name = name
        self._random = None if seed is None else np.random.default_rng(seed)
        self._nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []
        self.input = ir.Value(
            name="input", shape=ir.Shape((1, channels, height, width)), type=ir.TensorType(ir.DataType.FLOAT)
        )

    def model(self, *outputs: ir.Value) -> ir.Model:
        """Return the finished model."""
        graph = ir.Graph(
            [self.input], outputs, nodes=self._nodes, initializers=self._initializers, opset_imports={"": 17},
            name=self.name,
        )  # fmt: skip
        return ir.Model(graph, ir_version=8, producer_name="n2n-edge")

    def conv(
        self, x: ir.Value, out: int, kernel: int | tuple[int, int], stride: int | tuple[int, int] = 1,
        act: str | None = "relu", groups: int = 1, pads: Pads | None = None, dilation: int = 1, bias: bool = True,
    ) -> ir.Value:  # fmt: skip
        """Add a convolution and what follows it: "relu", "relu6", "leaky", "hswish", "swish", "sigmoid" or None.

        `pads` are top, left, bottom, right; as in "same" with a kernel of odd size unless given.
        """
        channels, height, width = shape(x)[1:]
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        down, along = (stride, stride) if isinstance(stride, int) else stride
        if pads is None:
            pads = [rows // 2 * dilation, columns // 2 * dilation] * 2
        top, left, bottom, right = pads
        high = (height + top + bottom - dilation * (rows - 1) - 1) // down + 1
        wide = (width + left + right - dilation * (columns - 1) - 1) // along + 1
        operands = [x, self._constant((out, channels // groups, rows, columns))]
        if bias:
            operands.append(self._constant((out,)))
        y = self._add("Conv", operands, (1, out, high, wide), {
            "kernel_shape": [rows, columns], "strides": [down, along], "pads": list(pads), "group": groups,
            "dilations": [dilation, dilation],
        })  # fmt: skip
        return self.activation(y, act)

    def depthwise(
        self, x: ir.Value, kernel: int, stride: int = 1, act: str | None = "relu", pads: Pads | None = None,
        dilation: int = 1,
    ) -> ir.Value:  # fmt: skip
        """Add a depthwise convolution."""
        channels = shape(x)[1]
        return self.conv(x, channels, kernel, stride, act, groups=channels, pads=pads, dilation=dilation)

    def deconv(
        self, x: ir.Value, out: int, kernel: int, stride: int, act: str | None = None, groups: int = 1
    ) -> ir.Value:
        """Add a transposed convolution that enlarges by exactly `stride`."""
        channels, height, width = shape(x)[1:]
        surplus = kernel - stride
        pads = [surplus // 2, surplus // 2, surplus - surplus // 2, surplus - surplus // 2]
        y = self._add(
            "ConvTranspose", [x, self._constant((channels, out // groups, kernel, kernel))],
            (1, out, height * stride, width * stride),
            {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "pads": pads, "group": groups},
        )  # fmt: skip
        return self.activation(y, act)

    def activation(self, x: ir.Value, act: str | None) -> ir.Value:
        """Add an activation, as the operators a runtime is given."""
        same = shape(x)
        match act:
            case None:
                return x
            case "relu":
                return self._add("Relu", [x], same)
            case "relu6":
                bounds = [self._initializer(ir.tensor(np.float32(bound))) for bound in (0.0, 6.0)]
                return self._add("Clip", [x, *bounds], same)
            case "leaky":
                return self._add("LeakyRelu", [x], same, {"alpha": 0.1})
            case "sigmoid":
                return self._add("Sigmoid", [x], same)
            case "hsigmoid":
                return self._add("HardSigmoid", [x], same, {"alpha": 1 / 6})
            case "hswish":
                return self._add("HardSwish", [x], same)
            case "swish":
                return self.mul(x, self._add("Sigmoid", [x], same))
            case "gelu":
                return self._add("Erf", [x], same)
        raise ValueError(f"no activation named {act!r}")

    def pool(
        self,
        x: ir.Value,
        kernel: int,
        stride: int,
        kind: str = "MaxPool",
        pads: Pads = (0, 0, 0, 0),
        *,
        ceil: bool = False,
    ) -> ir.Value:
        """Add a "MaxPool" or "AveragePool"."""
        channels, height, width = shape(x)[1:]
        top, left, bottom, right = pads
        extra = stride - 1 if ceil else 0
        high = (height + top + bottom - kernel + extra) // stride + 1
        wide = (width + left + right - kernel + extra) // stride + 1
        return self._add(kind, [x], (1, channels, high, wide), {
            "kernel_shape": [kernel, kernel], "strides": [stride, stride], "pads": list(pads), "ceil_mode": int(ceil),
        })  # fmt: skip

    def global_pool(self, x: ir.Value) -> ir.Value:
        """Add a global average pooling: (1, C, 1, 1)."""
        return self._add("GlobalAveragePool", [x], (1, shape(x)[1], 1, 1))

    def linear(self, x: ir.Value, out: int, act: str | None = None) -> ir.Value:
        """Add a fully connected layer, flattening before it where there is something to flatten."""
        if len(shape(x)) != 2:
            x = self._add("Flatten", [x], (1, prod(shape(x)[1:])), {"axis": 1})
        weights = [self._constant((shape(x)[1], out)), self._constant((out,))]
        return self.activation(self._add("Gemm", [x, *weights], (1, out)), act)

    def matmul(self, x: ir.Value, y: ir.Value | int) -> ir.Value:
        """Add a product of the last two axes: with another value, or with weights of so many columns."""
        other = self._constant((shape(x)[-1], y)) if isinstance(y, int) else y
        return self._add("MatMul", [x, other], (*shape(x)[:-1], y if isinstance(y, int) else shape(y)[-1]))

    def add(self, x: ir.Value, y: ir.Value, act: str | None = None) -> ir.Value:
        """Add the sum of two values."""
        return self.activation(self._add("Add", [x, y], _broadcast(x, y)), act)

    def mul(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """Add the product of two values, element by element."""
        return self._add("Mul", [x, y], _broadcast(x, y))

    def plus_constant(self, x: ir.Value) -> ir.Value:
        """Add a constant of one value per last axis."""
        return self._add("Add", [x, self._constant((shape(x)[-1],))], shape(x))

    def concat(self, *values: ir.Value, axis: int = 1) -> ir.Value:
        """Add a concatenation."""
        joined = list(shape(values[0]))
        joined[axis] = sum(shape(value)[axis] for value in values)
        return self._add("Concat", list(values), joined, {"axis": axis})

    def split(self, x: ir.Value, *sizes: int, axis: int = 1) -> tuple[ir.Value, ...]:
        """Add a split into pieces of these sizes."""
        shapes = []
        for size in sizes:
            piece = list(shape(x))
            piece[axis] = size
            shapes.append(piece)
        node = ir.node(
            "Split", [x, self._integers(sizes)], {"axis": axis}, outputs=[_value(f"v{len(self._nodes)}_{i}", each) for
            i, each in enumerate(shapes)] )  # fmt: skip
        self._nodes.append(node)
        return tuple(node.outputs)

    def shuffle(self, x: ir.Value, groups: int) -> ir.Value:
        """Add a channel shuffle."""
        channels, height, width = shape(x)[1:]
        apart = self.reshape(x, 1, groups, channels // groups, height, width)
        return self.reshape(self.transpose(apart, 0, 2, 1, 3, 4), 1, channels, height, width)

    def reshape(self, x: ir.Value, *sizes: int) -> ir.Value:
        """Add a reshape."""
        return self._add("Reshape", [x, self._integers(sizes)], sizes)

    def transpose(self, x: ir.Value, *order: int) -> ir.Value:
        """Add a transposition."""
        return self._add("Transpose", [x], [shape(x)[axis] for axis in order], {"perm": list(order)})

    def upsample(self, x: ir.Value, scale: int, mode: str = "nearest") -> ir.Value:
        """Add an enlargement of both spatial axes."""
        channels, height, width = shape(x)[1:]
        scales = self._initializer(ir.tensor(np.array([1, 1, scale, scale], np.float32)))
        return self._add("Resize", [x, None, scales], (1, channels, height * scale, width * scale), {"mode": mode})

    def detections(self, *values: ir.Value) -> ir.Value:
        """Add what decodes boxes and picks the best: an operator of ncnn's, with a hundred boxes of six figures."""
        output = _value(f"v{len(self._nodes)}", (1, 100, 6))
        self._nodes.append(ir.node("DetectionOutput", values, domain="ncnn", outputs=[output], name="detections"))
        return output

    def op(self, op_type: str, *operands: ir.Value, attributes: dict[str, object] | None = None) -> ir.Value:
        """Add any operator whose output has its first operand's shape: Softmax, LRN, LayerNormalization, ..."""
        return self._add(op_type, list(operands), shape(operands[0]), attributes)

    def weights(self, *sizes: int) -> ir.Value:
        """Return constant zeros, for operators added with `op`."""
        return self._constant(tuple(sizes))

    def _add(
        self, op_type: str, operands: Sequence[ir.Value | None], sizes: Sequence[int],
        attributes: dict[str, object] | None = None,
    ) -> ir.Value:  # fmt: skip
        output = _value(f"v{len(self._nodes)}", sizes)
        self._nodes.append(ir.node(op_type, operands, attributes or {}, outputs=[output]))  # type: ignore[arg-type]
        self._nodes[-1].name = f"{op_type}_{len(self._nodes)}"
        return output

    def _constant(self, sizes: Sequence[int]) -> ir.Value:
        if self._random is None:
            return self._initializer(ir.tensor(np.broadcast_to(np.zeros((), np.float32), tuple(sizes))))
        scale = max(1, prod(sizes[1:])) ** -0.5
        return self._initializer(ir.tensor((self._random.standard_normal(tuple(sizes)) * scale).astype(np.float32)))

    def _integers(self, sizes: Sequence[int]) -> ir.Value:
        return self._initializer(ir.tensor(np.array(sizes, np.int64)))

    def _initializer(self, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=f"w{len(self._initializers)}", shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )  # fmt: skip
        self._initializers.append(value)
        return value


def shape(value: ir.Value) -> tuple[int, ...]:
    """Return the shape of a value, which is always known."""
    assert value.shape is not None
    return tuple(int(size) for size in value.shape)  # type: ignore[arg-type]


def _value(name: str, sizes: Sequence[int]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(tuple(sizes)), type=ir.TensorType(ir.DataType.FLOAT))


def _broadcast(x: ir.Value, y: ir.Value) -> tuple[int, ...]:
    return tuple(int(size) for size in np.broadcast_shapes(shape(x), shape(y)))
