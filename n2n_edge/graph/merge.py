"""Residual joins whose branch has no layers left: the skip is passed on once, never added to itself."""

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["Inputs", "collapse_joins", "inputs_of_joins"]

Inputs = tuple[ir.Value | None, ...]

_SUMS = frozenset({"Add", "Sum"})
_JOINS = _SUMS | {"Sub", "Mul", "Div", "Max", "Min", "Mean"}

_Term = tuple[ir.Node, int]
"""One operand of a sum: the node that adds it, and at which input."""


def inputs_of_joins(model: ir.Model) -> dict[ir.Node, Inputs]:
    """Return what every node that joins branches reads, for `collapse_joins` to compare with."""
    return {node: tuple(node.inputs) for node in model.graph if node.op_type in _JOINS}


def collapse_joins(model: ir.Model, before: dict[ir.Node, Inputs]) -> Iterator[tuple[ir.Node, ir.Value]]:
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


def _is_part(node: ir.Node) -> bool:
    """Tell whether a sum is nothing but an operand of another sum."""
    uses = list(node.outputs[0].uses())
    return not node.outputs[0].is_graph_output() and len(uses) == 1 and uses[0].node.op_type in _SUMS


def _terms(root: ir.Node) -> Iterator[_Term]:
    """Yield the operands of a sum of sums from left to right."""
    waiting = [(root, index) for index in reversed(range(len(root.inputs)))]
    while waiting:
        node, index = waiting.pop()
        value = node.inputs[index]
        producer = value.producer() if value is not None else None
        if producer is not None and producer.op_type in _SUMS and _is_part(producer):
            waiting += [(producer, inner) for inner in reversed(range(len(producer.inputs)))]
        else:
            yield node, index


def _repeated(root: ir.Node, before: dict[ir.Node, Inputs]) -> dict[ir.Node, list[int]]:
    """Return which operands are other ones now and weren't before; none where `root` is but a part of a sum."""
    if root.op_type in _SUMS and _is_part(root):
        return {}
    terms = list(_terms(root)) if root.op_type in _SUMS else [(root, index) for index in range(len(root.inputs))]
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


def _without(node: ir.Node, indices: list[int], before: dict[ir.Node, Inputs]) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Take operands out of their join, all but one where nothing else would be left."""
    gone = set(indices if len(indices) < len(node.inputs) else indices[1:])
    rest = [value for position, value in enumerate(node.inputs) if position not in gone]
    before[node] = tuple(value for position, value in enumerate(before[node]) if position not in gone)
    if len(rest) == 1:
        if node.op_type in _SUMS and _is_part(node):  # the sum around it has this operand from now on
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
