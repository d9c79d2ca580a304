"""Memory of the values of a graph: constants, what follows from them, and activations with their lives.

Quantized graphs count by what a runtime makes of them: a value that is only written down as float between
DequantizeLinear and QuantizeLinear, what lies between being calculated in integers, has the bytes of the quantized one.
"""

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from n2n_edge.graph.bind import bound_names
from n2n_edge.graph.infer import is_random
from n2n_edge.graph.op import Op, counted_op
from n2n_edge.graph.precision import kind_of
from n2n_edge.graph.subgraphs import holds_graph, initializers_of, nodes_within
from n2n_edge.metrics.precisions import Precision

__all__ = ["Constants", "Lives"]

_SHARES_MEMORY = ("same", "reshaped")
_REARRANGES = ("reshaped", "permuted")


class Constants:
    """What of a graph follows from constants alone; inputs with a default that were bound are inputs.

    `settled` are the names of all such values, constants included; `read` maps those that the rest of the graph reads
    to the values whose memory they have; `weights` are the values that count as params. `kinds` as for `CostPlan`.
    """

    def __init__(self, model: ir.Model, kinds: Mapping[str, int]) -> None:
        self._kinds = kinds
        self.bound = bound_names(model)
        self._values = {
            str(value.name): value
            for value in initializers_of(model)
            if value.const_value is not None and value.name not in self.bound
        }
        self.settled: set[str] = set(self._values)
        self._nodes: dict[str, ir.Node] = {}
        self._memory: dict[str, str] = {}
        self._parts: dict[str, tuple[str, ...]] = {}
        settled_nodes: set[ir.Node] = set()
        for node in model.graph:
            names = [str(value.name) for value in node.inputs if value is not None]
            if (
                (names or node.op_type == "Constant")
                and self.settled.issuperset(names)
                and not holds_graph(node)
                and not is_random(node)
            ):
                settled_nodes.add(node)
                for value in node.outputs:
                    self._nodes[str(value.name)] = node
                    self._values[str(value.name)] = value
                    self.settled.add(str(value.name))
                for value in node.outputs:
                    self._note(node, str(value.name))
        self.read: dict[str, str] = {}
        self.weights: set[str] = set()
        for name, value in self._values.items():
            readers = [use for use in value.uses() if use.node not in settled_nodes]
            if not readers and not value.is_graph_output():
                continue
            self.read[name] = self._memory.get(name, name)
            for use in readers:
                self.weights.update(self.weights_of(use.node, use.idx))

    def weights_of(self, node: ir.Node, index: int) -> set[str]:
        """Return the values that count as params of input `index` of a node."""
        value = node.inputs[index]
        name = "" if value is None else str(value.name)
        if name not in self.read or not self._reads_weights(node, index, name):
            return set()
        return {stored for stored in self._stored(name) if not self._is_scalar(stored)}

    def _note(self, node: ir.Node, name: str) -> None:
        """Note whose bytes and whose elements a calculated value has; those of what `node` reads are noted already.

        Quantized weights aren't kept as floats; what is repeated counts once, what is filled in doesn't.
        """
        sources = [str(value.name) for value in node.inputs if value is not None]
        row = _row(node)
        if row.join == "concat" or node.op_type == "ConstantOfShape":
            self._parts[name] = tuple(sources) if row.join == "concat" else ()
        elif sources:
            inner = self._memory.get(sources[0], sources[0])
            same = row.form == "same" or node.op_type == "DequantizeLinear"
            if same or (row.form in _REARRANGES and inner != sources[0]):
                self._memory[name] = inner
                self._parts[name] = (inner,)
            elif row.form:
                self._parts[name] = (sources[0],)

    def _stored(self, name: str) -> set[str]:
        """Return the values whose elements count for a settled one."""
        stored, seen, waiting = set(), {name}, [name]
        while waiting:
            part = waiting.pop()
            if part not in self._parts:
                stored.add(part)
                continue
            new = [inner for inner in self._parts[part] if inner not in seen]
            seen.update(new)
            waiting += new
        return stored

    def _is_scalar(self, name: str) -> bool:
        tensor = self._values[name].const_value
        return tensor is not None and not tensor.shape

    def _reads_weights(self, node: ir.Node, index: int, name: str) -> bool:
        row = _row(node)
        if row.weights is not None:
            return index in row.weights
        kind = kind_of(self._values[name], self._kinds)
        return kind is not None and kind.is_floating_point() and index < row.settings_from


