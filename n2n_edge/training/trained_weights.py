"""Which constants of a graph are weights that training may change, and which are statistics or plain constants."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from n2n_edge.graph.op import op_of
from n2n_edge.graph.pairs import quantizer_of

__all__ = ["Weights", "constant_tensor", "find_weights"]

_REARRANGES = ("same", "reshaped", "permuted")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class Weights:
    """Names of the constants that are `trained`, and of the BatchNorm `statistics` that follow the data.

    `shared_statistics`: those that more than one BatchNorm reads, which therefore must stay as they are. `scales`:
    those of the trained ones that are scales of QuantizeLinear and DequantizeLinear.
    """

    trained: frozenset[str]
    statistics: frozenset[str]
    shared_statistics: frozenset[str]
    scales: frozenset[str] = frozenset()


def constant_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """Give the tensor of an initializer or of a Constant node's output, None for any other value."""
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        return producer.attributes["value"].as_tensor()
    return None


def _constants(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.initializers.values()
    for node in graph:
        if node.op_type == "Constant":
            yield node.outputs[0]


def _before_any_weight(graph: ir.Graph) -> set[ir.Value]:
    """Find the values that no weight has touched: arithmetic among them is preprocessing, not a layer."""
    untouched = {value for value in graph.inputs if not value.is_initializer()}
    for node in graph:
        inputs = [value for value in node.inputs if value is not None and constant_tensor(value) is None]
        if inputs and not op_of(node).trained and all(value in untouched for value in inputs):
            untouched.update(node.outputs)
    return untouched


def _is_weight(value: ir.Value, tensor: ir.TensorProtocol, untouched: set[ir.Value]) -> bool:
    """Tell whether every use of a constant is as a weight, looking through ops that only rearrange it."""
    uses = value.uses()
    if not uses or value.is_graph_output():
        return False
    for node, index in uses:
        row = op_of(node)
        if index in row.trained:
            continue
        if row.arithmetic:
            # one value a channel is a bias or a scale; a lone number (the 6 of a hard swish) or a whole table
            # (the anchors of a detector) is part of the formula
            sizes = [int(size) for size in tensor.shape.numpy() if size != 1]
            others = [other for other in node.inputs if other is not None and other is not value]
            if len(sizes) == 1 and math.prod(sizes) > 1 and not all(other in untouched for other in others):
                continue
        rearranged = row.form in _REARRANGES or row.straight_through
        if rearranged and index == 0 and _is_weight(node.outputs[0], tensor, untouched):
            continue
        return False
    return True


def _is_scale(value: ir.Value, untouched: set[ir.Value]) -> bool:
    """Tell whether a constant is the scale of quantizers of weights or activations, and of what undoes these alone.

    The scale of integers that are constants stays: to learn, these would have to follow it.
    """
    quantizes = False
    for node, index in value.uses():
        if not op_of(node).straight_through or index != 1:
            return False
        quantizer = node if node.op_type == "QuantizeLinear" else quantizer_of(node)
        if quantizer is None or quantizer.inputs[1] is not value:
            return False
        source = quantizer.inputs[0]
        tensor = None if source is None else constant_tensor(source)
        if source is None or (tensor is not None and not _is_weight(source, tensor, untouched)):
            return False
        quantizes = True
    return quantizes and not value.is_graph_output()


def find_weights(graph: ir.Graph, given: Collection[str] = ()) -> Weights:
    """Sort the constants of a graph by what training does to them; those called `given` are left alone."""
    untouched = _before_any_weight(graph)
    trained, scales = set(), set()
    for value in _constants(graph):
        tensor = constant_tensor(value)
        floats = tensor is not None and tensor.dtype in _FLOATS
        if tensor is None or not floats or not value.name or value.name in given:
            continue
        if _is_scale(value, untouched):
            scales.add(value.name)
        elif _is_weight(value, tensor, untouched):
            trained.add(value.name)
    statistics, shared = set(), set()
    for node in graph:
        for index in op_of(node).statistics:
            statistic = node.inputs[index] if index < len(node.inputs) else None
            if statistic is None or statistic.name is None or constant_tensor(statistic) is None:
                continue
            statistics.add(statistic.name)
            if len(statistic.uses()) > 1:
                shared.add(statistic.name)
    return Weights(frozenset(trained | scales), frozenset(statistics), frozenset(shared), frozenset(scales))
