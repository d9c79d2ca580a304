"""Factors by which channels can be multiplied without changing what a float graph computes.

A channel between two linear operators may be multiplied by any positive factor if the first one's weights are, too, and
the second one's are divided by it, and if whatever lies between is positively homogeneous, f(s x) = s f(x). Which
channels share a factor is worked out as channel groups are: labels spread through the graph, by the same rules where
data are but moved, and are tied where they are added. Unlike widths, factors needn't pass a depthwise convolution or a
norm: they multiply each channel by a figure of its own.

A gate, x times Sigmoid(x), isn't homogeneous. Where asked to, factors pass it all the same: what goes into the Sigmoid
is divided by them again, by one more operator (`gates.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.bind import bound_names
from n2n_edge.graph.labels import NO_LABEL, DimKey, LabelArray, Labels
from n2n_edge.graph.op import Op, op_of
from n2n_edge.graph.operands import fixed_source, is_fixed, opset_of, values_read
from n2n_edge.graph.rules_elementwise import elementwise, passing
from n2n_edge.graph.shapes import Shape, is_constant, shapes_of

__all__ = ["Floats", "Gate", "Scalable", "WeightPlan", "multiplied", "multiply", "scalable", "weight_plan"]

Floats = NDArray[np.float64]

_NORM_INPUTS, _MATRIX = 5, 2


@dataclass(frozen=True)
class Gate:
    """A value that is multiplied by its own Sigmoid, as in a swish: `product` is ``source * sigmoid(source)``."""

    source: ir.Value
    sigmoid: ir.Node
    product: ir.Node


@dataclass(frozen=True)
class Scalable:
    """Which channels of a graph share a factor, and the constants that factors are put into.

    Labels are numbers of factors; 0 and those that aren't `free` stand for a factor of one. `values` are the labels of
    values, ``(1, C, 1, 1)`` for instance. `multiplied` and `divided` are those along axes of constants, two-dimensional
    where each block of axis 0 (each group of a convolution) has its own. `gates` are those that factors pass, by the
    name of their product.
    """

    values: Mapping[str, LabelArray]
    multiplied: Mapping[DimKey, LabelArray]
    divided: Mapping[DimKey, LabelArray]
    free: NDArray[np.bool_]
    shapes: Mapping[str, Shape]
    gates: Mapping[str, Gate] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """The constants that a free factor is put into."""
        rows = (*self.multiplied.items(), *self.divided.items())
        return frozenset(name for (name, _), row in rows if self.free[row].any())

    def is_free(self, value: ir.Value) -> bool:
        """Tell whether a channel of `value` can be multiplied."""
        row = self.values.get(str(value.name))
        return row is not None and bool(self.free[row].any())

    def channel_axis(self, value: ir.Value) -> int | None:
        """Return the one axis along which the factors of `value` vary; None where there isn't one."""
        row = self.values.get(str(value.name))
        varying = [] if row is None else [axis for axis, size in enumerate(row.shape) if size > 1]
        return varying[0] if len(varying) == 1 else None

    @property
    def any(self) -> bool:
        """Whether there is a channel that can be multiplied at all."""
        return bool(self.free.any())


def scalable(model: ir.Model, gates: Mapping[str, Gate] | None = None) -> Scalable:
    """Return what of `model`, a float graph whose constants are initializers, can be multiplied.

    Factors pass the `gates` given (see `find_gates`), which `multiply` leaves to the caller to divide.
    """
    finder = _Finder(model, gates or {})
    for node in model.graph:
        if any(not is_fixed(value) for value in values_read(node)):
            finder.visit(node)
    return finder.result()


def multiply(model: ir.Model, parts: Scalable, factors: Floats) -> None:
    """Multiply the channels of `model` by positive `factors`, one for each label, in its constants."""
    factors = np.where(parts.free, factors, 1.0)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None and name in parts.names:
            old = value.const_value.numpy()
            new = multiplied(old.astype(np.float64), name, parts, factors)
            value.const_value = ir.Tensor(np.ascontiguousarray(new.astype(old.dtype)), name=name)


