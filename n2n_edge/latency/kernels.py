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
from n2n_edge.graph.costs import Amounts, Place, node_amounts

__all__ = ["Kernels", "Placement", "kernels_of"]

Floats = NDArray[np.float64]
Placement = Literal["kernel", "fused", "free"]

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv"})
_FLOAT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "ConvInteger": "Conv", "DynamicQuantizeMatMul": "MatMul", "FusedGemm": "Gemm", "FusedMatMul": "MatMul",
        "MatMulInteger": "MatMul", "MatMulIntegerToFloat": "MatMul", "MatMulNBits": "MatMul", "QGemm": "Gemm",
    }
)  # fmt: skip
"""What quantized and fused operators calculate; ``QLinearConv`` and its kin say it by their names."""

_SUMS = frozenset({"ConvInteger", "MatMulInteger"})
_RESCALING = frozenset({"Add", "Cast", "Mul"})
"""What makes floats of sums of quantized products, within the same kernel."""

NORMS = frozenset({"BatchNormalization"})
ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "Tanh", "PRelu"})
GATES = frozenset({"Sigmoid", "HardSigmoid"})
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
"""Operators that a runtime for quantized models computes inside their neighbours."""

UNCOUNTED = frozenset({"Attention", "DeformConv", "Einsum", "GRU", "LSTM", "RNN"})
"""Operators that multiply, and whose multiplications `graph/costs.py` does not count."""

FREE = frozenset({"Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})
"""Operators that only rename the same bytes."""

POOLING = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceSum"}
)
LAYOUT = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Pad", "Resize", "SpaceToDepth", "Tile", "Transpose", "Upsample"}
)
SLICING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split"})
SELECTING = frozenset({"DetectionOutput", "NonMaxSuppression", "NonZero", "TopK"})
"""Operators that pick from the results; some runtimes do this on the CPU whatever the rest runs on."""

_QUANTITIES = ("macs", "idle", "reduction", "moved", "weights", "launch")
_IMAGE_CHANNELS = 4
"""Up to so many input channels kernels are made for images, and don't fill them up."""

_BLOCKED = frozenset({"conv_1x1", "conv_3x3", "conv_3x3_strided", "conv_large"})


class Kernels:
    """The kernels of one graph, whatever its widths: `classes` per node, "fused" and "free" for those that are none.

    `amounts` given, all nodes' times follow from a device's rates in one matrix product, for N candidates at once.
    `block` is how many channels the device's kernels compute at once: a convolution of fewer costs as much.
    """

    def __init__(self, places: Sequence[Place], graph_outputs: Collection[str] = (), block: int = 1) -> None:
        self.places = tuple(places)
        self._block = block
        placements = _placements(self.places, graph_outputs)
        self.placements: tuple[Placement, ...] = tuple(placements)
        self.classes = tuple(
            _kernel_class(place) if placement == "kernel" else placement
            for place, placement in zip(self.places, placements, strict=True)
        )
        areas = [float(np.prod(place.kernel)) if place.kernel else 1.0 for place in self.places]
        self._area = np.array(areas).reshape(-1, 1)

    @cached_property
    def _weights(self) -> Floats:
        """How much of each quantity of each node counts for each term: (terms, quantities, nodes)."""
        table = np.zeros((len(TERMS), len(_QUANTITIES), len(self.places)))

        def count(term: str, quantity: str, node: int) -> None:
            table[TERMS.index(term), _QUANTITIES.index(quantity), node] = 1.0

        for node, kernel in enumerate(self.classes):
            if kernel in ("free", "fused"):
                continue
            computes = kernel in COMPUTE_CLASSES
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
        return table

    def terms(self, amounts: Amounts) -> Floats:
        """Return how much of each term the whole graph has: `(terms, N)`."""
        total: Floats = np.einsum("tqn,qnc->tc", self._weights, self._quantities(amounts))
        return total

    def node_ns(self, amounts: Amounts, rates: Rates) -> Floats:
        """Return nanoseconds of every node, nought for what is no kernel: `(nodes, N)`."""
        per_quantity = np.einsum("t,tqn->qn", _vector(rates), self._weights)
        times: Floats = np.einsum("qn,qnc->nc", per_quantity, self._quantities(amounts))
        return times

    def total_ns(self, amounts: Amounts, rates: Rates) -> Floats:
        """Return nanoseconds of the whole graph: `(N,)`."""
        total: Floats = self.node_ns(amounts, rates).sum(axis=0)
        return total

    def _quantities(self, amounts: Amounts) -> Floats:
        macs, reduction = amounts.node_macs, amounts.node_reduction
        inputs = np.maximum(reduction / self._area, 1.0)
        outputs = np.maximum(amounts.node_channels, 1.0)
        filled = _filled(outputs, self._block) * np.where(inputs > _IMAGE_CHANNELS, _filled(inputs, self._block), 1.0)
        return np.stack(
            [
                macs,
                macs * (filled - 1.0),
                reduction,
                amounts.node_input_bytes + amounts.node_output_bytes,
                amounts.node_weight_bytes,
                np.ones_like(macs),
            ]
        )


