"""Costs of a model that follow from its graph alone: params, bytes, multiply-accumulates and the memory bound."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.load import size_of
from n2n_edge.graph.op import Macs, Op, counted_op
from n2n_edge.graph.precision import kind_of, precisions_of
from n2n_edge.graph.shape_run import analysing, analysing_unrun
from n2n_edge.graph.shapes import Shape, Types, inferred_types, types_of
from n2n_edge.graph.storage import Constants, Lives
from n2n_edge.graph.subgraphs import flattened, initializers_of
from n2n_edge.metrics.precisions import Precision

__all__ = [
    "Amounts", "CostPlan", "Costs", "Counted", "Figures", "NodeCost", "NodeSpec", "Totals", "costs", "counted",
    "inferred_costs", "node_costs", "total_costs",
]  # fmt: skip

Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """Costs that follow exactly from a graph, for the batch that it fixes, or else for one.

    `params` counts the elements of all weights that something reads, float or quantized, without the running statistics
    of BatchNorm, scales and zero points, and without settings such as the bounds of a Clip; `size_bytes` is the
    serialised file; `memory_bound_bytes` is the constants that are read, each by its type, plus the largest live set of
    activations in execution order. `integer_macs` are those of `macs` that are calculated in 8-bit integers.
    """

    params: int
    size_bytes: int
    macs: int
    memory_bound_bytes: int
    integer_macs: int = 0


@dataclass(frozen=True)
class NodeCost:
    """One node's share, for a batch of one; `inputs` and `outputs` name its activations."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int
    params: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int


@dataclass(frozen=True)
class Totals:
    """`Costs` of N candidates of one graph at once: `(N,)`. Of the file only the bytes of the constants are counted.

    Floats hold these integers exactly.
    """

    params: Figures
    macs: Figures
    integer_macs: Figures
    constant_bytes: Figures
    memory_bound_bytes: Figures


@dataclass(frozen=True)
class Amounts(Totals):
    """`Totals`, and the shares of nodes `(nodes, N)`.

    `node_reduction` are the multiply-accumulates behind one output element, `node_channels` the output channels of a
    convolution or Gemm; nought for other nodes.
    """

    node_macs: Figures
    node_reduction: Figures
    node_channels: Figures
    node_params: Figures
    node_weight_bytes: Figures
    node_input_bytes: Figures
    node_output_bytes: Figures


def costs(model: ir.Model, size_bytes: int | None = None) -> Costs:
    """Return the costs of `model`; shapes come from the model, or from inference (at worst a run) where it lacks them.

    `size_bytes` is the size of its file where that is known; by default that of the model as one ONNX file.

    Raises:
        InputError: ONNX Runtime can't run the model, or it holds what can't be counted.

    >>> n2n_edge.costs(n2n_edge.Teacher.load(example_teacher).model).params
    308210
    """
    with analysing(model):
        flat = flattened(model)
        return _totals(flat, types_of(flat), _bytes_of(model, size_bytes))


def inferred_costs(model: ir.Model, size_bytes: int | None = None) -> tuple[Costs, bool]:
    """Return the costs of `model` as far as inference tells them, and whether it tells all: nothing is run.

    `size_bytes` as for `costs`. Where inference doesn't tell all, MACs and memory bound are too low.

    Raises:
        InputError: the model holds what can't be counted.
    """
    with analysing_unrun(model):
        flat = flattened(model)
        types = inferred_types(flat)
        return _totals(flat, types, _bytes_of(model, size_bytes)), types.complete


def _bytes_of(model: ir.Model, size_bytes: int | None) -> int:
    return size_of(model) if size_bytes is None else size_bytes


def total_costs(amounts: Totals, size_bytes: int) -> Costs:
    """Return the costs of a model of one candidate's `amounts`, whose file has `size_bytes`."""
    return Costs(
        params=int(amounts.params[0]),
        size_bytes=size_bytes,
        macs=int(amounts.macs[0]),
        memory_bound_bytes=int(amounts.memory_bound_bytes[0]),
        integer_macs=int(amounts.integer_macs[0]),
    )


def _totals(flat: ir.Model, types: Types, size_bytes: int) -> Costs:
    plan = CostPlan(flat, types.kinds)
    return total_costs(plan.totals_at(*plan.sizes_of(types.shapes)), size_bytes)


@dataclass(frozen=True)
class Counted:
    """A model that was counted once, for whatever asks: without functions, its nodes in order, and their costs."""

    flat: ir.Model
    nodes: tuple["NodeSpec", ...]
    amounts: Amounts


def counted(model: ir.Model) -> Counted:
    """Return the nodes in execution order and what they cost, as one candidate (N = 1).

    Raises:
        InputError: ONNX Runtime can't run the model, or it holds what can't be counted.
    """
    with analysing(model):
        flat = flattened(model)
        types = types_of(flat)
        plan = CostPlan(flat, types.kinds)
        return Counted(flat, plan.nodes, plan.at(*plan.sizes_of(types.shapes)))


