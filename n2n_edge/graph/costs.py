"""What a model costs by its graph alone: params, bytes, multiply-accumulates and the memory bound."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.load import to_proto
from n2n_edge.graph.shapes import Shape, is_constant, shapes_of

__all__ = ["Amounts", "CostPlan", "Costs", "Figures", "NodeCost", "Place", "costs", "node_amounts", "node_costs"]

Figures = NDArray[np.float64]

_VIEW_OPS = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"})
"""Ops whose output can share its input's memory."""

_FIRST_SETTING = {"BatchNormalization": 3, "Clip": 1, "Dropout": 1, "Pad": 1, "Resize": 1, "Upsample": 1}
"""From which input on an op reads running statistics or settings instead of weights."""


@dataclass(frozen=True)
class Costs:
    """Costs that follow exactly from a graph, for a batch of one.

    `params` counts the elements of all float weights, without the running statistics of BatchNorm and without settings
    such as the bounds of a Clip; `size_bytes` is the serialised file; `memory_bound_bytes` is the initialisers plus the
    largest live set of activations in execution order.
    """

    params: int
    size_bytes: int
    macs: int
    memory_bound_bytes: int


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
class Amounts:
    """`Costs` of N candidates of one graph at once: `(N,)`, and `(nodes, N)` for the shares of nodes.

    Of the file only the bytes of the constants are counted. Floats hold these integers exactly. `node_reduction` are
    the multiply-accumulates behind one output element, `node_channels` the output channels of a convolution or Gemm;
    nought for other nodes.
    """

    params: Figures
    macs: Figures
    constant_bytes: Figures
    memory_bound_bytes: Figures
    node_macs: Figures
    node_reduction: Figures
    node_channels: Figures
    node_params: Figures
    node_weight_bytes: Figures
    node_input_bytes: Figures
    node_output_bytes: Figures


def costs(model: ir.Model) -> Costs:
    """Return the costs of `model`; shapes come from the model, or from shape inference where it lacks them."""
    plan = CostPlan(model)
    found = plan.at(*plan.sizes_of(shapes_of(model)))
    return Costs(
        params=int(found.params[0]),
        size_bytes=to_proto(model).ByteSize(),
        macs=int(found.macs[0]),
        memory_bound_bytes=int(found.memory_bound_bytes[0]),
    )


def node_amounts(model: ir.Model) -> tuple[tuple["Place", ...], Amounts]:
    """Return the nodes in execution order and what they cost, as one candidate (N = 1)."""
    plan = CostPlan(model)
    return plan.places, plan.at(*plan.sizes_of(shapes_of(model)))


def node_costs(model: ir.Model) -> tuple[NodeCost, ...]:
    """Return one entry per node in execution order."""
    places, found = node_amounts(model)
    return tuple(
        NodeCost(
            place.name, place.op_type, place.inputs, place.outputs,
            int(found.node_macs[i, 0]), int(found.node_params[i, 0]), int(found.node_weight_bytes[i, 0]),
            int(found.node_input_bytes[i, 0]), int(found.node_output_bytes[i, 0]),
        )
        for i, place in enumerate(places)
    )  # fmt: skip