def multiplied(array: Floats, name: str, parts: Scalable, factors: Floats) -> Floats:
    """Return the constant called `name`, which holds `array`, as factors leave it."""
    for table, sign in ((parts.multiplied, 1), (parts.divided, -1)):
        for axis in range(array.ndim):
            row = table.get((name, axis))
            if row is not None:
                array = array * _along(factors[row] ** sign, axis, array.shape)
    return array


def _along(row: Floats, axis: int, shape: tuple[int, ...]) -> Floats:
    """Return figures along `axis` of an array of this shape, one row or one for each block of axis 0, to broadcast."""
    if row.ndim == 1:
        return row.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    each = np.repeat(row, shape[0] // len(row), axis=0)
    return each.reshape([shape[0], *(-1 if i == axis else 1 for i in range(1, len(shape)))])


class _Finder:
    """Spreads labels node by node."""

    def __init__(self, model: ir.Model, gates: Mapping[str, Gate]) -> None:
        self.model = model
        self.gates = gates
        self._opened = {id(gate.sigmoid) for gate in gates.values()}
        self._joined = {id(gate.product): gate for gate in gates.values()}
        self.labels = Labels()
        self.labels.shapes = shapes_of(model)
        self.outputs: dict[DimKey, LabelArray] = {}
        self.inputs: dict[DimKey, LabelArray] = {}
        self.roles: dict[str, set[str]] = {}
        self.pinned = set(bound_names(model))

    def visit(self, node: ir.Node) -> None:
        row = op_of(node)
        gate = self._joined.get(id(node))
        if id(node) in self._opened:
            return
        if gate is not None:
            self.labels.set(node.outputs[0], self.labels.of(gate.source))
        elif row.weight is not None:
            self._linear(node)
        elif node.op_type == "BatchNormalization":
            self._norm(node)
        elif row.arithmetic and node.op_type in ("Mul", "Div"):
            self._product(node)
        elif _is_relu(node) or (row.homogeneous and row.activation):
            self._stop(node.inputs[1:])
            passing(node, self.labels)
        elif row.homogeneous and row.labels is not None:
            self._homogeneous(node, row)
        else:
            self._stop(values_read(node))

    def result(self) -> Scalable:
        for value in self.model.graph.outputs:
            self.labels.freeze(self.labels.of(value), "a graph output")
        constants = dict(self.labels.dims)
        given = {key: row for key, row in {**constants, **self.outputs}.items() if key[0] in self._names}
        for (name, _), row in (*given.items(), *self.inputs.items()):
            if name in self.pinned or len(self.roles.get(name, ())) > 1:
                self.labels.freeze(row, "a constant that is read otherwise, too")
        frozen = self.labels.frozen()
        find = self.labels.find
        free = np.zeros(self.labels.count, bool)
        for row in given.values():
            free[find(np.array(row)).ravel()] = True
        free[[NO_LABEL, *frozen]] = False
        return Scalable(
            {name: find(np.array(row)) for name, row in self.labels.values.items()},
            {key: find(np.array(row)) for key, row in given.items()},
            {key: find(np.array(row)) for key, row in self.inputs.items()},
            free,
            self.labels.shapes,
            self.gates,
        )

    @property
    def _names(self) -> Mapping[str, ir.Value]:
        return self.model.graph.initializers

    def _stop(self, values: Sequence[ir.Value | None]) -> None:
        """Leave what an operator reads as it is: factors don't pass."""
        for value in values:
            if value is None:
                continue
            if is_fixed(value):
                self._pin(value)
            elif str(value.name) in self.labels.shapes:
                self.labels.freeze(self.labels.of(value), "an operator that isn't homogeneous")

    def _pin(self, value: ir.Value) -> None:
        held: ir.Value | None = value
        while held is not None:
            self.pinned.add(str(held.name))
            held = fixed_source(held)

    def _role(self, value: ir.Value, role: str) -> None:
        """Note in what role a constant is read; with several it stays as it is."""
        held: ir.Value | None = value
        while held is not None:
            self.roles.setdefault(str(held.name), set()).add(role)
            held = fixed_source(held)

    def _tied(self, rows: dict[DimKey, LabelArray], key: DimKey, row: LabelArray) -> LabelArray:
        if key in rows:
            self.labels.tie(rows[key], row, "a weight that is read in different ways")
        return rows.setdefault(key, row)

    def _fresh(self, value: ir.Value, count: int) -> LabelArray:
        """Return labels of their own for what a weight gives."""
        return self.labels.fresh((f"outputs:{value.name}", 0), count)

    def _linear(self, node: ir.Node) -> None:
        """A constant weight: divided by what comes in, multiplied by what goes out."""
        plan = weight_plan(node, self.labels.shapes)
        if plan is None:
            self._stop(values_read(node))
            return
        source, weight = node.inputs[0], node.inputs[1]
        assert source is not None
        assert weight is not None
        name, shape = str(weight.name), self.labels.shape(weight)
        groups = node.attributes.get_int("group", 1) or 1
        self._role(weight, f"{node.op_type} {groups}")
        if self.labels.varying(source, beside=[plan.channels]):
            self._stop([source])
            incoming = np.zeros(self.labels.shape(source)[plan.channels], np.int64)
        else:
            incoming = np.array(self.labels.row(source, plan.channels))
        blocks = groups if groups > 1 and plan.into != 0 else 1
        self._tied(self.inputs, (name, plan.into), incoming.reshape(blocks, -1) if blocks > 1 else incoming)
        apart = groups if groups > 1 and plan.out != 0 else 1
        outgoing = self._fresh(weight, shape[plan.out] * apart)
        self._tied(self.outputs, (name, plan.out), outgoing.reshape(apart, -1) if apart > 1 else outgoing)
        rank = len(self.labels.shape(node.outputs[0]))
        self.labels.set(
            node.outputs[0], outgoing.reshape([-1 if i == plan.channels % rank else 1 for i in range(rank)])
        )
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and not self._vector(bias, outgoing):
            self.labels.freeze(outgoing, "a bias that can't be multiplied")
            self._stop([bias])

    def _vector(self, value: ir.Value, row: LabelArray) -> bool:
        """Multiply a constant of one figure per channel; tell whether it is one."""
        if not is_constant(value) or self.labels.shape(value)[-1:] != (len(row),):
            return False
        self._role(value, "value")
        self.labels.assign((str(value.name), len(self.labels.shape(value)) - 1), row)
        return True

    def _norm(self, node: ir.Node) -> None:
        """BatchNormalization, a linear operator channel by channel: its mean follows the input, its scale both."""
        source, scale, shift, mean, variance = node.inputs[:_NORM_INPUTS]
        constant = all(value is not None and is_constant(value) for value in (scale, shift, mean, variance))
        assert source is not None
        if not constant or self.labels.varying(source, beside=[1]):
            self._stop(values_read(node))
            return
        assert scale is not None
        assert shift is not None
        assert mean is not None
        incoming = np.array(self.labels.row(source, 1))
        outgoing = self._fresh(scale, len(incoming))
        self._role(scale, "scale")
        self._tied(self.inputs, (str(scale.name), 0), incoming)
        self._tied(self.outputs, (str(scale.name), 0), outgoing)
        self._vector(mean, incoming)
        self._vector(shift, outgoing)
        self._stop([variance])
        rank = len(self.labels.shape(node.outputs[0]))
        self.labels.set(node.outputs[0], outgoing.reshape([-1 if i == 1 else 1 for i in range(rank)]))

    def _product(self, node: ir.Node) -> None:
        """Mul and Div: the factor of one operand, the largest (the dividend), passes; the others have none."""
        computed = [value for value in node.inputs if value is not None and not is_fixed(value)]
        carrier = node.inputs[0] if node.op_type == "Div" else max(computed, key=self._size)
        others = [value for value in node.inputs if value is not carrier]
        twice = len({str(value.name) for value in computed}) < len(computed)
        if carrier is None or twice or is_fixed(carrier):
            self._stop(values_read(node))
            return
        self._stop(others)
        array = self.labels.of(carrier)
        rank = len(self.labels.shape(node.outputs[0]))
        self.labels.set(node.outputs[0], array.reshape((1,) * (rank - array.ndim) + array.shape))

    def _size(self, value: ir.Value) -> tuple[int, bool]:
        """Order operands by their size; of equal ones, that which can be multiplied counts more."""
        return int(np.prod(self.labels.shape(value))), not self.labels.all_frozen(self.labels.of(value))

    def _homogeneous(self, node: ir.Node, row: Op) -> None:
        source = node.inputs[0]
        assert source is not None
        if row.labels is elementwise:
            self._sum(node)
            return
        if op_of(node).name in ("Pad", "Resize", "Upsample") and not _fills_with_zeros(node):
            self._stop(values_read(node))
            return
        before = self.labels.of(source)
        assert row.labels is not None
        for value in node.inputs:
            if value is not None and is_fixed(value):
                self._role(value, "value")
        row.labels(node, self.labels)
        if before.any() and not any(self.labels.of(value).any() for value in node.outputs if value.name):
            self.labels.freeze(before, "an operator that mixes channels")

    def _sum(self, node: ir.Node) -> None:
        """Sums, largest and smallest: what meets has one factor, constants of one figure per channel follow."""
        elementwise(node, self.labels)
        merged = self.labels.of(node.outputs[0])
        for value in node.inputs:
            if value is None:
                continue
            if is_fixed(value):
                self._role(value, "value")
                shape = self.labels.shape(value)
                lifted = (1,) * (merged.ndim - len(shape)) + tuple(shape)
                varies = all(size == 1 or lifted[axis] == size for axis, size in enumerate(merged.shape))
                # one that broadcasts along channels can't follow; the rule has given labels to the others
                without = merged if not varies or merged.size == 1 else merged[:0]
                without = merged[:0] if _is_zero(value) else without
            else:
                array = self.labels.of(value)
                array = array.reshape((1,) * (merged.ndim - array.ndim) + array.shape)
                full = np.broadcast_shapes(array.shape, merged.shape)
                without = np.broadcast_to(merged, full)[np.broadcast_to(array, full) == NO_LABEL]
            self.labels.freeze(without, "something that has no factor")


@dataclass(frozen=True)
class WeightPlan:
    """The axes of a weight that stand for what comes in and goes out, and the channel axis of the activations."""

    into: int
    out: int
    channels: int


def weight_plan(node: ir.Node, shapes: Mapping[str, Shape]) -> WeightPlan | None:
    """Return how input 1 of a weighted op is laid out; None where that isn't a constant that acts on channels."""
    row = op_of(node)
    source, weight = (*node.inputs, None, None)[:2]
    if (
        row.weight is None
        or source is None
        or weight is None
        or is_fixed(source)
        or not is_constant(weight)
        or node.op_type not in _PLANNED
    ):
        return None
    rank = len(shapes[str(weight.name)])
    if row.convolves:
        out, into = row.weight.axes(node, 1)
        return WeightPlan(into, out, 1)
    if rank != _MATRIX or node.attributes.get_int("transA", 0) == 1:
        return None
    out, into = (int(axis) % int(rank) for axis in row.weight.axes(node, 1))
    return WeightPlan(into, out, len(shapes[str(source.name)]) - 1)


_UNBOUNDED = float(np.finfo(np.float32).max) / 2
"""What a Clip of an old opset has as its upper bound where it has none."""

_PLANNED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def _is_relu(node: ir.Node) -> bool:
    """Tell whether a Clip is a Relu: it cuts off below zero alone."""
    if node.op_type != "Clip":
        return False
    if opset_of(node) < 11:
        top = node.attributes.get_float("max", np.inf)
        return node.attributes.get_float("min", -np.inf) == 0 and bool(top is None or top > _UNBOUNDED)
    low, high = (node.inputs[i] if i < len(node.inputs) else None for i in (1, 2))
    return low is not None and is_constant(low) and _is_zero(low) and high is None


def _is_zero(value: ir.Value) -> bool:
    return value.const_value is not None and not value.const_value.numpy().any()


def _fills_with_zeros(node: ir.Node) -> bool:
    """Tell whether a Pad or Resize gives no figure of its own but zero."""
    if node.op_type == "Pad":
        given = node.inputs[2] if len(node.inputs) > 2 else None
        plain = given is None or _is_zero(given)
        return plain and not node.attributes.get_float("value", 0.0)
    outside = node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    return not outside or not node.attributes.get_float("extrapolation_value", 0.0)
