"""Graphs within a graph: bodies of control flow, and one flat graph without settled branches and functions."""

import onnx_ir as ir
from onnx_ir.passes import common

__all__ = [
    "bodies_of", "flattened", "holds_graph", "initializers_of", "inline_settled_branches",
    "nodes_within", "read_by",
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


def read_by(node: ir.Node) -> list[ir.Value]:
    """Return the values that a node reads: its inputs, and what the bodies of control flow read of the graph around."""
    read = [value for value in node.inputs if value is not None]
    if not holds_graph(node):
        return read
    inner = nodes_within(node)
    bodies = [body for item in (node, *inner) for body in bodies_of(item)]
    own = {value for body in bodies for value in (*body.inputs, *body.initializers.values())}
    own.update(value for item in inner for value in item.outputs)
    used = [*(value for item in inner for value in item.inputs), *(value for body in bodies for value in body.outputs)]
    return [*read, *dict.fromkeys(value for value in used if value is not None and value not in own)]


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