class CostPlan:
    """What of a graph decides its costs once the sizes of its values are known.

    `values` are the names of all values, `axes` the (value, axis) pairs whose length is needed by itself, `places` the
    nodes in execution order.
    """

    def __init__(self, model: ir.Model) -> None:
        self.places = tuple(_place(node) for node in model.graph)
        everything = [*model.graph.inputs, *model.graph.initializers.values()]
        everything += [value for node in model.graph for value in node.outputs if value.name]
        self._index = {str(value.name): i for i, value in enumerate({str(v.name): v for v in everything}.values())}
        self.values = tuple(self._index)
        self._itemsize = np.zeros((len(self.values), 1))
        for value in everything:
            dtype = value.dtype if value.const_value is None else value.const_value.dtype
            self._itemsize[self._index[str(value.name)]] = 4 if dtype is None else dtype.itemsize
        constants = list(model.graph.initializers.values())
        weights = {str(value.name) for value in constants if _is_weight(value)}
        self._weights = self._mask([weights])
        self._constants = self._mask([{str(v.name) for v in constants if v.const_value is not None}])
        reads = [[v for v in node.inputs if v is not None] for node in model.graph]
        self._node_weights = self._mask([[n for v in vs if (n := str(v.name)) in weights] for vs in reads])
        self._node_constants = self._mask([[str(v.name) for v in vs if is_constant(v)] for vs in reads])
        self._node_inputs = self._mask([[str(v.name) for v in vs if not is_constant(v)] for vs in reads])
        self._node_outputs = self._mask([place.outputs for place in self.places])
        self._storage = _Storage(model)
        self._roots = [[self._index[name] for name in names] for names in self._storage.members]
        macs = [(i, found) for i, node in enumerate(model.graph) if (found := _macs(node)) is not None]
        self._multiplying = [i for i, _ in macs]
        self._outputs = [self._index[found.positions] for _, found in macs]
        self._kernels = [self._index[found.weight] if found.weight else -1 for _, found in macs]
        self.axes = tuple(found.axis for _, found in macs)

    def _mask(self, rows: Sequence[Collection[str]]) -> Figures:
        """Return (rows, values): how often each row names each value."""
        mask = np.zeros((len(rows), len(self.values)))
        for row, names in enumerate(rows):
            for name in names:
                if name in self._index:
                    mask[row, self._index[name]] += 1
        return mask

    def sizes_of(self, shapes: Mapping[str, Shape]) -> tuple[Figures, Figures]:
        """Return what `at` takes, for one candidate whose values have these shapes; unknown ones count nothing."""
        elements = [float(prod(shapes[name])) if name in shapes else 0.0 for name in self.values]
        lengths = [float(shapes[name][axis]) if shapes.get(name) else 0.0 for name, axis in self.axes]
        return np.array(elements)[:, None], np.array(lengths).reshape(-1, 1)

    def at(self, elements: Figures, lengths: Figures) -> Amounts:
        """Return the costs where `values` have so many elements `(values, N)` and `axes` are so long `(axes, N)`."""
        sizes = np.ceil(elements * self._itemsize)
        node_macs, node_reduction, node_channels = np.zeros((3, len(self.places), elements.shape[1]))
        if self._multiplying:
            kernels = np.array(self._kernels)
            convolves = (kernels >= 0)[:, None]
            per_output = np.where(convolves, elements[kernels] / np.maximum(lengths, 1.0), lengths)
            node_macs[self._multiplying] = np.round(elements[self._outputs] * per_output)
            node_reduction[self._multiplying] = per_output
            node_channels[self._multiplying] = np.where(convolves, lengths, elements[self._outputs])
        constants = (self._constants @ sizes)[0]
        rooms = np.stack([sizes[members].max(axis=0) for members in self._roots]) if self._roots else sizes[:0]
        return Amounts(
            params=(self._weights @ elements)[0],
            macs=node_macs.sum(axis=0),
            constant_bytes=constants,
            memory_bound_bytes=constants + (self._storage.alive @ rooms).max(axis=0, initial=0.0),
            node_macs=node_macs,
            node_reduction=node_reduction,
            node_channels=node_channels,
            node_params=self._node_weights @ elements,
            node_weight_bytes=self._node_constants @ sizes,
            node_input_bytes=self._node_inputs @ sizes,
            node_output_bytes=self._node_outputs @ sizes,
        )


