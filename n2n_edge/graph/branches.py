"""Residual branches whose layers can only go together: what is added to a skip, of the skip's own shape."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir

from n2n_edge.graph.layers import Layer
from n2n_edge.graph.propagate import is_understood
from n2n_edge.graph.shapes import is_constant, shapes_of

__all__ = ["Branch", "find_branches"]


_MOST_INSIDE = 500
"""Nodes of a branch at most: what is as long as that is no residual branch, and many such would take long to follow."""


@dataclass(frozen=True)
class Branch:
    """The `layers` of a residual branch, in execution order; without them the sum `output` is the value `skip`."""

    layers: tuple[str, ...]
    skip: str
    output: str


def find_branches(model: ir.Model, layers: Sequence[Layer]) -> tuple[Branch, ...]:
    """Return the residual branches of a normalised model of which a layer can't go alone, in execution order.

    Such are the inverted residuals of MobileNetV2 and bottlenecks, with gates inside them or not: the widths change
    within, and nothing but the sum reads what is inside.
    """
    place = {node: index for index, node in enumerate(model.graph)}
    shapes = shapes_of(model)
    of_node = {name: layer for layer in layers for name in layer.nodes}
    found = []
    for join in model.graph:
        if join.op_type not in ("Add", "Sum") or len(join.inputs) != 2 or join.outputs[0].is_graph_output():
            continue
        first, second = join.inputs
        for end, skip in ((first, second), (second, first)):
            if end is None or skip is None or is_constant(skip) or is_constant(end):
                continue
            inside = _between(skip, end, join, place)
            members = {of_node[name].name: of_node[name] for name in inside if name in of_node}
            whole = all(inside.issuperset(layer.nodes) for layer in members.values())
            same = shapes[str(skip.name)] == shapes[str(join.outputs[0].name)]
            if whole and same and any(layer.reason for layer in members.values()):
                names = tuple(layer.name for layer in layers if layer.name in members)
                found.append(Branch(names, str(skip.name), str(join.outputs[0].name)))
                break
    return tuple(found)


def _between(skip: ir.Value, end: ir.Value, join: ir.Node, place: Mapping[ir.Node, int]) -> set[str]:
    """Return the names of the nodes from `skip` to `end` where that is all they do: read it, and give what is joined.

    Empty where anything else is read, or where what they give is read elsewhere.
    """
    start = skip.producer()
    earliest = -1 if start is None else place.get(start, -1)
    inside: set[ir.Node] = set()
    waiting = [end]
    while waiting:
        value = waiting.pop()
        if value is skip or is_constant(value):
            continue
        node = value.producer()
        if node is None or place.get(node, -1) <= earliest or not is_understood(node) or len(inside) == _MOST_INSIDE:
            return set()
        if node not in inside:
            inside.add(node)
            waiting += [read for read in node.inputs if read is not None]
    readers = {*inside, join}
    return set() if any(_leaves(node, readers) for node in inside) else {str(node.name) for node in inside}


def _leaves(node: ir.Node, readers: Set[ir.Node]) -> bool:
    """Tell whether anything but `readers` reads what a node gives."""
    return any(
        value.is_graph_output() or any(use.node not in readers for use in value.uses()) for value in node.outputs
    )
