"""Removal of layers: what read a layer's output reads its input instead, re-fitted where the width differs.

Of a residual join whose branch has no layers left the skip is passed on once, never added to itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from n2n_edge.graph.branches import Branch
from n2n_edge.graph.layers import Layer
from n2n_edge.graph.load import drop_unused_initializers
from n2n_edge.graph.op import op_of
from n2n_edge.graph.operands import layer_input
from n2n_edge.graph.refit import refit_reader

__all__ = ["RemovalConflictError", "remove_layers"]

_Inputs = tuple[ir.Value | None, ...]

_Term = tuple[ir.Node, int]
"""One operand of a sum: the node that adds it, and at which input."""


class RemovalConflictError(ValueError):
    """Layers that can each be removed, but not together; `layer` is the one whose return mends it."""

    def __init__(self, message: str, layer: str) -> None:
        super().__init__(message)
        self.layer = layer


def remove_layers(
    model: ir.Model, layers: Sequence[Layer], removed: Iterable[str], branches: Iterable[Branch] = ()
) -> ir.Model:
    """Return a copy of `model` (normalised) without the layers called `removed`.

    A removed layer becomes the identity. Where all layers of a residual branch are gone, operands of the op that joins
    it (Add, Sum, Mul, ...) are the same value: it passes the skip on once instead of doubling it, and a Relu behind it
    that would only repeat the one before goes, too. Where the width changes, the weights of every reader keep the rows
    of the channels that correspond and get zeros elsewhere (N2N, section 3.1). A branch of `branches` whose layers are
    all removed goes with what lies between them.

    Raises:
        RemovalConflictError: the removals leave an op with inputs of different widths.
    """
    gone = set(removed)
    model = model.clone()
    gone -= _drop_branches(model, [branch for branch in branches if gone.issuperset(branch.layers)])
    nodes = {str(node.name): node for node in model.graph}
    joins = _inputs_of_joins(model)
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


def _drop_branches(model: ir.Model, branches: Sequence[Branch]) -> set[str]:
    """Let what reads the sums of `branches`, in order, read their skips; return the layers that are gone with them."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    values |= {str(value.name): value for value in model.graph.inputs}
    for branch in reversed(branches):  # the skip of one may be the sum of the one before
        ir.convenience.replace_all_uses_with(values[branch.output], values[branch.skip])
    if branches:
        _drop_unread_nodes(model)
    return {name for branch in branches for name in branch.layers}


@dataclass(frozen=True)
class _Reader:
    """Input `index` of `node`, which used to take `width` channels and reads something else since `layer` is gone."""

    node: ir.Node
    index: int
    width: int
    layer: str


def _collapse_empty_branches(
    model: ir.Model, joins: dict[ir.Node, _Inputs], readers: Sequence[_Reader]
) -> list[_Reader]:
    """Let joins whose operands have become one value pass it on, and return who reads that value now."""
    before = {reader.node: reader for reader in readers}
    passed_on = []
    for node, source in _collapse_joins(model, joins):
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


def _inputs_of_joins(model: ir.Model) -> dict[ir.Node, _Inputs]:
    """Return what every node that joins branches reads, for `_collapse_joins` to compare with."""
    return {node: tuple(node.inputs) for node in model.graph if op_of(node).join not in ("", "concat")}


def _collapse_joins(model: ir.Model, before: dict[ir.Node, _Inputs]) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Take out, in place, the operands of joins that have become others of theirs since `before` was noted.

    A sum of sums (Add in Add, Sum) counts as one. What was joined with itself in the teacher already stays so. Yields
    every join that has a single operand left, with that operand: the caller lets others read it and removes the join.
    """
    changed = True
    while changed:
        changed = False
        for node in [node for node in model.graph if node in before]:
            while node.graph is not None and (repeated := _repeated(node, before)):
                changed = True
                for join, indices in repeated.items():
                    yield from _without(join, indices, before)


def _adds(node: ir.Node) -> bool:
    return op_of(node).join == "sum"


def _is_part(node: ir.Node) -> bool:
    """Tell whether a sum is nothing but an operand of another sum."""
    uses = list(node.outputs[0].uses())
    return not node.outputs[0].is_graph_output() and len(uses) == 1 and _adds(uses[0].node)


def _terms(root: ir.Node) -> Iterator[_Term]:
    """Yield the operands of a sum of sums from left to right."""
    waiting = [(root, index) for index in reversed(range(len(root.inputs)))]
    while waiting:
        node, index = waiting.pop()
        value = node.inputs[index]
        producer = value.producer() if value is not None else None
        if producer is not None and _adds(producer) and _is_part(producer):
            waiting += [(producer, inner) for inner in reversed(range(len(producer.inputs)))]
        else:
            yield node, index


def _repeated(root: ir.Node, before: dict[ir.Node, _Inputs]) -> dict[ir.Node, list[int]]:
    """Return which operands are other ones now and weren't before; none where `root` is but a part of a sum."""
    if _adds(root) and _is_part(root):
        return {}
    terms = list(_terms(root)) if _adds(root) else [(root, index) for index in range(len(root.inputs))]
    operands: dict[ir.Value, list[tuple[ir.Value | None, _Term]]] = {}
    for node, index in terms:
        value = node.inputs[index]
        if value is not None:
            operands.setdefault(value, []).append((before[node][index], (node, index)))
    repeated: dict[ir.Node, list[int]] = {}
    for value, places in operands.items():
        originals = [original for original, _ in places]
        kept = value if value in originals else originals[0]
        for original, (node, index) in places:
            if original is not kept:
                repeated.setdefault(node, []).append(index)
    return repeated


def _without(node: ir.Node, indices: list[int], before: dict[ir.Node, _Inputs]) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Take operands out of their join, all but one where nothing else would be left."""
    gone = set(indices if len(indices) < len(node.inputs) else indices[1:])
    rest = [value for position, value in enumerate(node.inputs) if position not in gone]
    before[node] = tuple(value for position, value in enumerate(before[node]) if position not in gone)
    if len(rest) == 1:
        if _adds(node) and _is_part(node):  # the sum around it has this operand from now on
            (use,) = node.outputs[0].uses()
            around = before[use.node]
            before[use.node] = (*around[: use.idx], *before[node], *around[use.idx + 1 :])
        (last,) = rest
        assert last is not None
        yield node, last
        return
    for position, value in enumerate(rest):
        node.replace_input_with(position, value)
    node.resize_inputs(len(rest))
