"""Graphs within a graph: bodies of control flow, functions and their calls, and one flat graph without them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from n2n_edge.errors import InputError

__all__ = [
    "bodies_of", "check_function_calls", "flattened", "holds_graph", "initializers_of", "inline_settled_branches",
    "nodes_within",
]  # fmt: skip


def holds_graph(node: ir.Node) -> bool:
    """Tell whether `node` is control flow: its attributes hold graphs."""
    if not node.attributes:
        return False
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in graphs for attribute in node.attributes.values())


def nodes_within(node: ir.Node) -> tuple[ir.Node, ...]:
    """Return the nodes in the bodies of a control-flow op, those of nested ones included."""
    return tuple(found for body in bodies_of(node) for item in body for found in (item, *nodes_within(item)))


def bodies_of(node: ir.Node) -> list[ir.Graph]:
    """Return the graphs that a node holds."""
    bodies: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            bodies.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            bodies += attribute.as_graphs()
    return bodies


def initializers_of(model: ir.Model) -> list[ir.Value]:
    """Return the constants of the graph and of all bodies of control flow, each name once."""
    found = {str(value.name): value for value in model.graph.initializers.values()}
    for node in model.graph:
        if holds_graph(node):
            for graph in {inner.graph for inner in nodes_within(node)}:
                for value in graph.initializers.values() if isinstance(graph, ir.Graph) else ():
                    found.setdefault(str(value.name), value)
    return list(found.values())


def flattened(model: ir.Model) -> ir.Model:
    """Return a flat copy of `model`, or itself where there is nothing to flatten."""
    if not model.functions and not any(_is_settled(node) for node in model.graph):
        return model
    flat = model.clone()
    if flat.functions:
        common.InlinePass()(flat)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(flat)
    while inline_settled_branches(flat):
        pass
    return flat


def inline_settled_branches(model: ir.Model) -> bool:
    """Put the branch that is always taken in the place of an If whose condition is constant; tell whether any was."""
    settled = [node for node in model.graph if _is_settled(node)]
    for node in settled:
        condition = node.inputs[0]
        assert condition is not None
        assert condition.const_value is not None
        taken = "then_branch" if bool(condition.const_value.numpy().ravel()[0]) else "else_branch"
        body = node.attributes[taken].as_graph()
        given = list(body.outputs)
        body.outputs.clear()
        for name, value in list(body.initializers.items()):
            del body.initializers[name]
            model.graph.register_initializer(value)
        inner = list(body)
        body.remove(inner)
        model.graph.insert_before(node, inner)
        for output, value in zip(node.outputs, given, strict=True):
            ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    return bool(settled)


def _is_settled(node: ir.Node) -> bool:
    """Tell whether `node` is an If whose condition is constant."""
    if node.op_type != "If" or not holds_graph(node):
        return False
    return bool(node.inputs) and node.inputs[0] is not None and node.inputs[0].const_value is not None


_MOST_NODES = 100_000

_MOST_LEVELS = 200
"""How deeply functions may call each other: the ONNX checker and ONNX Runtime go into them level by level."""

_Operator = tuple[str, str]
"""Domain and type of an operator, or of a function."""

_GRAPH: _Operator = ("", "")


def check_function_calls(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that call themselves, or that call others so often that no graph could hold them.

    Raises:
        InputError: such a function.
    """
    if not proto.functions:
        return
    functions = {(item.domain, item.name): item for item in proto.functions}
    called = {key: Counter(_operators(item.node)) for key, item in functions.items()}
    called[_GRAPH] = Counter(_operators(proto.graph.node))
    sizes: dict[_Operator, int] = {}
    levels: dict[_Operator, int] = {}
    open_calls = {_GRAPH: None}
    while open_calls:  # a stack: the last one is what is being counted
        key = next(reversed(open_calls))
        missing = next((inner for inner in called[key] if inner in functions and inner not in sizes), None)
        if missing is not None:
            if missing in open_calls:
                raise InputError(f"{path}: function '{missing[1]}' calls itself; export the model without functions")
            open_calls[missing] = None
            continue
        del open_calls[key]
        sizes[key] = sum(sizes.get(inner, 1) * times for inner, times in called[key].items())
        levels[key] = 1 + max((levels.get(inner, 0) for inner in called[key]), default=0)
        if sizes[key] > _MOST_NODES:
            raise InputError(
                f"{path}: its functions stand for over {_MOST_NODES:,} nodes; export the model without functions"
            )
    if levels[_GRAPH] > _MOST_LEVELS:
        raise InputError(
            f"{path}: its functions call each other over {_MOST_LEVELS} levels deep; export the model without functions"
        )


def _operators(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Operator]:
    """Yield what the nodes call, those in bodies of control flow included."""
    for node in nodes:
        yield (node.domain, node.op_type)
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _operators(body.node)
