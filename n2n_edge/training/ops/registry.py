"""How an ONNX op becomes a torch function: the view of a node that builders read, and the registry of builders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.errors import InputError
from n2n_edge.graph.op import op_key, op_of
from n2n_edge.importing import function_by_name

__all__ = [
    "FORGETS_OUTPUT", "OPS", "Builder", "Kernel", "Mode", "NodeView", "UnsupportedOpError", "builder_of", "register",
    "torch_dtype",
]  # fmt: skip

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]
"""What runs at each forward pass: takes the node's inputs in order (None where one is left out)."""


class UnsupportedOpError(InputError):
    """A node that the torch executor has no meaning for; names the op, the node and what exactly is not covered."""


@dataclass
class Mode:
    """What kernels need to know about the module that runs them; written by the module before each pass.

    `momentum` replaces every BatchNorm's own one while statistics are recalibrated (weight of the newest batch). Where
    `processes` share a batch, `mean` is that of a tensor over all of them.
    """

    training: bool = False
    momentum: float | None = None
    mean: Callable[[Tensor], Tensor] = lambda tensor: tensor
    processes: int = 1


@dataclass(frozen=True)
class NodeView:
    """One node as its builder sees it: attributes with defaults, and the inputs that are known before running."""

    node: ir.Node
    opset: int
    mode: Mode
    constants: tuple[Tensor | None, ...]
    shared_statistics: bool = False
    overwrite_input: bool = False
    shapes: tuple[tuple[int, ...] | None, ...] = field(default=())

    def has(self, index: int) -> bool:
        """Tell whether input `index` is connected."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def gives(self, index: int) -> bool:
        """Tell whether output `index` is in use."""
        outputs = self.node.outputs
        return index < len(outputs) and bool(outputs[index].uses() or outputs[index].is_graph_output())

    def constant(self, index: int) -> Tensor | None:
        """Give input `index` where it is a known constant."""
        return self.constants[index] if index < len(self.constants) else None

    def shape(self, index: int) -> tuple[int, ...] | None:
        """Give the shape of input `index` where it is a weight or constant."""
        return self.shapes[index] if index < len(self.shapes) else None

    def get_int(self, name: str, default: int) -> int:
        """Read an integer attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def get_float(self, name: str, default: float) -> float:
        """Read a float attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_float()

    def get_string(self, name: str, default: str) -> str:
        """Read a string attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def get_ints(self, name: str) -> tuple[int, ...] | None:
        """Read an attribute that is a list of integers."""
        attribute = self.node.attributes.get(name)
        return None if attribute is None else tuple(attribute.as_ints())

    def get_floats(self, name: str) -> tuple[float, ...] | None:
        """Read an attribute that is a list of floats."""
        attribute = self.node.attributes.get(name)
        return None if attribute is None else tuple(attribute.as_floats())

    def integers(self, name: str, index: int) -> Callable[[Sequence[Tensor | None]], tuple[int, ...] | None]:
        """Give a reader of an integer list that is an attribute in old opsets and input `index` in newer ones.

        What is known before running is read once, here.
        """
        attribute = self.get_ints(name)
        known = self.constant(index)
        if attribute is not None or not self.has(index):
            return lambda _: attribute
        if known is not None:
            baked = tuple(int(item) for item in known.reshape(-1).tolist())
            return lambda _: baked

        def read(arguments: Sequence[Tensor | None]) -> tuple[int, ...] | None:
            value = arguments[index]
            return None if value is None else tuple(int(item) for item in value.reshape(-1).tolist())

        return read

    def only_first_output(self) -> None:
        """Refuse a node whose second or later output is used: they exist for training or for unpooling."""
        if any(self.gives(index) for index in range(1, len(self.node.outputs))):
            raise self.unsupported("with more than its first output in use")

    def unsupported(self, what: str) -> UnsupportedOpError:
        """Build the error that says which form of this op is not covered."""
        name = self.node.name or (self.node.outputs[0].name if self.node.outputs else "")
        return UnsupportedOpError(
            f"node '{name}' is {self.node.op_type} {what} (opset {self.opset}), which the torch executor does not "
            f"cover: export the model without it"
        )


Builder = Callable[[NodeView], Kernel]

OPS: dict[str, Builder] = {}
"""Every op that can be executed in torch: ``Conv``, or ``domain:Name`` for those of other domains."""

FORGETS_OUTPUT: set[str] = set()
"""Ops whose outputs are new tensors that their own backward pass doesn't read, so that a Relu may overwrite them."""


def register(*op_types: str, domain: str = "", forgets_output: bool = False) -> Callable[[Builder], Builder]:
    """Register the decorated builder under one or more op types of a domain; `forgets_output` as `FORGETS_OUTPUT`."""

    def add(builder: Builder) -> Builder:
        for op_type in op_types:
            OPS[op_key(domain, op_type)] = builder
            if forgets_output:
                FORGETS_OUTPUT.add(op_key(domain, op_type))
        return builder

    return add


def builder_of(node: ir.Node) -> Builder | None:
    """Return the builder of a node's op: a registered one, or that which its row in the table of ops names.

    Raises:
        InputError: the row names a function that can't be imported.
    """
    key = op_key(node.domain, node.op_type)
    named = op_of(node).torch
    if key not in OPS and named:
        OPS[key] = cast(Builder, function_by_name(f"the torch function of op {key},", named))
    return OPS.get(key)


_DTYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}


def torch_dtype(onnx_type: int) -> torch.dtype | None:
    """Translate an ONNX element type, None where torch has no equal."""
    return _DTYPES.get(ir.DataType(onnx_type))
