"""Operators that the package doesn't have: a convolution that wraps around and an activation, in a domain of their own.

What another package would hold: rows of the table of ops, and the builders of their torch functions.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir import tensor

from n2n_edge import Op, counted_op
from n2n_edge.graph.labels import Labels

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_edge.training.ops.registry import NodeView

DOMAIN = "own.ops"
Shapes = Sequence[tuple[int, ...] | None]


def wrapped_shapes(node: ir.Node, inputs: Shapes) -> list[tuple[int, ...]]:
    """The output of a convolution that wraps around is as large as its input."""
    source, weight = inputs[0], inputs[1]
    return [] if source is None or weight is None else [(source[0], weight[0], *source[2:])]


def same_shape(node: ir.Node, inputs: Shapes) -> list[tuple[int, ...]]:
    return [] if inputs[0] is None else [inputs[0]]


def snake_labels(node: ir.Node, labels: Labels) -> None:
    """Channels pass: it is calculated element by element."""
    labels.set(node.outputs[0], labels.of(node.inputs[0]))


CONVOLUTION = replace(
    counted_op("Conv"), name="WrappedConv", domain=DOMAIN, shapes=wrapped_shapes, torch=f"{__name__}:wrapped_conv"
)
ACTIVATION = Op(
    "Snake", DOMAIN, labels=snake_labels, activation=True, passes_width=lambda node, width: True, per_image=True,
    shapes=same_shape, fuses="activation", torch=f"{__name__}:snake",
)  # fmt: skip
ROWS = [CONVOLUTION, ACTIVATION]


def wrapped_conv(view: "NodeView") -> Callable[..., "Tensor"]:
    """Build the torch function of a convolution that wraps around."""
    from torch.nn import functional

    kernel = view.shape(1)
    assert kernel is not None
    rows, columns = kernel[2] // 2, kernel[3] // 2

    def run(x: "Tensor", weight: "Tensor", bias: "Tensor") -> "Tensor":
        return functional.conv2d(functional.pad(x, (columns, columns, rows, rows), mode="circular"), weight, bias)

    return run


def snake(view: "NodeView") -> Callable[..., "Tensor"]:
    """Build the torch function of ``x + sin(x)^2``."""
    return lambda x: x + x.sin() ** 2


def model() -> ir.Model:
    """Two own convolutions, each followed by an own activation, and a classifier; ``(N, 3, 8, 8)`` to ``(N, 4)``."""
    generator = np.random.default_rng(0)
    images = ir.Value(name="images", shape=ir.Shape(["N", 3, 8, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    weights = {
        "first.weight": (8, 3, 3, 3), "first.bias": (8,), "second.weight": (6, 8, 3, 3), "second.bias": (6,),
        "head.weight": (4, 6), "head.bias": (4,),
    }  # fmt: skip
    values = {
        name: ir.Value(name=name, const_value=tensor(generator.standard_normal(shape).astype(np.float32), name=name))
        for name, shape in weights.items()
    }
    nodes: list[ir.Node] = []

    def add(op_type: str, domain: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        nodes.append(ir.node(op_type, inputs, attributes, domain=domain, name=f"{op_type}_{len(nodes)}"))
        nodes[-1].outputs[0].name = f"value_{len(nodes)}"
        return nodes[-1].outputs[0]

    hidden = add("Snake", DOMAIN, add("WrappedConv", DOMAIN, images, values["first.weight"], values["first.bias"]))
    hidden = add("Snake", DOMAIN, add("WrappedConv", DOMAIN, hidden, values["second.weight"], values["second.bias"]))
    pooled = add("Flatten", "", add("GlobalAveragePool", "", hidden))
    scores = add("Gemm", "", pooled, values["head.weight"], values["head.bias"], transB=1)
    scores.name, scores.shape = "scores", ir.Shape(["N", 4])
    scores.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [images], [scores], nodes=nodes, initializers=list(values.values()), name="own",
        opset_imports={"": 17, DOMAIN: 1},
    )  # fmt: skip
    return ir.Model(graph, ir_version=8)
