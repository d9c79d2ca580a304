"""Label propagation: every value and weight axis of a normalised graph gets its labels (DESIGN.md)."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.balance import tie_balanced
from n2n_edge.graph.bind import bound_names
from n2n_edge.graph.fixed import pin_fixed
from n2n_edge.graph.labels import DimKey, LabelArray, Labels, compress
from n2n_edge.graph.op import op_of
from n2n_edge.graph.operands import fixed_source, is_fixed, values_read
from n2n_edge.graph.rules_elementwise import unknown
from n2n_edge.graph.shapes import shapes_of

__all__ = ["is_understood", "propagate"]


def is_understood(node: ir.Node) -> bool:
    """Tell whether labels can pass `node`; another op makes untouchable what it touches."""
    return op_of(node).labels is not None


def propagate(model: ir.Model, seed: Mapping[DimKey, LabelArray] | None = None, size: int = 1) -> Labels:
    """Return the labels of `model` (normalised); `seed` and `size` continue an earlier analysis of its teacher."""
    labels = Labels(seed, size)
    labels.shapes = shapes_of(model)
    for value in model.graph.inputs:
        _label_input(value, labels)
    for name in bound_names(model):
        pin_fixed(model.graph.initializers[name], f"graph input '{name}'", labels)
    for node in model.graph:
        _pin_constants(node, labels)
        if any(not is_fixed(value) for value in values_read(node)):
            rule = op_of(node).labels or unknown
            rule(node, labels)
    for value in model.graph.outputs:
        labels.freeze(labels.of(value), f"graph output '{value.name}'")
    _settle(model, labels)
    return labels


def _pin_constants(node: ir.Node, labels: Labels) -> None:
    """Forbid slicing the constants that the rule of `node` says nothing about; of another form, its readers say it."""
    if op_of(node).labels_constants or fixed_source(node.outputs[0]) is not None:
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
