"""Bodies of control flow: the graphs that nodes hold."""

import onnx_ir as ir

__all__ = ["bodies_of", "holds_graph", "initializers_of", "nodes_within"]


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
