"""Give every value and weight axis of a normalised graph its labels (label propagation, DESIGN.md)."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from n2n_edge.graph import rules_elementwise as elementwise
from n2n_edge.graph import rules_moving as moving
from n2n_edge.graph import rules_weighted as weighted
from n2n_edge.graph.balance import tie_balanced
from n2n_edge.graph.fixed import pin_fixed
from n2n_edge.graph.labels import DimKey, LabelArray, Labels, compress
from n2n_edge.graph.operands import BROADCASTING_OPS, fixed_source, is_fixed, values_read
from n2n_edge.graph.shapes import shapes_of

__all__ = ["ELEMENTWISE_OPS", "KNOWN_OPS", "UNARY_OPS", "is_understood", "propagate"]

Rule = Callable[[ir.Node, Labels], None]

UNARY_OPS = frozenset({
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
})  # fmt: skip
ELEMENTWISE_OPS = BROADCASTING_OPS
_POOLING = ["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool"]
_REDUCTIONS = [
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd",
    "ReduceLogSumExp",
]  # fmt: skip

_RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY_OPS, elementwise.passing),
    **dict.fromkeys(ELEMENTWISE_OPS, elementwise.elementwise),
    **dict.fromkeys(_POOLING, elementwise.pooling),
    **dict.fromkeys(_REDUCTIONS, elementwise.reduction),
    **dict.fromkeys(["Softmax", "LogSoftmax", "Hardmax"], elementwise.softmax),
    **dict.fromkeys(["BatchNormalization", "InstanceNormalization"], weighted.batch_norm),
    **dict.fromkeys(
        ["LayerNormalization", "GroupNormalization", "LRN", "LpNormalization", "MeanVarianceNormalization"],
        weighted.layer_norm,
    ),
    "Conv": weighted.conv,
    "ConvTranspose": weighted.conv_transpose,
    "Gemm": weighted.gemm,
    "MatMul": weighted.matmul,
    "Reshape": moving.reshape,
    "Flatten": moving.reshape,
    "Transpose": moving.transpose,
    "Squeeze": moving.squeeze,
    "Unsqueeze": moving.unsqueeze,
    "Concat": moving.concat,
    "Split": moving.split,
    "Slice": moving.slice_,
    "Gather": moving.gather,
    "Pad": moving.pad,
    "Expand": moving.expand,
    "Tile": moving.tile,
    "Resize": moving.resize,
    "Shape": moving.shape,
    "Upsample": moving.resize,
    "DepthToSpace": moving.depth_to_space,
    "SpaceToDepth": moving.space_to_depth,
}

KNOWN_OPS = frozenset(_RULES)
"""Ops of the standard domain that labels can pass."""


_SLICES_WEIGHTS = ELEMENTWISE_OPS | {
    "Concat", "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization",
}  # fmt: skip
"""Ops whose rule says which channel each element of a constant belongs to."""


def is_understood(node: ir.Node) -> bool:
    """Tell whether `node` is of the known set; another op makes untouchable what it touches."""
    return node.domain in ("", "ai.onnx") and node.op_type in KNOWN_OPS


def propagate(model: ir.Model, seed: Mapping[DimKey, LabelArray] | None = None, size: int = 1) -> Labels:
    """Return the labels of `model` (normalised); `seed` and `size` continue an earlier analysis of its teacher."""
    labels = Labels(seed, size)
    labels.shapes = shapes_of(model)
    for value in model.graph.inputs:
        _label_input(value, labels)
    for node in model.graph:
        _pin_constants(node, labels)
        if any(not is_fixed(value) for value in values_read(node)):
            rule = _RULES[node.op_type] if is_understood(node) else elementwise.unknown
            rule(node, labels)
    for value in model.graph.outputs:
        labels.freeze(labels.of(value), f"graph output '{value.name}'")
    _settle(model, labels)
    return labels


def _pin_constants(node: ir.Node, labels: Labels) -> None:
    """Forbid slicing the constants that the rule of `node` says nothing about; of another form, its readers say it."""
    if (is_understood(node) and node.op_type in _SLICES_WEIGHTS) or fixed_source(node.outputs[0]) is not None:
        return
    for value in values_read(node):
        pin_fixed(value, f"{node.op_type} '{node.name}' reads a weight of theirs", labels)


def _label_input(value: ir.Value, labels: Labels) -> None:
    shape = labels.shape(value)
    if len(shape) < 2 or shape[1] < 2:
        return
    row = labels.fresh((f"input:{value.name}", 1), shape[1])
    labels.freeze(row, f"graph input '{value.name}'")
    labels.set(value, row.reshape((1, -1) + (1,) * (len(shape) - 2)))


def _settle(model: ir.Model, labels: Labels) -> None:
    """Tie until the labels of every value vary along one axis alone (rectangularity) and blocks stay equal; resolve."""
    suspects = [name for name, array in labels.values.items() if sum(size > 1 for size in array.shape) > 1]
    while sum(labels.make_rectangular(labels.values[name]) for name in suspects) or tie_balanced(labels):
        pass
    for name, array in labels.values.items():
        labels.values[name] = labels.find(np.array(array))
    for key, row in labels.dims.items():
        labels.dims[key] = labels.find(np.array(row))
    for name in suspects:
        labels.values[name] = compress(labels.values[name])
