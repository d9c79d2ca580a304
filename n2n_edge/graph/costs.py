"""What a model costs by its graph alone: params, bytes, multiply-accumulates and the memory bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

import onnx_ir as ir

from n2n_edge.graph.load import to_proto
from n2n_edge.graph.shapes import Shape, is_constant, shapes_of

__all__ = ["Costs", "NodeCost", "costs", "node_costs"]

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


def costs(model: ir.Model) -> Costs:
    """Return the costs of `model`; shapes come from the model, or from shape inference where it lacks them."""
    shapes = shapes_of(model)
    return Costs(
        params=_params(model),
        size_bytes=to_proto(model).ByteSize(),
        macs=sum(_macs(node, shapes) for node in model.graph),
        memory_bound_bytes=_memory_bound(model, shapes),
    )


def node_costs(model: ir.Model) -> tuple[NodeCost, ...]:
    """Return one entry per node in execution order."""
    shapes = shapes_of(model)
    return tuple(_node_cost(node, shapes) for node in model.graph)


def _node_cost(node: ir.Node, shapes: Mapping[str, Shape]) -> NodeCost:
    constants = [value for value in node.inputs if value is not None and is_constant(value)]
    activations = [value for value in node.inputs if value is not None and not is_constant(value)]
    return NodeCost(
        name=node.name or node.outputs[0].name or node.op_type,
        op_type=node.op_type,
        inputs=tuple(str(value.name) for value in activations),
        outputs=tuple(str(value.name) for value in node.outputs if value.name),
        macs=_macs(node, shapes),
        params=sum(_weight_elements(value) for value in constants),
        weight_bytes=sum(_constant_bytes(value) for value in constants),
        input_bytes=sum(_activation_bytes(value, shapes) for value in activations),
        output_bytes=sum(_activation_bytes(value, shapes) for value in node.outputs),
    )


def _params(model: ir.Model) -> int:
    return sum(_weight_elements(value) for value in model.graph.initializers.values())


def _macs(node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates: output positions times the weights that each one reads; other ops count none."""

    def shape(value: ir.Value | None) -> Shape:
        return shapes.get(str(value.name), ()) if value is not None else ()

    match node.op_type:
        case "Conv" | "ConvInteger":
            weight, output = shape(node.inputs[1]), shape(node.outputs[0])
            return prod(output) * prod(weight[1:])
        case "QLinearConv":
            weight, output = shape(node.inputs[3]), shape(node.outputs[0])
            return prod(output) * prod(weight[1:])
        case "ConvTranspose":
            weight, source = shape(node.inputs[1]), shape(node.inputs[0])
            return prod(source) * prod(weight[1:])
        case "Gemm":
            first, output = shape(node.inputs[0]), shape(node.outputs[0])
            transposed = node.attributes.get_int("transA", 0)
            return prod(output) * first[0 if transposed else 1] if first else 0
        case "MatMul" | "MatMulInteger" | "QLinearMatMul":
            first, output = shape(node.inputs[0]), shape(node.outputs[0])
            return prod(output) * first[-1] if first else 0
        case _:
            return 0


def _memory_bound(model: ir.Model, shapes: Mapping[str, Shape]) -> int:
    storage = _Storage(model)
    constants = sum(_constant_bytes(value) for value in model.graph.initializers.values())
    size = dict.fromkeys(storage.root.values(), 0)
    for name, root in storage.root.items():
        size[root] = max(size[root], ceil(storage.itemsize[name] * prod(shapes.get(name, ()))))
    live = peak = sum(size[root] for root in {storage.root[str(value.name)] for value in storage.graph_inputs})
    for born, dying in zip(storage.born, storage.dies, strict=True):
        live += sum(size[root] for root in born)
        peak = max(peak, live)
        live -= sum(size[root] for root in dying)
    return constants + peak


class _Storage:
    """Which buffer each activation lives in, and the steps at which a buffer is born and dies."""

    def __init__(self, model: ir.Model) -> None:
        graph = model.graph
        self.root: dict[str, str] = {}
        self.itemsize: dict[str, float] = {}
        self.graph_inputs = [value for value in graph.inputs if not is_constant(value)]
        last: dict[str, int] = {}
        nodes = list(graph)
        self.born: list[list[str]] = [[] for _ in nodes]
        self.dies: list[list[str]] = [[] for _ in nodes]
        for value in self.graph_inputs:
            self._add(value, str(value.name))
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
                self._add(output, source_root or name)
                last[source_root or name] = step
                if source_root is None:
                    self.born[step].append(name)
        kept = {self.root[str(value.name)] for value in graph.outputs if str(value.name) in self.root}
        for name, step in last.items():
            if name not in kept and nodes:
                self.dies[step].append(name)

    def _add(self, value: ir.Value, root: str) -> None:
        name = str(value.name)
        self.root[name] = root
        self.itemsize[name] = value.dtype.itemsize if value.dtype is not None else 4


def _weight_elements(value: ir.Value) -> int:
    tensor = value.const_value
    if tensor is None or not tensor.dtype.is_floating_point() or not tensor.shape:
        return 0
    uses = value.uses()
    if uses and all(use.idx >= _FIRST_SETTING.get(use.node.op_type, 99) for use in uses):
        return 0
    return prod(tensor.shape.numpy())


def _constant_bytes(value: ir.Value) -> int:
    return int(value.const_value.nbytes) if value.const_value is not None else 0


def _activation_bytes(value: ir.Value, shapes: Mapping[str, Shape]) -> int:
    shape = shapes.get(str(value.name))
    if shape is None:
        return 0
    return int(prod(shape) * (value.dtype.itemsize if value.dtype is not None else 4))