def node_costs(found: Counted) -> tuple[NodeCost, ...]:
    """Return one entry per node in execution order."""
    amounts = found.amounts
    return tuple(
        NodeCost(
            node.name, node.op_type, node.inputs, node.outputs,
            int(amounts.node_macs[i, 0]), int(amounts.node_params[i, 0]), int(amounts.node_weight_bytes[i, 0]),
            int(amounts.node_input_bytes[i, 0]), int(amounts.node_output_bytes[i, 0]),
        )
        for i, node in enumerate(found.nodes)
    )  # fmt: skip


class CostPlan:
    """What of a graph decides its costs once the sizes of its values are known.

    `values` are the names of all values, `axes` the (value, axis) pairs whose length is needed by itself, `nodes` the
    nodes in execution order. `kinds` are the element types of values where the graph itself doesn't note them.
    """

    def __init__(self, model: ir.Model, kinds: Mapping[str, int] = MappingProxyType({})) -> None:
        self._graph = tuple(model.graph)
        self._precisions = precisions_of(self._graph, kinds)
        self._constants = constants = Constants(model, kinds)
        lives = Lives(model, constants, self._precisions)
        initializers = initializers_of(model)
        everything = [*model.graph.inputs, *initializers]
        everything += [value for node in model.graph for value in node.outputs if value.name]
        self._index = {str(value.name): i for i, value in enumerate({str(v.name): v for v in everything}.values())}
        self.values = tuple(self._index)
        types = {str(value.name): kind_of(value, kinds) for value in everything}
        self._itemsize = np.zeros((len(self.values), 1))
        for name, position in self._index.items():
            self._itemsize[position] = _bytes_each(types[lives.stored_as.get(name, name)])
        self._weights = self._sum([constants.weights])
        self._stored = self._sum([{str(v.name) for v in initializers if v.const_value is not None}])
        self._in_memory = self._sum([set(constants.read.values())])
        self._lives = lives
        self._buffers = np.array([self._index[name] for names in lives.members for name in names], np.int64)
        self._begins = np.cumsum([0, *(len(names) for names in lives.members)])[:-1]
        macs = [(i, found) for i, node in enumerate(self._graph) if (found := _macs(node)) is not None]
        self._multiplying = [i for i, _ in macs]
        self._in_integers = np.array([self._precisions[node] == "int8" for node in self._graph], bool)
        self._outputs = [self._index[found.positions] for _, found in macs]
        self._kernels = [self._index[found.weight] if found.weight else -1 for _, found in macs]
        self.axes = tuple(found.axis for _, found in macs)

    @cached_property
    def nodes(self) -> tuple["NodeSpec", ...]:
        """The nodes in execution order."""
        settled = self._constants.settled
        return tuple(_spec(node, settled, self._precisions[node]) for node in self._graph)

    @cached_property
    def _shares(self) -> "tuple[_Sums, _Sums, _Sums, _Sums]":
        """Weights, constants, inputs and outputs of each node."""
        constants = self._constants
        reads = [[str(value.name) for value in node.inputs if value is not None] for node in self._graph]
        weights = [
            [name for index in range(len(node.inputs)) for name in constants.weights_of(node, index)]
            for node in self._graph
        ]
        return (
            self._sum(weights),
            self._sum([[constants.read[name] for name in names if name in constants.read] for names in reads]),
            self._sum([[name for name in names if name not in constants.settled] for names in reads]),
            self._sum([node.outputs for node in self.nodes]),
        )

    def _sum(self, rows: Sequence[Collection[str]]) -> "_Sums":
        return _Sums([[self._index[name] for name in names if name in self._index] for names in rows])

    def sizes_of(self, shapes: Mapping[str, Shape]) -> tuple[Figures, Figures]:
        """Return what `at` takes, for one candidate whose values have these shapes; unknown ones count nothing."""
        elements = [float(prod(shapes[name])) if name in shapes else 0.0 for name in self.values]
        lengths = [_length(shapes.get(name, ()), axis) for name, axis in self.axes]
        return np.array(elements)[:, None], np.array(lengths).reshape(-1, 1)

    def totals_at(self, elements: Figures, lengths: Figures) -> Totals:
        """Return the costs where `values` have so many elements `(values, N)` and `axes` are so long `(axes, N)`."""
        node_macs = self._spread(self._multiplied(elements, lengths)[0])
        return self._totals(elements, np.ceil(elements * self._itemsize), node_macs)

    def at(self, elements: Figures, lengths: Figures) -> Amounts:
        """Return what `totals_at` does, with the share of each node."""
        sizes = np.ceil(elements * self._itemsize)
        node_macs, node_reduction, node_channels = map(self._spread, self._multiplied(elements, lengths))
        weights, constants, inputs, outputs = self._shares
        return Amounts(
            **vars(self._totals(elements, sizes, node_macs)),
            node_macs=node_macs,
            node_reduction=node_reduction,
            node_channels=node_channels,
            node_params=weights.of(elements),
            node_weight_bytes=constants.of(sizes),
            node_input_bytes=inputs.of(sizes),
            node_output_bytes=outputs.of(sizes),
        )

    def _multiplied(self, elements: Figures, lengths: Figures) -> tuple[Figures, Figures, Figures]:
        """Return multiply-accumulates, those behind one output element, and output channels of what multiplies."""
        kernels = np.array(self._kernels, np.int64)
        convolves = (kernels >= 0)[:, None]
        outputs = elements[self._outputs]
        per_output = np.where(convolves, elements[kernels] / np.maximum(lengths, 1.0), lengths)
        return np.round(outputs * per_output), per_output, np.where(convolves, lengths, outputs)

    def _spread(self, figures: Figures) -> Figures:
        """Return figures of what multiplies as those of all nodes."""
        found: Figures = np.zeros((len(self._graph), figures.shape[1]))
        found[self._multiplying] = figures
        return found

    def _totals(self, elements: Figures, sizes: Figures, node_macs: Figures) -> Totals:
        return Totals(
            params=self._weights.of(elements)[0],
            macs=node_macs.sum(axis=0),
            integer_macs=node_macs[self._in_integers].sum(axis=0),
            constant_bytes=self._stored.of(sizes)[0],
            memory_bound_bytes=self._in_memory.of(sizes)[0] + self._largest_live(sizes),
        )

    def _largest_live(self, sizes: Figures) -> Figures:
        """Return the bytes of the largest set of activations that are alive at one step: `(N,)`."""
        change = np.zeros((self._lives.steps + 1, sizes.shape[1]))
        if len(self._begins):
            room = np.maximum.reduceat(sizes[self._buffers], self._begins, axis=0)
            np.add.at(change, self._lives.born, room)
            np.subtract.at(change, self._lives.dead, room)
        largest: Figures = np.cumsum(change[:-1], axis=0).max(axis=0, initial=0.0)
        return largest


