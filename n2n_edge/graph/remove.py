"""Take layers out of a graph: what read a layer's output reads its input instead, re-fitted where the width differs."""

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from n2n_edge.graph.layers import Layer
from n2n_edge.graph.load import drop_unused_initializers
from n2n_edge.graph.operands import layer_input
from n2n_edge.graph.refit import refit_reader

__all__ = ["RemovalConflictError", "remove_layers"]


class RemovalConflictError(ValueError):
    """Layers that can each be removed, but not together; `layer` is the one whose return mends it."""

    def __init__(self, message: str, layer: str) -> None:
        super().__init__(message)
        self.layer = layer


def remove_layers(model: ir.Model, layers: Sequence[Layer], removed: Iterable[str]) -> ir.Model:
    """Return a copy of `model` (normalised) without the layers called `removed`.

    A removed layer becomes the identity. Where all layers of a residual branch are gone, both operands of its Add are
    the same value: the Add passes the skip through instead of doubling it. Where the width changes, the weights of
    every reader keep the rows of the channels that correspond and get zeros elsewhere (N2N, section 3.1).

    Raises:
        RemovalConflictError: the removals leave an op with inputs of different widths.
    """
    gone = set(removed)
    model = model.clone()
    nodes = {str(node.name): node for node in model.graph}
    doubled = {node.name for node in model.graph if _adds_to_itself(node)}
    readers: list[tuple[ir.Node, int, Layer]] = []
    for layer in layers:
        if layer.name not in gone:
            continue
        chain = [nodes[name] for name in layer.nodes]
        source, axis = layer_input(chain[0])
        output = chain[-1].outputs[0]
        if axis == 1:  # widths can only change along axis 1
            readers += [(use.node, use.idx, layer) for use in output.uses()]
        ir.convenience.replace_all_uses_with(output, source)
        model.graph.remove(chain, safe=True)
    _collapse_empty_branches(model, doubled)
    for node, index, layer in readers:
        _refit_where_needed(model, node, index, layer)
    drop_unused_initializers(model)
    return model


def _adds_to_itself(node: ir.Node) -> bool:
    return node.op_type == "Add" and node.inputs[0] is node.inputs[1]


def _collapse_empty_branches(model: ir.Model, doubled: set[str | None]) -> None:
    """Let an Add whose operands have become one value pass it through; those in `doubled` were so in the teacher."""
    for node in list(model.graph):
        source = node.inputs[0] if _adds_to_itself(node) and node.name not in doubled else None
        if source is not None and not node.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(node.outputs[0], source)
            model.graph.remove(node, safe=True)


def _refit_where_needed(model: ir.Model, node: ir.Node, index: int, layer: Layer) -> None:
    """Re-fit a reader of what `layer` gave, unless it is gone itself or reads a value of the same width."""
    value = node.inputs[index] if node.graph is not None else None
    if value is None or value.shape is None:
        return
    width = value.shape[1]
    if not isinstance(width, int) or width == layer.out_channels:
        return
    blocker = refit_reader(model, node, index, layer.out_channels, width)
    if blocker:
        raise RemovalConflictError(f"layer {layer.name!r} can't be removed together with others: {blocker}", layer.name)
