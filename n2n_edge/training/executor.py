"""An ONNX graph as a torch module: run it, train it, and write what it learned back to the graph."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import onnx_ir as ir
import torch
from torch import Tensor, nn

from n2n_edge.errors import InputError
from n2n_edge.graph.free_batch import takes_one_image
from n2n_edge.graph.input_shape import input_layout
from n2n_edge.graph.load import load_model
from n2n_edge.graph.op import op_of
from n2n_edge.training.images import Images, Value, run_images
from n2n_edge.training.ops.registry import Mode
from n2n_edge.training.plan import make_plan
from n2n_edge.training.tensors import tensor_to_ir
from n2n_edge.training.trained_weights import constant_tensor

__all__ = ["GraphModule", "Halfway", "Visitor", "image_module", "load_student", "write_back"]


def _precision(model: ir.Model) -> torch.dtype | None:
    """Return the precision that images are given in where that isn't float32, the others being cast by the graph."""
    given = next((value for value in model.graph.inputs if not value.is_initializer()), None)
    if given is None or given.dtype is None:
        return None
    return {ir.DataType.FLOAT16: torch.float16, ir.DataType.DOUBLE: torch.float64}.get(given.dtype)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


@overload
def _whole(value: Value) -> Tensor: ...
@overload
def _whole(value: None) -> None: ...
def _whole(value: Value | None) -> Tensor | None:
    return value.joined() if isinstance(value, Images) else value


def _weight_channels_last(tensor: Tensor) -> Tensor:
    """Return a weight whose strides say channels-last even where one axis has a single element, as in depthwise ones.

    Torch chooses a convolution's kernel by strides: maps of one pixel would otherwise take one four times as slow.
    """
    return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _readable_names(model: ir.Model) -> dict[str, str]:
    """Return names by module and layer for initializers that an exporter left unnamed, such as ``onnx::Conv_12``."""
    names: dict[str, str] = {}
    for node in model.graph:
        path = [part for part in str(node.name or "").split("/") if part]
        for index, value in enumerate(node.inputs):
            if value is None or "::" not in str(value.name) or not path:
                continue
            layer = path[:-1] if len(path) > 1 and path[-1].split("_")[0] == node.op_type else path
            kind = {1: "weight", 2: "bias"}.get(index, f"input{index}")
            names.setdefault(str(value.name), ".".join([*layer, kind]))
    return names


@dataclass(frozen=True)
class Halfway:
    """Where a pass over some inputs stands before a step: the `values` that are needed from there on, by name.

    Of a node all outputs are among them, or none. `nodes` are those of the steps before. Values are not written to.
    """

    nodes: tuple[ir.Node, ...]
    values: Mapping[str, Tensor]