class _Sums:
    """Sums over some of many values, one per row: a value that a row names twice counts twice."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self._rows = len(rows)
        self._members = np.array([index for row in rows for index in row], np.int64)
        lengths = np.array([len(row) for row in rows], np.int64)
        self._filled = np.flatnonzero(lengths)
        self._begins = (np.cumsum(lengths) - lengths)[self._filled]

    def of(self, figures: Figures) -> Figures:
        """Return the sums over `figures` (values, N) as (rows, N)."""
        total = np.zeros((self._rows, figures.shape[1]))
        if len(self._filled):
            total[self._filled] = np.add.reduceat(figures[self._members], self._begins, axis=0)
        return total


def _bytes_each(kind: ir.DataType | None) -> float:
    """Return the bytes of one element; text counts nothing, an unknown type as a float."""
    if kind is None:
        return 4.0
    return 0.0 if kind in (ir.DataType.STRING, ir.DataType.UNDEFINED) else float(kind.itemsize)


def _length(shape: Shape, axis: int) -> float:
    return float(shape[axis]) if -len(shape) <= axis < len(shape) else 0.0


@dataclass(frozen=True)
class NodeSpec:
    """A node in its graph: `inputs` and `outputs` name its activations.

    `kernel`, `stride` and `groups` are those of a convolution or pooling, `depthwise` says that each filter reads one
    channel; none of these changes with the widths of a network. `precision` is what it is calculated in, see
    `precisions_of`.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    depthwise: bool = False
    domain: str = ""
    precision: Precision = "fp32"

    @property
    def op(self) -> Op:
        """What the table of ops says of it."""
        return counted_op(self.op_type, self.domain)


def _spec(node: ir.Node, settled: Collection[str], precision: Precision) -> NodeSpec:
    return NodeSpec(
        node.name or next((str(value.name) for value in node.outputs if value.name), node.op_type),
        node.op_type,
        tuple(str(value.name) for value in node.inputs if value is not None and str(value.name) not in settled),
        tuple(str(value.name) for value in node.outputs if value.name),
        *_form(node),
        node.domain,
        precision,
    )


def _macs(node: ir.Node) -> Macs | None:
    rule = counted_op(node.op_type, node.domain).macs
    return rule(node) if rule is not None and node.outputs else None


def _form(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...], int, bool]:
    """Return kernel, stride, groups, and whether each filter of a convolution reads a single channel of several."""
    weight = _weight_shape(node)
    kernel = tuple(node.attributes.get_ints("kernel_shape", ())) or weight[2:]
    stride = tuple(node.attributes.get_ints("strides", ())) or (1,) * len(kernel)
    groups = node.attributes.get_int("group", 1)
    return kernel, stride, groups, groups > 1 and weight[1:2] in ((), (1,))


def _weight_shape(node: ir.Node) -> tuple[int, ...]:
    """Return the shape of a convolution's weights; () for any other node, and where it is unknown."""
    index = counted_op(node.op_type, node.domain).kernel_weight
    value = node.inputs[index] if index is not None and index < len(node.inputs) else None
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        value = producer.inputs[0]
    if value is None or value.shape is None or not value.shape.is_static():
        return ()
    return tuple(int(size) for size in value.shape.numpy())