@dataclass(frozen=True)
class Place:
    """A node in its graph: `inputs` and `outputs` name its activations.

    `kernel`, `stride` and `groups` are those of a convolution or pooling, `depthwise` says that each filter reads one
    channel; none of these changes with the widths of a network.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    depthwise: bool = False


def _place(node: ir.Node) -> Place:
    return Place(
        node.name or node.outputs[0].name or node.op_type,
        node.op_type,
        tuple(str(value.name) for value in node.inputs if value is not None and not is_constant(value)),
        tuple(str(value.name) for value in node.outputs if value.name),
        *_form(node),
    )


def _form(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...], int, bool]:
    """Return kernel, stride, groups, and whether each filter of a convolution reads a single channel of several."""
    weight = _weight_shape(node)
    kernel = tuple(node.attributes.get_ints("kernel_shape", ())) or weight[2:]
    stride = tuple(node.attributes.get_ints("strides", ())) or (1,) * len(kernel)
    groups = node.attributes.get_int("group", 1)
    return kernel, stride, groups, groups > 1 and weight[1:2] in ((), (1,))


def _weight_shape(node: ir.Node) -> tuple[int, ...]:
    """Return the shape of a convolution's weights; () for any other node, and where it is unknown."""
    index = {"Conv": 1, "ConvInteger": 1, "ConvTranspose": 1, "QLinearConv": 3}.get(node.op_type)
    value = node.inputs[index] if index is not None and index < len(node.inputs) else None
    if value is None or value.shape is None or not value.shape.is_static():
        return ()
    return tuple(int(size) for size in value.shape.numpy())


@dataclass(frozen=True)
class _Macs:
    """Multiply-accumulates: elements of `positions`, times those of `weight` over its `axis` (or times the axis)."""

    positions: str
    weight: str
    axis: tuple[str, int]


def _macs(node: ir.Node) -> _Macs | None:
    """Return how a node multiplies: output positions times the weights that each one reads; other ops do not."""
    names = [str(value.name) if value is not None else "" for value in node.inputs]
    output = str(node.outputs[0].name)
    match node.op_type:
        case "Conv" | "ConvInteger" | "FusedConv":
            return _Macs(output, names[1], (names[1], 0))
        case "QLinearConv":
            return _Macs(output, names[3], (names[3], 0))
        case "ConvTranspose":
            return _Macs(names[0], names[1], (names[1], 0))
        case "Gemm":
            return _Macs(output, "", (names[0], 0 if node.attributes.get_int("transA", 0) else 1))
        case "MatMul" | "MatMulInteger" | "QLinearMatMul":
            return _Macs(output, "", (names[0], -1))
        case _:
            return None


class _Storage:
    """Which buffer each activation lives in: `members` are the values of each, `alive` (steps, buffers) when."""

    def __init__(self, model: ir.Model) -> None:
        graph = model.graph
        self.root: dict[str, str] = {}
        last: dict[str, int] = {}
        born: dict[str, int] = {}
        nodes = list(graph)
        for value in graph.inputs:
            if is_constant(value):
                continue
            self.root[str(value.name)] = str(value.name)
            last[str(value.name)] = 0
        for step, node in enumerate(nodes):
            for source in node.inputs:
                if source is not None and str(source.name) in self.root:
                    last[self.root[str(source.name)]] = step
            view = node.op_type in _VIEW_OPS and node.inputs and node.inputs[0] is not None
            for output in node.outputs:
                name = str(output.name)
                if not name:
                    continue
                source_root = self.root.get(str(node.inputs[0].name)) if view and node.inputs[0] is not None else None
                self.root[name] = source_root or name
                last[source_root or name] = step
                if source_root is None:
                    born[name] = step
        kept = {self.root[str(value.name)] for value in graph.outputs if str(value.name) in self.root}
        roots = list(dict.fromkeys(self.root.values()))
        self.members = [[name for name, root in self.root.items() if root == one] for one in roots]
        self.alive = np.zeros((max(len(nodes), 1), len(roots)))
        for column, name in enumerate(roots):
            end = len(nodes) if name in kept or not nodes else last[name] + 1
            self.alive[born.get(name, 0) : max(end, 1), column] = 1


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or not tensor.dtype.is_floating_point() or not tensor.shape:
        return False
    uses = value.uses()
    return not uses or any(use.idx < _FIRST_SETTING.get(use.node.op_type, 99) for use in uses)
