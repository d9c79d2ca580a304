"""The plan of a graph's execution: constants folded, one torch function per remaining node, values freed early."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.graph.bind import bound_names
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.graph.op import STANDARD_DOMAINS, op_key
from n2n_edge.graph.pairs import behind_pairs, scales_of, summing
from n2n_edge.training.ops import (
    activation as ops_activation,
)
from n2n_edge.training.ops import (
    conv as ops_conv,
)
from n2n_edge.training.ops import (
    index as ops_index,
)
from n2n_edge.training.ops import (
    math as ops_math,
)
from n2n_edge.training.ops import (
    norm as ops_norm,
)
from n2n_edge.training.ops import (
    pool as ops_pool,
)
from n2n_edge.training.ops import (
    quantize as ops_quantize,
)
from n2n_edge.training.ops import (
    recurrent as ops_recurrent,
)
from n2n_edge.training.ops import (
    resize as ops_resize,
)
from n2n_edge.training.ops import (
    shape as ops_shape,
)
from n2n_edge.training.ops.quantize import Product, Requantized
from n2n_edge.training.ops.registry import FORGETS_OUTPUT, Kernel, Mode, NodeView, UnsupportedOpError, builder_of
from n2n_edge.training.ops.runtime import runs_alone, runtime_kernel
from n2n_edge.training.tensors import tensor_from_ir
from n2n_edge.training.trained_weights import find_weights

__all__ = ["Plan", "Step", "make_plan"]

_REGISTERING = (
    ops_activation, ops_conv, ops_index, ops_math, ops_norm, ops_pool, ops_quantize, ops_recurrent, ops_resize,
    ops_shape,
)  # fmt: skip
NOTHING = 0
"""The slot of an optional input that is left out."""


@dataclass(frozen=True)
class Step:
    """One node to run: slots it reads, slots it fills, and slots that nobody reads after it."""

    node: ir.Node
    run: Kernel
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    finished: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How to execute a graph over a list of `slots` values.

    `trained` and `statistics` are keyed by initializer name (of a Constant node: its output's name). `foreign` are the
    nodes that torch has no function for: ONNX Runtime runs them, and no gradient passes. `scales` names those of
    `trained` that are scales of quantizers.
    """

    steps: tuple[Step, ...]
    slots: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    trained: dict[str, tuple[int, Tensor]]
    statistics: dict[str, tuple[int, Tensor]]
    constants: dict[int, Tensor]
    foreign: tuple[ir.Node, ...]
    scales: frozenset[str]


