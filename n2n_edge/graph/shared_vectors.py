"""Vectors that were stored once since they are equal: exporters and optimisers keep one of several biases of nought."""

import onnx_ir as ir

__all__ = ["separate_vectors"]


def separate_vectors(model: ir.Model) -> None:
    """Give layers and norms that share a vector, and nothing else, copies of their own.

    Two BatchNorms without scales may read the same ones: nothing else says that they have the same width, or are
    trained together. What has all of its parameters in common with another, one layer used twice, keeps them.
    """
    for vector in list(model.graph.initializers.values()):
        if not _is_vector(vector) or vector.is_graph_output():
            continue
        readers: dict[frozenset[str], list[tuple[ir.Node, int]]] = {}
        for node, place in vector.uses():
            readers.setdefault(_parameters_beside(node, vector), []).append((node, place))
        for number, places in enumerate(list(readers.values())[1:], start=1):
            copy = _copied(model, vector, number)
            for node, place in places:
                node.replace_input_with(place, copy)


def _is_vector(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or not tensor.dtype.is_floating_point():
        return False
    sizes = [size for size in tensor.shape.numpy() if size != 1]
    return len(sizes) == 1


def _parameters_beside(node: ir.Node, vector: ir.Value) -> frozenset[str]:
    """Return the names of a node's other initializers, such as its weight and its running mean."""
    others = (value for value in node.inputs if value is not None and value is not vector)
    return frozenset(str(value.name) for value in others if value.is_initializer())


def _copied(model: ir.Model, vector: ir.Value, number: int) -> ir.Value:
    """Return a copy of an initializer under a name of its own."""
    names = model.graph.initializers
    name = f"{vector.name}.{number}"
    while name in names:
        name += "_"
    copy = ir.Value(name=name, shape=vector.shape, type=vector.type, const_value=vector.const_value)
    model.graph.register_initializer(copy)
    return copy