def kernels_of(model: ir.Model, block: int = 1) -> tuple[Kernels, Amounts]:
    """Return a model's kernels on a device that computes `block` channels at once, and its amounts (N = 1)."""
    places, amounts = node_amounts(model)
    return Kernels(places, [str(value.name) for value in model.graph.outputs], block), amounts


def _filled(channels: Floats, block: int) -> Floats:
    """Return by what factor channels grow when they are filled up to whole blocks."""
    filled: Floats = np.ceil(channels / block) * block / channels
    return filled


def _vector(rates: Rates) -> Floats:
    return np.array([rates.get(term, 0.0) for term in TERMS])


def _calculates(op_type: str) -> str:
    """Return the float operator that a quantized one stands for; any other by its own name."""
    return _FLOAT_NAMES.get(op_type, op_type.removeprefix("QLinear"))


def _kernel_class(place: Place) -> str:
    """Return the class of a kernel: one of `COMPUTE_CLASSES`, or of `BYTE_CLASSES` for what does not multiply."""
    op_type = _calculates(place.op_type)
    if op_type in WEIGHTED:
        return _compute_class(place, op_type)
    if op_type in POOLING:
        return "pooling"
    for name, op_types in (("layout", LAYOUT), ("slicing", SLICING), ("selecting", SELECTING)):
        if op_type in op_types:
            return name
    return "residual" if op_type in ("Add", "Sum") and len(place.inputs) > 1 else "elementwise"


def _compute_class(place: Place, op_type: str) -> str:
    if op_type == "Gemm":
        return "gemm"
    if op_type == "MatMul":
        dynamic = place.op_type in _SUMS or "Dynamic" in place.op_type or place.op_type == "MatMulIntegerToFloat"
        return "matmul" if len(place.inputs) > 1 and not dynamic else "gemm"
    if place.depthwise:
        return "depthwise"
    if place.groups > 1:
        return "grouped"
    if op_type != "ConvTranspose" and set(place.kernel) == {1}:
        return "conv_1x1"
    if op_type != "ConvTranspose" and set(place.kernel) == {3}:
        return "conv_3x3" if set(place.stride) <= {1} else "conv_3x3_strided"
    return "conv_large"


def _placements(places: Sequence[Place], graph_outputs: Collection[str]) -> list[Placement]:
    """Tell of each node whether it is a kernel of its own.

    A norm or activation is computed inside the operator before it: Conv, norm, activation, and Add, activation, as long
    as nobody else reads the value between them. What doesn't depend on the data, such as shape arithmetic, is worked
    out when the model is loaded.
    """
    readers = Counter(name for place in places for name in place.inputs)
    readers.update(graph_outputs)
    products = {tuple(place.inputs) for place in places if _calculates(place.op_type) == "Mul"}
    products |= {pair[::-1] for pair in products}
    open_to: dict[str, str] = {}  # value -> op type of the fused kernel that could still take in its only reader
    settled: set[str] = set()  # values that don't depend on the data
    found: list[Placement] = []
    for place in places:
        op_type = _calculates(place.op_type)
        kernel = next((open_to[name] for name in place.inputs if name in open_to and readers[name] == 1), None)
        placement: Placement = "kernel"
        if settled.issuperset(place.inputs):
            placement = "free"
            settled.update(place.outputs)
        elif place.op_type in CONVERSIONS:
            placement = "fused"
            settled.update(place.outputs[1:])  # the scale and zero point that it finds
        elif place.op_type in FREE:
            placement = "free"
            if place.op_type == "Shape":
                settled.update(place.outputs)
        elif kernel is not None and _fuses(kernel, op_type, alone=len(set(place.inputs) - settled) == 1):
            placement = "fused"
        if placement == "kernel" and op_type in GATES and (place.inputs[0], place.outputs[0]) in products:
            placement = "fused"  # x times sigmoid(x) is one kernel, counted where the product is
        following = _kernel_after(kernel if placement == "fused" else None, place.op_type)
        if following is not None and place.outputs:
            open_to[place.outputs[0]] = following
        found.append(placement)
    return found


def _fuses(kernel: str, op_type: str, *, alone: bool) -> bool:
    """Tell whether `op_type` is calculated within `kernel`; `alone` says that it reads one value of the data."""
    if kernel in _SUMS and op_type in _RESCALING:
        return alone
    return op_type in ACTIVATIONS or (op_type in NORMS and kernel in WEIGHTED)


def _kernel_after(kernel: str | None, op_type: str) -> str | None:
    """Return the op type that decides what else may join the kernel after this operator; None where it is closed."""
    if op_type in CONVERSIONS or (kernel in _SUMS and op_type in _RESCALING):
        return kernel
    plain = _calculates(op_type)
    if plain in WEIGHTED or plain == "Add" or plain in NORMS:
        return kernel if kernel is not None else (op_type if op_type in _SUMS else plain)
    return None
