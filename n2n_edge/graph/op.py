"""Row of the table of ops: all that the program knows of one ONNX operator, and the registry of these rows.

The rows of standard operators, and of ONNX Runtime's own ones, are in ``ops.py``. Others come from outside:

>>> from n2n_edge import Op, register_op
>>> register_op(Op("Snake", domain="my.ops", activation=True))

or from installed packages, whose entry points of the group ``n2n_edge.ops`` give an `Op` or several.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal, NamedTuple

import onnx_ir as ir

from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.foreign import foreign_code, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from n2n_edge.graph.labels import Labels

__all__ = [
    "ENTRY_POINTS", "MICROSOFT", "STANDARD_DOMAINS", "Form", "Join", "KernelClass", "LabelRule", "Like", "Macs", "Op",
    "Rederive", "Weight", "counted_op", "op_key", "op_of", "register_op",
]  # fmt: skip

STANDARD_DOMAINS = ("", "ai.onnx")
MICROSOFT = "com.microsoft"
ENTRY_POINTS = "n2n_edge.ops"
"""The group of entry points that give rows, each an `Op` or several."""

Shape = tuple[int, ...]
LabelRule = Callable[[ir.Node, "Labels"], None]
Rederive = Callable[[ir.Model, ir.Node, "Labels", "NDArray[np.bool_]"], None]

Form = Literal["", "same", "reshaped", "permuted", "repeated", "tiled", "cast"]
"""What an output is of the first input: the same values, in another shape, order or type; those ``repeated`` along axes
of length one, or ``tiled`` along any."""

Join = Literal["", "sum", "product", "other", "concat"]
"""How branches are joined; operands of the first three may be dropped where they have become equal."""

KernelClass = Literal[
    "elementwise", "conv", "conv_transpose", "gemm", "matmul", "pooling", "layout", "slicing", "selecting",
    "conversion", "free",
]  # fmt: skip
"""What kind of kernel a runtime has for an op; ``free`` ones only rename bytes, ``conversion`` is part of others."""


class Macs(NamedTuple):
    """Multiply-accumulates: elements of value `positions`, times those of `weight` over its `axis`.

    With `weight` empty: times the length of the axis `(value, axis)` that is summed over.
    """

    positions: str
    weight: str
    axis: tuple[str, int]


class Like(NamedTuple):
    """The standard operator whose output has the same shape, which of the inputs it takes, and which attributes."""

    name: str
    inputs: tuple[int, ...]
    attributes: tuple[str, ...] = ()
    gives_float: bool = False


def _conv_axes(node: ir.Node, index: int) -> tuple[int, int]:
    """Return the axes of a weight ``(outputs, inputs, ...)``."""
    return 0, 1


def _never(node: ir.Node, index: int) -> bool:
    return False


@dataclass(frozen=True)
class Weight:
    """Where a weighted op has its weight, and how that is laid out; functions get a node and the input's index.

    `inputs`: which inputs may be the weight, the first constant one counts; the activation is input 0, or 1 for a
    weight at 0. `axes`: the output and input axis of the weight. `out_per_group`: the output axis holds the channels of
    one group. `channels_last`: channels lie along the last axis of the activation, not along axis 1. `takes_any_width`:
    whether the weight can be refitted to another number of input channels.
    """

    inputs: tuple[int, ...] = (1,)
    axes: Callable[[ir.Node, int], tuple[int, int]] = _conv_axes
    out_per_group: bool = False
    channels_last: bool = False
    takes_any_width: Callable[[ir.Node, int], bool] = _never


@dataclass(frozen=True)
class Op:
    """One operator. What isn't given is not so: a row with a name alone is an op that nothing is known of.

    Channels and removal
        `labels`: rule by which channel labels pass; without one, what reaches the op stays as it is.
        `labels_constants`: the rule also says which channel each element of a constant belongs to.
        `rederive`: gives a node's constants that speak of shapes anew when channels are dropped.
        `weight`: of a weighted op. `activation`, `norm`: may end a layer. `join`: joins branches.
        `passes_width`: tells whether a node gives whatever width it is given, called with node and width.
        `takes_part`: an output may hold part of the channels of its input.
        `homogeneous`: operands multiplied by one positive factor, channel by channel, give outputs multiplied by it.
    Values
        `broadcasts`: elementwise, operands are repeated along axes of length one.
        `arithmetic`: + - * /, by which a constant of one value per channel is a bias or a scale.
        `form`: what the output is of the first input. `of_shape`: follows from the shape of the input alone.
        `pool`: ``window`` or ``global``. `per_image`: never mixes images unless its inputs are mixed already.
        `selects`: picks by comparing values, so that what stands at one index may be anything.
        `compares`: tells how two values compare, which rounding may turn over.
        `random`: two runs may differ. `unbounded`: sizes of inputs and outputs don't bound its work.
    Shapes
        `shapes`: for an op that ONNX doesn't have: the shapes of outputs from the node and those of its inputs.
        `like`: a standard op of the same output shape.
    Costs
        `macs`: the multiply-accumulates of a node, None where it has none. `uncounted`: multiplies, and nothing here
        counts that. `kernel_weight`: input that holds the kernel of a convolution. `quantized`: of quantized networks.
        `integer`: is calculated in 8-bit integers, a float op where it stands between DequantizeLinear and
        QuantizeLinear (as in ONNX Runtime on a CPU).
        `weights`: which inputs count as params (default: all floats before `settings_from`).
        `integer_sums`: gives sums of quantized products, which a runtime rescales within the same kernel.
        `kernel`: class of kernel. `fuses`: is calculated inside the kernel before it, as an activation, as a gate (x
        times sigmoid(x) is one kernel) or as a norm. `absorbs`: what fuses is calculated inside its kernel.
    Training
        `trained`: inputs that training may change. `statistics`: inputs that follow the data, as in BatchNorm.
        `differentiable`: has a torch function, through which gradients pass (see `passes_gradients`).
        `straight_through`: one of a pair that rounds to a grid, whose scale, input 1, training may change.
        `torch`: ``package.module:function`` of the builder of its torch function, for an op from outside.
    """

    name: str
    domain: str = ""
    labels: LabelRule | None = None
    labels_constants: bool = False
    rederive: Rederive | None = None
    weight: Weight | None = None
    activation: bool = False
    norm: bool = False
    join: Join = ""
    passes_width: Callable[[ir.Node, int], bool] | None = None
    takes_part: bool = False
    homogeneous: bool = False
    broadcasts: bool = False
    arithmetic: bool = False
    form: Form = ""
    of_shape: bool = False
    pool: Literal["", "window", "global"] = ""
    per_image: bool = False
    selects: bool = False
    compares: bool = False
    random: bool = False
    unbounded: bool = False
    shapes: Callable[[ir.Node, Sequence[Shape | None]], Sequence[Shape]] | None = None
    like: Like | None = None
    macs: Callable[[ir.Node], Macs | None] | None = None
    uncounted: bool = False
    kernel_weight: int | None = None
    quantized: bool = False
    integer: bool = False
    weights: tuple[int, ...] | None = None
    settings_from: int = 99
    integer_sums: bool = False
    kernel: KernelClass = "elementwise"
    fuses: Literal["", "activation", "gate", "norm"] = ""
    absorbs: bool = False
    trained: tuple[int, ...] = ()
    statistics: tuple[int, ...] = ()
    differentiable: bool = True
    straight_through: bool = False
    torch: str = ""

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution that has a weight."""
        return self.weight is not None and self.kernel in ("conv", "conv_transpose")

    @property
    def passes_gradients(self) -> bool:
        """Whether training goes through it: it has a torch function, and its outputs follow its inputs."""
        if self.quantized:
            return self.straight_through
        return self.differentiable and (self.domain in STANDARD_DOMAINS or bool(self.torch))

    @property
    def is_blind_to_content(self) -> bool:
        """Whether the shapes of its outputs follow from those of its inputs, whatever these hold."""
        return self.activation or self.norm or self.broadcasts or self.weight is not None

    @property
    def is_from_outside(self) -> bool:
        """Whether its shapes are told by its row alone: ONNX Runtime needn't have it."""
        told = self.shapes is not None or self.like is not None
        return told and self.domain not in (*STANDARD_DOMAINS, MICROSOFT)

    @property
    def keeps_channels(self) -> bool:
        """Whether its output has the channels of its first input, for feature maps that are compared."""
        same = self.form == "same" or self.straight_through
        return self.activation or self.norm or bool(self.pool) or same or self.join == "product"


