"""Removal of layers: what read a layer's output reads its input instead, re-fitted where the width differs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from n2n_edge.graph.layers import Layer
from n2n_edge.graph.load import drop_unused_initializers
from n2n_edge.graph.merge import Inputs, collapse_joins, inputs_of_joins
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

    A removed layer becomes the identity. Where all layers of a residual branch are gone, operands of the op that joins
    it (Add, Sum, Mul, ...) are the same value: it passes the skip on once instead of doubling it, and a Relu behind it
    that would only repeat the one before goes, too. Where the width changes, the weights of every reader keep the rows
    of the channels that correspond and get zeros elsewhere (N2N, section 3.1).

    Raises:
        RemovalConflictError: the removals leave an op with inputs of different widths.
    """
    gone = set(removed)
    model = model.clone()
    nodes = {str(node.name): node for node in model.graph}
    joins = inputs_of_joins(model)
    repeated = {node.name for node in model.graph if _rectifies_again(node)}
    readers: list[_Reader] = []
    for layer in layers:
        if layer.name not in gone:
            continue
        chain = [nodes[name] for name in layer.nodes]
        source, axis = layer_input(next(node for node in chain if node.op_type != "Pad"))
        if chain[0].op_type == "Pad" and chain[0].inputs[0] is not None:
            source = chain[0].inputs[0]
        output = chain[-1].outputs[0]
        if axis == 1:  # widths can only change along axis 1
            readers += [_Reader(use.node, use.idx, layer.out_channels, layer.name) for use in output.uses()]
        ir.convenience.replace_all_uses_with(output, source)
        model.graph.remove(chain, safe=True)
    readers += _collapse_empty_branches(model, joins, readers)
    position = {node: index for index, node in enumerate(model.graph)}
    for reader in sorted((reader for reader in readers if reader.node in position), key=lambda r: position[r.node]):
        _refit_where_needed(model, reader)
    _drop_repeated_rectifiers(model, repeated)
    _drop_unread_nodes(model)
    drop_unused_initializers(model)
    return model


@dataclass(frozen=True)
class _Reader:
    """Input `index` of `node`, which used to take `width` channels and reads something else since `layer` is gone."""

    node: ir.Node
    index: int
    width: int
    layer: str


def _collapse_empty_branches(
    model: ir.Model, joins: dict[ir.Node, Inputs], readers: Sequence[_Reader]
) -> list[_Reader]:
    """Let joins whose operands have become one value pass it on, and return who reads that value now."""
    before = {reader.node: reader for reader in readers}
    passed_on = []
    for node, source in collapse_joins(model, joins):
        output = node.outputs[0]
        if output.is_graph_output():
            passing = ir.Node("", "Identity", [source], name=node.name)
            passing.outputs[0].type, passing.outputs[0].shape = output.type, output.shape
            model.graph.insert_before(node, passing)
            ir.convenience.replace_all_uses_with(output, passing.outputs[0], replace_graph_outputs=True)
            passing.outputs[0].name = output.name
        else:
            if node in before:
                new = [replace(before[node], node=use.node, index=use.idx) for use in output.uses()]
                before |= {reader.node: reader for reader in new}
                passed_on += new
            ir.convenience.replace_all_uses_with(output, source)
        model.graph.remove(node, safe=True)
    return passed_on


def _rectifies_again(node: ir.Node) -> bool:
    before = node.inputs[0].producer() if node.op_type == "Relu" and node.inputs[0] is not None else None
    return before is not None and before.op_type == "Relu"


def _drop_repeated_rectifiers(model: ir.Model, repeated: set[str | None]) -> None:
    """Take out a Relu of what is a Relu already: where a whole branch is gone the one behind its Add does nothing.

    Those in `repeated` did nothing in the teacher already.
    """
    for node in list(model.graph):
        output = node.outputs[0]
        if not _rectifies_again(node) or node.name in repeated or output.is_graph_output():
            continue
        if (source := node.inputs[0]) is not None:
            ir.convenience.replace_all_uses_with(output, source)
            model.graph.remove(node, safe=True)


def _drop_unread_nodes(model: ir.Model) -> None:
    """Take out what only removed layers read, such as a weight in the form in which one of them read it."""
    for node in reversed(list(model.graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            model.graph.remove(node, safe=True)


def _refit_where_needed(model: ir.Model, reader: _Reader) -> None:
    """Re-fit a reader, unless it reads a value of the same width."""
    value = reader.node.inputs[reader.index] if reader.index < len(reader.node.inputs) else None
    if value is None or value.shape is None:
        return
    width = value.shape[1]
    if not isinstance(width, int) or width == reader.width:
        return
    blocker = refit_reader(model, reader.node, reader.index, reader.width, width)
    if blocker:
        raise RemovalConflictError(
            f"layer {reader.layer!r} can't be removed together with others: {blocker}", reader.layer
        )
