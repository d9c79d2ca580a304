"""Values that a student learns to give: a model's outputs, or what stands in front of those that teach nothing.

Behind the last trained layer a model may select (TopK, NonMaxSuppression), count (ArgMax) or calculate what has no
gradient here. Such a tail ships as it is; what is distilled and compared is what goes into it.
"""

from collections.abc import Iterator

import onnx_ir as ir

from n2n_edge.graph.op import op_of
from n2n_edge.graph.operands import is_fixed
from n2n_edge.graph.pairs import behind_pairs
from n2n_edge.graph.shapes import is_constant
from n2n_edge.graph.subgraphs import read_by

__all__ = ["changed_behind", "learned_outputs", "with_learned_outputs"]


def learned_outputs(model: ir.Model) -> tuple[ir.Value, ...]:
    """Return the values that are distilled and compared, in the order of the outputs that they stand for.

    An output stays itself if it is a float, gradients come through it from the trained layers, and nothing between
    these and it selects: where student and teacher select differently, the same place holds different things. One that
    no trained layer has a part in, such as a detector's anchors, is the same whatever is learned, and isn't compared.
    """
    graph = model.graph
    tail = _Tail(graph)
    found: dict[ir.Value, None] = {}
    for output in graph.outputs:
        if output in tail.behind:
            found.update(dict.fromkeys([output] if tail.teaches(output) else tail.in_front_of(output)))
    return tuple(found) or tuple(graph.outputs)


def with_learned_outputs(model: ir.Model) -> ir.Model:
    """Return `model` with `learned_outputs` as its outputs: a copy, or itself where they are the same."""
    names = [str(value.name) for value in learned_outputs(model)]
    if names == [str(value.name) for value in model.graph.outputs]:
        return model
    clone = model.clone()
    values = {str(value.name): value for node in clone.graph for value in node.outputs}
    clone.graph.outputs[:] = [values[name] for name in names]
    for value in clone.graph.outputs:
        value.dtype = value.dtype or ir.DataType.FLOAT  # which ONNX Runtime asks of outputs
    return clone


def changed_behind(teacher: ir.Model, student: ir.Model) -> str:
    """Return the first value behind the learned ones that a student calculates otherwise than its teacher.

    Empty where all are: the same operators, attributes and constants, which ship as the teacher has them.
    """
    theirs, own = _behind_learned(teacher), _behind_learned(student)
    for name in [*theirs, *own]:
        if theirs.get(name) != own.get(name):
            return name
    return ""


def nodes_behind_learned(model: ir.Model) -> frozenset[str]:
    """Return the names of the nodes that ship as the teacher has them, behind what is learned."""
    front = _in_front(model.graph, set(learned_outputs(model)))
    return frozenset(str(node.name) for node in model.graph if node not in front)


_Described = tuple[str, str, dict[str, object], list[object]]


def _behind_learned(model: ir.Model) -> dict[str, _Described]:
    """Return what gives each value behind the learned ones: operator, domain, attributes, and what it reads.

    Of values that are learned, or stand in front of those, the name doesn't count: layers that go change it.
    """
    learned = set(learned_outputs(model))
    front = _in_front(model.graph, learned)
    nodes = [node for node in model.graph if node not in front]
    behind = {value for node in nodes for value in node.outputs}

    def described(value: ir.Value | None) -> object:
        if value is None:
            return None
        if value.const_value is not None:
            array = value.const_value.numpy()
            return str(array.dtype), array.shape, array.tobytes()
        return str(value.name) if value in behind else ""

    return {
        str(node.outputs[0].name): (
            node.op_type,
            node.domain,
            {name: _content(attribute) for name, attribute in node.attributes.items()},
            [described(value) for value in node.inputs],
        )
        for node in nodes
    }


def _content(attribute: ir.Attr) -> object:
    proto = ir.serde.serialize_attribute(attribute)
    return proto.SerializeToString(deterministic=True)


def _in_front(graph: ir.Graph, values: set[ir.Value]) -> set[ir.Node]:
    """Return the nodes that `values` follow from."""
    wanted, found = set(values), set()
    for node in reversed(list(graph)):
        if any(value in wanted for value in node.outputs):
            found.add(node)
            wanted.update(read_by(node))
    return found


def passes_gradients(node: ir.Node) -> bool:
    """Tell whether gradients pass through a node."""
    if op_of(node).form == "cast":
        kind = node.attributes.get_int("to", 1)
        return ir.DataType(kind).is_floating_point() if kind is not None else True
    return op_of(node).passes_gradients


def _selects(node: ir.Node) -> bool:
    """Tell whether what a node gives decides which values are taken, so that rounding may take others.

    Two values that are compared do (a score with the largest around it), and so does a mask made of a comparison; a
    comparison with a constant by which Where chooses is a function given in pieces, and one with itself finds NaN.
    """
    op = op_of(node)
    if not op.compares:
        return op.selects
    one, other = node.inputs
    if one is other:
        return False
    computed = all(value is not None and not is_constant(value) and not is_fixed(value) for value in node.inputs)
    return computed or any(use.node.op_type != "Where" for use in node.outputs[0].uses())


class _Tail:
    """What is behind the last trained layers of a graph, value by value."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.passing: set[ir.Value] = set()
        self.selected: set[ir.Value] = set()
        self.behind: set[ir.Value] = set()
        body = self._body()
        for node in graph:
            inputs = read_by(node)
            if node in body:
                self.passing.update(node.outputs)
                self.behind.update(node.outputs)
                continue
            if any(value in self.behind for value in inputs):
                self.behind.update(node.outputs)
                if _selects(node) or any(value in self.selected for value in inputs):
                    self.selected.update(node.outputs)
                if passes_gradients(node) and any(value in self.passing for value in inputs):
                    self.passing.update(node.outputs)

    def _body(self) -> set[ir.Node]:
        """Return the nodes that a trained layer is, or stands behind."""
        body: set[ir.Node] = set()
        wanted: set[ir.Value] = set()
        for node in reversed(list(self.graph)):
            if any(value in wanted for value in node.outputs) or _is_trained(node):
                body.add(node)
                wanted.update(read_by(node))
        return body

    def teaches(self, value: ir.Value) -> bool:
        """Tell whether a value behind trained layers is worth comparing, and can be learned."""
        if value.dtype is not None and not value.dtype.is_floating_point():
            return False
        return value in self.passing and value not in self.selected

    def in_front_of(self, output: ir.Value) -> Iterator[ir.Value]:
        """Yield the nearest values before `output` that are learned."""
        seen: set[ir.Value] = set()
        waiting = [output]
        while waiting:
            producer = waiting.pop().producer()
            for value in () if producer is None else read_by(producer):
                if value in seen or value not in self.behind:
                    continue
                seen.add(value)
                if self.teaches(value):
                    yield value
                else:
                    waiting.append(value)


def _is_trained(node: ir.Node) -> bool:
    inputs = node.inputs
    return any(
        index < len(inputs) and (value := inputs[index]) is not None and is_fixed(behind_pairs(value))
        for index in op_of(node).trained
    )