_ROWS: dict[tuple[str, str], Op] = {}
_MOST_NODES = 1024
_BY_NODE: dict[tuple[str, str], Op] = {}
"""Rows that nodes were asked for, by domain and operator as they write them; graphs ask many times for each node."""


def register_op(*ops: Op) -> None:
    """Add rows to the table of ops; each replaces that of the same domain and name."""
    for op in ops:
        _ROWS[_key(op.domain, op.name)] = op
    _BY_NODE.clear()


def op_of(node: ir.Node) -> Op:
    """Return the row of a node's operator, an empty one where there is none.

    Raises:
        UnsuitableEnvironmentError: an installed package's entry point of ops fails.
    """
    row = _BY_NODE.get((node.domain, node.op_type))
    if row is None:
        _load()
        key = _key(node.domain, node.op_type)
        row = _ROWS.get(key) or _empty(*key)
        if len(_BY_NODE) < _MOST_NODES:
            _BY_NODE[node.domain, node.op_type] = row
    return row


def counted_op(name: str, domain: str = "") -> Op:
    """Return the row by which an operator's costs are counted: its own, or that of its name in a usual domain.

    ONNX Runtime writes convolutions of domains of its own into files that it has optimised.

    >>> n2n_edge.counted_op("Relu").name
    'Relu'
    """
    _load()
    key = _key(domain, name)
    return _ROWS.get(key) or _ROWS.get(("", name)) or _ROWS.get((MICROSOFT, name)) or _empty(*key)


def op_key(domain: str, name: str) -> str:
    """Return how an operator is called in tables and messages: ``Conv``, or ``domain:Name``."""
    return name if domain in STANDARD_DOMAINS else f"{domain}:{name}"


def _key(domain: str, name: str) -> tuple[str, str]:
    return ("" if domain == "ai.onnx" else domain, name)


@lru_cache(maxsize=1024)
def _empty(domain: str, name: str) -> Op:
    return Op(name, domain, differentiable=False)


@cache
def _load() -> None:
    """Add, once, the rows of this package and those of installed ones; what was registered before stays."""
    from n2n_edge.graph.ops import STANDARD_OPS  # its rules read this registry

    rows: list[Op] = []
    for entry in entry_points(group=ENTRY_POINTS):
        what = f"entry point '{printable(entry.name)}' of {ENTRY_POINTS} ({printable(entry.value)})"
        try:
            with foreign_code(what):
                found = entry.load()
                given = [found] if isinstance(found, Op) else list(found)
        except InputError as error:  # whatever file is looked at, it isn't to blame
            raise UnsuitableEnvironmentError(error.text) from error
        if not all(isinstance(op, Op) for op in given):
            raise UnsuitableEnvironmentError(
                f"{what} gives something else than n2n_edge.graph.Op; let it name a row or a list of them"
            )
        rows += given
    for op in (*rows, *STANDARD_OPS):
        _ROWS.setdefault(_key(op.domain, op.name), op)
