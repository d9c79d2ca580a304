"""Residual joins whose branch has no layers left: the skip is passed on once, never added to itself."""

from collections.abc import Iterator

import onnx_ir as ir

from n2n_edge.graph.op import op_of

__all__ = ["Inputs", "collapse_joins", "inputs_of_joins"]

Inputs = tuple[ir.Value | None, ...]

_Term = tuple[ir.Node, int]
"""One operand of a sum: the node that adds it, and at which input."""


def inputs_of_joins(model: ir.Model) -> dict[ir.Node, Inputs]:
    """Return what every node that joins branches reads, for `collapse_joins` to compare with."""
    return {node: tuple(node.inputs) for node in model.graph if op_of(node).join not in ("", "concat")}


def collapse_joins(model: ir.Model, before: dict[ir.Node, Inputs]) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Take out, in place, the operands of joins that have become others of theirs since `before` was noted.

    A sum of sums (Add in Add, Sum) counts as one. What was joined with itself in the teacher already stays so. Yields
    every join that has a single operand left, with that operand: the caller lets others read it and removes the join.
    """
    changed = True
    while changed:
        changed = False
        for node in [node for node in model.graph if node in before]:
            while node.graph is not None and (term := _repeated(node, before)) is not None:
                changed = True
                yield from _without(*term, before)


def _adds(node: ir.Node) -> bool:
    return op_of(node).join == "sum"


def _is_part(node: ir.Node) -> bool:
    """Tell whether a sum is nothing but an operand of another sum."""
    uses = list(node.outputs[0].uses())
    return not node.outputs[0].is_graph_output() and len(uses) == 1 and _adds(uses[0].node)


def _terms(node: ir.Node) -> Iterator[_Term]:
    for index, value in enumerate(node.inputs):
        producer = value.producer() if value is not None else None
        if producer is not None and _adds(producer) and _is_part(producer):
            yield from _terms(producer)
        else:
            yield node, index


def _repeated(root: ir.Node, before: dict[ir.Node, Inputs]) -> _Term | None:
    """Return an operand that is another one now and wasn't before; None too where `root` is but a part of a sum."""
    if _adds(root) and _is_part(root):
        return None
    terms = list(_terms(root)) if _adds(root) else [(root, index) for index in range(len(root.inputs))]
    operands: dict[ir.Value, list[tuple[ir.Value | None, _Term]]] = {}
    for node, index in terms:
        value = node.inputs[index]
        if value is not None:
            operands.setdefault(value, []).append((before[node][index], (node, index)))
    for value, places in operands.items():
        originals = [original for original, _ in places]
        kept = value if value in originals else originals[0]
        repeated = [term for original, term in places if original is not kept]
        if repeated:
            return repeated[-1]
    return None


def _without(node: ir.Node, index: int, before: dict[ir.Node, Inputs]) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Take one operand out of its join."""
    rest = [value for position, value in enumerate(node.inputs) if position != index]
    before[node] = before[node][:index] + before[node][index + 1 :]
    if len(rest) == 1:
        (last,) = rest
        assert last is not None
        yield node, last
        return
    for position, value in enumerate(rest):
        node.replace_input_with(position, value)
    node.resize_inputs(len(rest))
