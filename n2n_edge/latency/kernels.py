"""The kernels that a runtime makes of a graph, and the amounts that decide how long each one takes.

A runtime folds a norm or an activation into the operator before it, and operators that only rename the same bytes cost
nothing; what is left are *kernels*. Each has a class, and its time is taken to be a sum of *terms*:
multiply-accumulates of its class, bytes that it moves, its launch. A device's *rates* say how many nanoseconds one unit
of each term takes.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.devices.terms import COMPUTE_CLASSES, TERMS, Rates
from n2n_edge.graph.costs import Amounts, NodeSpec, counted
from n2n_edge.graph.op import Op
from n2n_edge.metrics.precisions import BYTES, Precision

__all__ = ["Kernels", "Placement", "kernels_of"]

Floats = NDArray[np.float64]
Placement = Literal["kernel", "fused", "free"]

_MULTIPLYING = ("conv", "conv_transpose", "gemm", "matmul")

_QUANTITIES = ("macs", "idle", "unpacked", "reduction", "moved", "spilled", "weights", "launch")
_IMAGE_CHANNELS = 4
"""Up to so many input channels kernels are made for images, and don't fill them up."""

_CACHED_BYTES = 1e6
"""So much of a kernel's output its reader finds in a cache, roughly, on any board."""

_LANES = 4
"""Runtimes for Arm keep so many channels side by side; of other numbers they compute one channel at a time."""

_BLOCKED = frozenset({"conv_1x1", "conv_3x3", "conv_3x3_strided", "conv_large"})


class Kernels:
    """The kernels of one graph, whatever its widths: `classes` per node, "fused" and "free" for those that are none.

    `amounts` given, all nodes' times follow from a device's rates in one matrix product, for N candidates at once.
    `block` is how many channels the device's kernels compute at once: a convolution of fewer costs as much. Bytes of
    kernels that calculate in another precision than fp32 count as those of as many float32 numbers, as rates do.
    """

    def __init__(self, nodes: Sequence[NodeSpec], graph_outputs: Collection[str] = (), block: int = 1) -> None:
        self.nodes = tuple(nodes)
        self._block = block
        placements = _placements(self.nodes, graph_outputs)
        self.placements: tuple[Placement, ...] = tuple(placements)
        self.classes = tuple(
            _kernel_class(node) if placement == "kernel" else placement
            for node, placement in zip(self.nodes, placements, strict=True)
        )
        areas = [float(np.prod(node.kernel)) if node.kernel else 1.0 for node in self.nodes]
        self._area = np.array(areas).reshape(-1, 1)
        widening = [BYTES["fp32"] / BYTES[node.precision] for node in self.nodes]
        self._widening = np.array(widening).reshape(-1, 1)
        sums = [1.0 if _gives_sums(node.op) else each for node, each in zip(self.nodes, widening, strict=True)]
        self._output_widening = np.array(sums).reshape(-1, 1)

    @cached_property
    def _weights(self) -> Floats:
        """How much of each quantity of each node counts for each term: (terms, quantities, nodes)."""
        table = np.zeros((len(TERMS), len(_QUANTITIES), len(self.nodes)))

        def count(term: str, quantity: str, node: int) -> None:
            table[TERMS.index(term), _QUANTITIES.index(quantity), node] = 1.0

        for node, kernel in enumerate(self.classes):
            if kernel in ("free", "fused"):
                continue
            computes = kernel in COMPUTE_CLASSES
            count("byte_spilled", "spilled", node)
            count("launch_compute" if computes else f"launch_{kernel}", "launch", node)
            if not computes:
                count(f"byte_{kernel}", "moved", node)
                continue
            count(f"mac_{kernel}", "macs", node)
            count("byte_weights", "weights", node)
            count("byte_depthwise" if kernel in ("depthwise", "grouped") else "byte_dense", "moved", node)
            count("reduction", "reduction", node)
            if kernel in _BLOCKED:
                count("mac_idle", "idle", node)
            if kernel in _BLOCKED or kernel == "grouped":
                count("mac_unpacked", "unpacked", node)
        return table

    def terms(self, amounts: Amounts) -> Floats:
        """Return how much of each term the whole graph has: `(terms, N)`."""
        total: Floats = np.einsum("tqn,qnc->tc", self._weights, self._quantities(amounts))
        return total

    def node_ns(
        self, amounts: Amounts, rates: Rates, others: Mapping[Precision, Rates] = MappingProxyType({})
    ) -> Floats:
        """Return nanoseconds of every node, nought for what is no kernel: `(nodes, N)`.

        `others` are the rates of nodes in other precisions, where they aren't `rates`.
        """
        vectors = {precision: _vector(others.get(precision, rates)) for precision in BYTES}
        of_nodes = np.array([vectors[node.precision] for node in self.nodes]).reshape(-1, len(TERMS))
        per_quantity = np.einsum("nt,tqn->qn", of_nodes, self._weights)
        times: Floats = np.einsum("qn,qnc->nc", per_quantity, self._quantities(amounts))
        return times

    def total_ns(self, amounts: Amounts, rates: Rates) -> Floats:
        """Return nanoseconds of the whole graph, all kernels at one precision's rates: `(N,)`."""
        total: Floats = self.node_ns(amounts, rates).sum(axis=0)
        return total

    def _quantities(self, amounts: Amounts) -> Floats:
        macs, reduction = amounts.node_macs, amounts.node_reduction
        inputs = np.maximum(reduction / self._area, 1.0)
        outputs = np.maximum(amounts.node_channels, 1.0)
        filled = _filled(outputs, self._block) * np.where(inputs > _IMAGE_CHANNELS, _filled(inputs, self._block), 1.0)
        unpacked = (outputs % _LANES != 0) | ((inputs > _IMAGE_CHANNELS) & (inputs % _LANES != 0))
        written = amounts.node_output_bytes * self._output_widening
        return np.stack(
            [
                macs,
                macs * (filled - 1.0),
                macs * unpacked,
                reduction,
                amounts.node_input_bytes * self._widening + written,
                np.maximum(written - _CACHED_BYTES, 0.0),
                amounts.node_weight_bytes * self._widening,
                np.ones_like(macs),
            ]
        )