class Lives:
    """Which buffer each activation lives in, and from which step to which.

    `members` are the values of each buffer; it is alive from step `born` up to but not including `dead`. `stored_as`
    maps values to those whose element type they are kept in; `precisions` are those of the nodes.
    """

    def __init__(self, model: ir.Model, constants: Constants, precisions: Mapping[ir.Node, Precision]) -> None:
        graph = model.graph
        nodes = list(graph)
        self._dropped = {node for node in nodes if precisions[node] == "int8" and _is_float_between(node)}
        self.stored_as = _kept_as(nodes, self._dropped)
        root: dict[str, str] = {}
        last: dict[str, int] = {}
        first: dict[str, int] = {}
        for value in graph.inputs:
            name = str(value.name)
            if value.const_value is None or name in constants.bound:
                root[name], last[name], first[name] = name, 0, 0
        for step, node in enumerate(nodes):
            for source in _read(node):
                if str(source.name) in root:
                    last[root[str(source.name)]] = step
            given = node.inputs[0] if node.inputs else None
            shared = root.get(str(given.name)) if given is not None and self._is_view(node) else None
            for output in node.outputs:
                name = str(output.name)
                if not name or name in constants.settled:
                    continue
                root[name] = shared or name
                last[shared or name] = step
                if shared is None:
                    first[name] = step
                shared = None
        kept = {root[str(value.name)] for value in graph.outputs if str(value.name) in root}
        buffers: dict[str, list[str]] = {}
        for name, one in root.items():
            buffers.setdefault(one, []).append(name)
        self.steps = max(len(nodes), 1)
        self.members = list(buffers.values())
        self.born = [first.get(name, 0) for name in buffers]
        self.dead = [self.steps if name in kept else max(last[name] + 1, 1) for name in buffers]

    def _is_view(self, node: ir.Node) -> bool:
        source = node.inputs[0]
        if _row(node).form in _SHARES_MEMORY:
            return True
        if source is None:
            return False
        producer = source.producer()
        if node.op_type == "Cast":  # sums of products are turned into floats where they are
            return producer is not None and _row(producer).integer_sums
        if node.op_type == "DequantizeLinear":
            return node in self._dropped
        return node in self._dropped and str(source.name) in self.stored_as


def _row(node: ir.Node) -> Op:
    return counted_op(node.op_type, node.domain)


def _is_float_between(node: ir.Node) -> bool:
    """Tell whether a node that calculates in integers is one that goes: a conversion, or an activation before one."""
    row = _row(node)
    return row.kernel == "conversion" or not row.integer


def _kept_as(nodes: list[ir.Node], dropped: set[ir.Node]) -> dict[str, str]:
    """Return the values that a runtime keeps in the type of another, and that other."""
    found: dict[str, str] = {}
    for node in reversed(nodes):
        source = node.inputs[0] if node.inputs else None
        if node not in dropped or source is None or source.const_value is not None:
            continue
        given = str(node.outputs[0].name)
        if node.op_type == "DequantizeLinear":
            found[given] = str(source.name)
        elif len(source.uses()) == 1 and not source.is_graph_output() and not source.is_graph_input():
            found[str(source.name)] = found.get(given, given)
    return found


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, and what the bodies of control flow read."""
    yield from (value for value in node.inputs if value is not None)
    for inner in nodes_within(node):
        yield from (value for value in inner.inputs if value is not None)