class GraphModule(nn.Module):
    """Executes an ONNX graph in torch, its weights as parameters and its BatchNorm statistics as buffers.

    ``GraphModule(model)(images)`` gives the graph's `learned_outputs`, one tensor, or a tuple where there are several;
    with `whole` the graph's own outputs. What torch has no function for is run by ONNX Runtime (`foreign`). Images are
    ``(N, C, H, W)`` whatever the graph's layout; ones that can only be ``(N, H, W, C)`` are taken where the graph takes
    such. The batch axis is free: a graph whose batch is fixed at one runs image by image where it has to (see
    `images`), and an output without a batch axis gets one, ``(N, ...)``. 4-D inputs and weights are held channels-last.
    `train()` makes BatchNorm use and follow the batch, as in torch. Raises UnsupportedOpError for an op that neither
    torch nor ONNX Runtime has.
    """

    def __init__(self, model: ir.Model, *, whole: bool = False) -> None:
        super().__init__()
        self._mode = Mode()
        self._momentum: float | None = None
        plan = make_plan(model, self._mode, whole=whole)
        self.foreign = plan.foreign
        """The nodes through which nothing is learned."""
        self._steps = tuple((step.run, step.inputs, step.outputs, step.finished) for step in plan.steps)
        self.nodes = tuple(step.node for step in plan.steps)
        """The nodes that are run, in order."""
        self.scales = tuple(name for name in plan.trained if name in plan.scales)
        """The names of the trained scales of quantizers, in the graph's order."""
        self._slots = plan.slots
        self._inputs, self._outputs = plan.inputs, plan.outputs
        self._layout = input_layout(model)
        shape = model.graph.inputs[0].shape if model.graph.inputs else None
        self._channels = shape[-1] if shape is not None and len(shape) else None
        self._precision = _precision(model)
        self.one_at_a_time = takes_one_image(model)
        """Whether batches are run image by image, since the graph's batch is fixed at one."""
        self.input_names = tuple(str(value.name) for value in model.graph.inputs if not value.is_initializer())
        """The names of the inputs, in the graph's order."""
        self._parameter_slots: list[tuple[int, nn.Module, str]] = []
        self._buffer_slots: list[tuple[int, nn.Module, str]] = []
        self._owners: dict[str, tuple[nn.Module, str]] = {}
        readable = _readable_names(model)
        for name, (slot, tensor) in plan.trained.items():
            self._owners[name] = owner, key = self._owner(readable.get(name, name))
            owner.register_parameter(key, nn.Parameter(_weight_channels_last(tensor)))
            self._parameter_slots.append((slot, owner, key))
        for name, (slot, tensor) in plan.statistics.items():
            self._owners[name] = owner, key = self._owner(readable.get(name, name))
            owner.register_buffer(key, tensor)
            self._buffer_slots.append((slot, owner, key))
        self.has_batch_norm = bool(plan.statistics)
        """Whether the graph keeps BatchNorm statistics."""
        for slot, tensor in plan.constants.items():
            self.register_buffer(f"constant:{slot}", tensor, persistent=False)
            self._buffer_slots.append((slot, self, f"constant:{slot}"))
        self.eval()

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """Return the submodule for an initializer such as ``layer1.0.conv1.weight`` and its name there.

        A part that torch has a meaning of its own for, or that names a tensor already, gets an underscore.
        """
        *path, key = [part or "_" for part in name.split(".")]
        owner: nn.Module = self
        for part in path:
            while part not in owner._modules and hasattr(owner, part):
                part += "_"
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        while hasattr(owner, key):
            key += "_"
        return owner, key

    def weights(self) -> list[nn.Parameter]:
        """Return the parameters in the graph's order, whatever modules they are in."""
        return [owner.get_parameter(key) for _, owner, key in self._parameter_slots]

    def weight(self, name: str) -> nn.Parameter | None:
        """Return the parameter of an initializer; None where that isn't trained."""
        owner, key = self._owners[name]
        return owner._parameters.get(key)

    def forward(self, *inputs: Tensor, halfway: Halfway | None = None) -> Tensor | tuple[Tensor, ...]:
        """Run the graph on its inputs, in the graph's order; with `halfway` from there on."""
        return self._run(inputs, None, halfway)

    def visit(self, visitor: "Visitor", *inputs: Tensor, halfway: Halfway | None = None) -> Tensor | tuple[Tensor, ...]:
        """Run like `forward`, and let `visitor` see every node that isn't folded away before it runs and after it.

        Of the nodes that lie before `halfway` it sees the outputs alone, where these are known.
        """
        return self._run(inputs, visitor, halfway)

    @property
    def frontiers(self) -> tuple[frozenset[str], ...]:
        """The names of the values that are needed from each step on, the graph's inputs and earlier outputs."""
        names = self._value_names()
        needed, found = set(self._outputs), []
        for _, reads, fills, _ in reversed(self._steps):
            needed = needed.difference(fills).union(reads)
            found.append(frozenset(names[slot] for slot in needed if slot in names))
        return tuple(reversed(found))

    def described(self) -> Iterator[tuple[ir.Node, list[Tensor | str]]]:
        """Give each step's node, and what it reads: weights and constants, or the names of values."""
        held = {slot: self._tensor(owner, key) for slot, owner, key in (*self._parameter_slots, *self._buffer_slots)}
        names = self._value_names()
        for node, (_, reads, _, _) in zip(self.nodes, self._steps, strict=True):
            yield node, [held[slot] if slot in held else names.get(slot, "") for slot in reads]

    def _value_names(self) -> dict[int, str]:
        """Return the names of what isn't held, by slot."""
        names = dict(zip(self._inputs, self.input_names, strict=True))
        for node, (_, _, fills, _) in zip(self.nodes, self._steps, strict=True):
            names |= {slot: str(value.name) for slot, value in zip(fills, node.outputs, strict=False)}
        return names

    def _run(
        self, inputs: tuple[Tensor, ...], visitor: "Visitor | None", halfway: Halfway | None
    ) -> Tensor | tuple[Tensor, ...]:
        if len(inputs) != len(self._inputs):
            raise ValueError(f"{len(inputs)} inputs given, the graph has {len(self._inputs)}: {self.input_names}")
        self._mode.training, self._mode.momentum = self.training, self._momentum
        values: list[Value | None] = [None] * self._slots
        for slot, owner, key in self._parameter_slots:
            values[slot] = owner._parameters[key]
        for slot, owner, key in self._buffer_slots:
            values[slot] = owner._buffers[key]
        for slot, tensor in zip(self._inputs, inputs, strict=True):
            if self._precision is not None and tensor.is_floating_point():
                tensor = tensor.to(self._precision)
            given = _channels_last(tensor) if self._layout == "nchw" else self._in_own_layout(tensor)
            values[slot] = Images(given) if self.one_at_a_time else given
        first = 0 if halfway is None else self._take_up(values, halfway, visitor)
        for index, (run, reads, fills, finished) in enumerate(self._steps[first:], start=first):
            arguments = [values[slot] for slot in reads]
            if visitor is not None:
                visitor.before(self.nodes[index], [_whole(value) for value in arguments])
            if self.one_at_a_time:
                results: tuple[Value, ...] = run_images(run, op_of(self.nodes[index]), arguments)
            else:
                result = run(*arguments)
                results = result if isinstance(result, tuple) else (result,)
            if visitor is not None:
                visitor.after(self.nodes[index], [_whole(value) for value in results])
            for slot, part in zip(fills, results, strict=False):
                values[slot] = part
            for slot in finished:
                values[slot] = None
        outputs = tuple(self._output(values[slot]) for slot in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _take_up(self, values: list[Value | None], halfway: Halfway, visitor: "Visitor | None") -> int:
        """Fill in what is known halfway, and return the number of the step that comes next."""
        for node, (_, _, fills, _) in zip(halfway.nodes, self._steps, strict=False):
            known = [halfway.values[str(v.name)].clone() for v in node.outputs if str(v.name) in halfway.values]
            for slot, tensor in zip(fills, known, strict=False):
                values[slot] = tensor
            if known and visitor is not None:
                visitor.after(node, known)
        return len(halfway.nodes)

    def _in_own_layout(self, images: Tensor) -> Tensor:
        """Return images of a graph that takes channels last as it takes them."""
        own = images.shape[-1] == self._channels != images.shape[1]
        return images if own else images.permute(0, 2, 3, 1)

    @staticmethod
    def _output(value: Value | None) -> Tensor:
        if value is None:
            raise RuntimeError("a graph output was never computed")
        return value.stacked() if isinstance(value, Images) else value

    def learned(self) -> dict[str, Tensor]:
        """Give what training changes, weights and BatchNorm statistics, keyed by initializer name (no copies)."""
        return {name: self._tensor(*owner).detach() for name, owner in self._owners.items()}

    @staticmethod
    def _tensor(owner: nn.Module, key: str) -> Tensor:
        tensor: Tensor | None = owner._parameters[key] if key in owner._parameters else owner._buffers.get(key)
        if tensor is None:
            raise RuntimeError(f"'{key}' was removed from the module")
        return tensor

    @torch.no_grad()
    def load_learned(self, tensors: dict[str, Tensor]) -> None:
        """Copy tensors of the form of `learned()` into this module; other names or shapes raise ValueError."""
        own = self.learned()
        if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
            raise ValueError("the tensors belong to another graph: their names or shapes differ")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])

    @contextmanager
    def synchronised(self, mean: Callable[[Tensor], Tensor], processes: int) -> Iterator[None]:
        """Let BatchNorm take its statistics over the batches of all `processes` while in the block.

        ``mean(tensor)`` is that over the processes, through which gradients flow.
        """
        self._mode.mean, self._mode.processes = mean, processes
        try:
            yield
        finally:
            self._mode.processes = 1

    @contextmanager
    def batch_norm_momentum(self, momentum: float) -> Iterator[None]:
        """Let every BatchNorm weigh the newest batch by `momentum` while in the block."""
        before, self._momentum = self._momentum, momentum
        try:
            yield
        finally:
            self._momentum = before