def kernels_of(model: ir.Model, block: int = 1) -> tuple[Kernels, Amounts]:
    """Return a model's kernels on a device that computes `block` channels at once, and its amounts (N = 1)."""
    found = counted(model)
    return Kernels(found.nodes, [str(value.name) for value in model.graph.outputs], block), found.amounts


def _filled(channels: Floats, block: int) -> Floats:
    """Return by what factor channels grow when they are filled up to whole blocks."""
    filled: Floats = np.ceil(channels / block) * block / channels
    return filled


def _vector(rates: Rates) -> Floats:
    return np.array([rates.get(term, 0.0) for term in TERMS])


def _kernel_class(node: NodeSpec) -> str:
    """Return the class of a kernel: one of `COMPUTE_CLASSES`, or of `BYTE_CLASSES` for what does not multiply."""
    row = node.op
    match row.kernel:
        case "conv" | "conv_transpose":
            return _convolution_class(node, plain=row.kernel == "conv")
        case "matmul":
            return "matmul" if len(node.inputs) > 1 else "gemm"
        case "gemm" | "pooling" | "layout" | "slicing" | "selecting":
            return row.kernel
        case _:
            return "residual" if row.join == "sum" and len(node.inputs) > 1 else "elementwise"


def _convolution_class(node: NodeSpec, *, plain: bool) -> str:
    if node.depthwise:
        return "depthwise"
    if node.groups > 1:
        return "grouped"
    if plain and set(node.kernel) == {1}:
        return "conv_1x1"
    if plain and set(node.kernel) == {3}:
        return "conv_3x3" if set(node.stride) <= {1} else "conv_3x3_strided"
    return "conv_large"


def _placements(nodes: Sequence[NodeSpec], graph_outputs: Collection[str]) -> list[Placement]:
    """Tell of each node whether it is a kernel of its own.

    A norm or activation is computed inside the operator before it: Conv, norm, activation, and Add, activation, as long
    as nobody else reads the value between them. What doesn't depend on the data, such as shape arithmetic, is worked
    out when the model is loaded. Conversions between kernels that calculate in integers are part of these; others read
    and write all that they convert.
    """
    readers = Counter(name for node in nodes for name in node.inputs)
    readers.update(graph_outputs)
    products = {tuple(node.inputs) for node in nodes if node.op.join == "product"}
    products |= {pair[::-1] for pair in products}
    open_to: dict[str, Op] = {}  # value -> first operator of the kernel that could still take in its only reader
    settled: set[str] = set()  # values that don't depend on the data
    found: list[Placement] = []
    for node in nodes:
        row = node.op
        kernel = next((open_to[name] for name in node.inputs if name in open_to and readers[name] == 1), None)
        placement: Placement = "kernel"
        if settled.issuperset(node.inputs):
            placement = "free"
            settled.update(node.outputs)
        elif row.kernel == "conversion":
            placement = "fused" if node.precision == "int8" else "kernel"
            settled.update(node.outputs[1:])  # the scale and zero point that it finds
        elif row.kernel == "free":
            placement = "free"
            if row.of_shape:
                settled.update(node.outputs)
        elif kernel is not None and _fuses(kernel, node, alone=len(set(node.inputs) - settled) == 1):
            placement = "fused"
        if placement == "kernel" and row.fuses == "gate" and (node.inputs[0], node.outputs[0]) in products:
            placement = "fused"  # x times sigmoid(x) is one kernel, counted where the product is
        following = _kernel_after(kernel if placement == "fused" else None, row)
        if following is not None and node.outputs:
            open_to[node.outputs[0]] = following
        found.append(placement)
    return found


def _fuses(kernel: Op, node: NodeSpec, *, alone: bool) -> bool:
    """Tell whether `node` is calculated within `kernel`; `alone` says that it reads one value of the data."""
    row = node.op
    if row.integer and node.precision == "int8":  # only what QuantizeLinear does by itself goes
        return False
    if kernel.integer_sums and _rescales(row):
        return alone
    return row.fuses in ("activation", "gate") or (row.fuses == "norm" and kernel.kernel in _MULTIPLYING)


def _gives_sums(row: Op) -> bool:
    """Tell whether an operator on integers gives numbers of four bytes, as sums or as floats."""
    return row.integer_sums or (row.like is not None and row.like.gives_float)


def _rescales(row: Op) -> bool:
    """Tell whether an operator makes floats of sums of quantized products, within the same kernel."""
    return row.form == "cast" or row.join in ("sum", "product")


def _kernel_after(kernel: Op | None, row: Op) -> Op | None:
    """Return the operator that decides what else may join the kernel after this one; None where it is closed."""
    if row.kernel == "conversion":
        return None
    if kernel is not None and kernel.integer_sums and _rescales(row):
        return kernel
    if row.kernel in _MULTIPLYING or row.absorbs:
        return kernel if kernel is not None else row
    return None