class _Planner:
    def __init__(self, model: ir.Model, mode: Mode, *, whole: bool) -> None:
        self.graph = model.graph
        self.imports = dict(model.opset_imports)
        self.outputs = tuple(model.graph.outputs) if whole else learned_outputs(model)
        self.foreign: list[ir.Node] = []
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
        self.mode = mode
        self.weights = find_weights(self.graph, bound_names(model))
        self.slots: dict[ir.Value, int] = {}
        self.known: dict[ir.Value, Tensor] = {}
        self.changing: dict[ir.Value, Tensor] = {}

    def slot(self, value: ir.Value) -> int:
        return self.slots.setdefault(value, len(self.slots) + 1)

    def add_constant(self, value: ir.Value, tensor: Tensor) -> None:
        changes = value.name in self.weights.trained or value.name in self.weights.statistics
        (self.changing if changes else self.known)[value] = tensor

    def view(self, node: ir.Node) -> NodeView:
        # a quantized weight has the shape of the float one
        sources = [None if value is None else behind_pairs(value) for value in node.inputs]
        tensors = [None if value is None else self.known.get(value, self.changing.get(value)) for value in sources]
        first = node.inputs[0] if node.inputs else None
        producer = None if first is None else first.producer()
        overwrite = (
            first is not None
            and producer is not None
            and op_key(producer.domain, producer.op_type) in FORGETS_OUTPUT
            and len(first.uses()) == 1
            and not first.is_graph_output()
            and first not in self.outputs
        )
        shared = any(value is not None and value.name in self.weights.shared_statistics for value in node.inputs)
        return NodeView(
            node=node,
            opset=self.opset,
            mode=self.mode,
            constants=tuple(None if value is None else self.known.get(value) for value in node.inputs),
            shared_statistics=shared,
            overwrite_input=overwrite,
            shapes=tuple(None if tensor is None else tuple(tensor.shape) for tensor in tensors),
        )

    def fold(self, node: ir.Node, kernel: Kernel) -> bool:
        """Run a node now when all it reads is known; tell whether that was so."""
        if any(value is not None and value not in self.known for value in node.inputs):
            return False
        with torch.no_grad():
            result = kernel(*(None if value is None else self.known[value] for value in node.inputs))
        results = (result,) if isinstance(result, Tensor) else result
        for value, tensor in zip(node.outputs, results, strict=False):
            self.add_constant(value, tensor)
        return True

    def make(self) -> Plan:
        for value in self.graph.initializers.values():
            if value.const_value is None:
                raise UnsupportedOpError(f"initializer '{value.name}' has no data: load the model with its weights")
            self.add_constant(value, tensor_from_ir(value.const_value))
        inputs = tuple(self.slot(value) for value in self.graph.inputs if not value.is_initializer())
        waiting: list[tuple[ir.Node, Kernel]] = []
        for node in _needed(self.graph, self.outputs):
            kernel = self.kernel(node)
            if not self.fold(node, kernel):
                waiting.append((node, kernel))
        outputs = tuple(self.slot(value) for value in self.outputs)
        return self.schedule(waiting, inputs, outputs)

    def kernel(self, node: ir.Node) -> Kernel:
        view = self.view(node)
        builder = builder_of(node)
        try:
            if builder is None:
                standard = node.domain in STANDARD_DOMAINS
                raise view.unsupported("as an operator" if standard else f"of domain '{node.domain}'")
            return builder(view)
        except UnsupportedOpError:
            if not runs_alone(node):
                raise
            self.foreign.append(node)
            return runtime_kernel(node, self.imports)

    def planned(self, node: ir.Node, kernel: Kernel) -> tuple[ir.Node, Kernel, Sequence[ir.Value | None]]:
        """Return a node with its function and what that reads: in quantized products their scales, too."""
        source = summing(node) or node
        scales = scales_of(source)
        product = Product.of(self.view(source), kernel) if scales else None
        if product is None:
            return node, kernel, node.inputs
        own = product if source is node else Requantized(kernel, self.mode, product.output_axis)
        return node, own, (*node.inputs, *scales)

    def schedule(
        self, waiting: list[tuple[ir.Node, Kernel]], inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> Plan:
        planned = [self.planned(node, kernel) for node, kernel in waiting]
        last_reader = {value: node for node, _, inputs in planned for value in inputs if value is not None}
        steps = []
        for node, kernel, read in planned:
            reads = tuple(NOTHING if value is None else self.slot(value) for value in read)
            fills = tuple(self.slot(value) for value in node.outputs)
            done = {self.slot(value) for value in read if value is not None and last_reader[value] is node}
            unread = {self.slot(v) for v in node.outputs if v not in last_reader}
            steps.append(Step(node, kernel, reads, fills, tuple(sorted((done | unread) - set(outputs)))))
        changing = {value: tensor for value, tensor in self.changing.items() if value in self.slots}
        return Plan(
            steps=tuple(steps),
            slots=len(self.slots) + 1,
            inputs=inputs,
            outputs=outputs,
            trained=self.named(changing, self.weights.trained),
            statistics=self.named(changing, self.weights.statistics - self.weights.trained),
            constants={self.slots[value]: tensor for value, tensor in self.known.items() if value in self.slots},
            foreign=tuple(self.foreign),
            scales=self.weights.scales,
        )

    def named(self, values: dict[ir.Value, Tensor], names: frozenset[str]) -> dict[str, tuple[int, Tensor]]:
        return {v.name: (self.slots[v], tensor) for v, tensor in values.items() if v.name and v.name in names}


def _needed(graph: ir.Graph, outputs: Sequence[ir.Value]) -> list[ir.Node]:
    """Return, in order, the nodes that `outputs` follow from."""
    wanted = set(outputs)
    needed = []
    for node in reversed(list(graph)):
        if any(value in wanted for value in node.outputs):
            needed.append(node)
            wanted.update(value for value in node.inputs if value is not None)
    return needed[::-1]


def make_plan(model: ir.Model, mode: Mode, *, whole: bool = False) -> Plan:
    """Plan the execution of a model's graph (nodes in topological order) up to its `learned_outputs`.

    `whole`: up to the graph's own outputs. Raises UnsupportedOpError for an op, or a form of one, that neither torch
    nor ONNX Runtime runs by itself.
    """
    return _Planner(model, mode, whole=whole).make()