class Visitor(Protocol):
    """What `GraphModule.visit` tells; tensors may be overwritten later in the pass, so keep copies."""

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Take a node and its inputs; weights changed here are the ones that the node runs with."""

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        """Take a node and its outputs."""


def write_back(model: ir.Model, module: GraphModule) -> ir.Model:
    """Give a copy of `model` with the weights and BatchNorm statistics of `module`; `model` stays as it is.

    Raises ValueError when the module was made from a graph with other initializers.
    """
    learned = module.learned()
    clone = model.clone()
    values = dict(clone.graph.initializers)
    values.update(
        (node.outputs[0].name, node.outputs[0])
        for node in clone.graph
        if node.op_type == "Constant" and node.outputs[0].name
    )
    for name, tensor in learned.items():
        value = values.get(name)
        old = None if value is None else constant_tensor(value)
        if value is None or old is None or tuple(old.shape.numpy()) != tuple(tensor.shape):
            raise ValueError(f"the graph has no initializer '{name}' of shape {tuple(tensor.shape)}")
        new = tensor_to_ir(tensor, old, name)
        producer = value.producer()
        if producer is None:
            value.const_value = new
        else:
            producer.attributes["value"] = ir.AttrTensor("value", new)
    return clone


def image_module(model: ir.Model, what: str) -> GraphModule:
    """Make the torch module of a model that takes one batch of images; raises InputError for any other."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(inputs) != 1:
        raise InputError(f"the {what} takes {len(inputs)} inputs: distillation feeds models of one image input")
    return GraphModule(model)


def load_student(path: str | Path) -> nn.Module:
    """Load a shipped ONNX file as a torch module in evaluation mode, ready to run or to train on.

    Its parameters are named by module and layer, as in the teacher; `Run.ship` takes it back into its run.

    >>> module = n2n_edge.load_student(example_teacher)
    >>> next(name for name, _ in module.named_parameters())
    'conv1.weight'

    Raises InputError for a file that can't be read, UnsupportedOpError for an op without a torch meaning here.
    """
    return GraphModule(load_model(path), whole=True)
