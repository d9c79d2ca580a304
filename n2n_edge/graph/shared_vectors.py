"""Vectors that were stored once since they are equal: exporters and optimisers keep one of several biases of nought."""

import onnx_ir as ir

from n2n_edge.graph.load import add_initializer

__all__ = ["separate_vectors"]


def separate_vectors(model: ir.Model) -> None:
    """Give layers and norms that share a vector, and nothing else, copies of their own.

    Two BatchNorms without scales may read the same ones: nothing else says that they have the same width, or are
    trained together. What has all of its parameters in common with another, one layer used twice, keeps them.
    """
    for vector in list(model.graph.initializers.values()):
        tensor = vector.const_value
        if tensor is None or not _is_vector(tensor) or vector.is_graph_output():
            continue
        readers: dict[frozenset[str], list[tuple[ir.Node, int]]] = {}
        for node, place in vector.uses():
            readers.setdefault(_parameters_beside(node, vector), []).append((node, place))
        for places in list(readers.values())[1:]:
            copy = add_initializer(model, str(vector.name), tensor.numpy())
            for node, place in places:
                node.replace_input_with(place, copy)


def _is_vector(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype.is_floating_point() and sum(size != 1 for size in tensor.shape.numpy()) == 1


def _parameters_beside(node: ir.Node, vector: ir.Value) -> frozenset[str]:
    """Return the names of a node's other initializers, such as its weight and its running mean."""
    others = (value for value in node.inputs if value is not None and value is not vector)
    return frozenset(str(value.name) for value in others if value.is_initializer())
