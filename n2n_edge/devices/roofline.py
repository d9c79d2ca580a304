"""Latency from data-sheet figures: what arithmetic and memory traffic cost at least, operator by operator."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.devices.profile import Profile
from n2n_edge.errors import InputError
from n2n_edge.figures import Figure
from n2n_edge.graph import Amounts, NodeCost, Place, node_costs

__all__ = ["NodeLatency", "predict_latencies", "predict_latency", "predict_node_latencies", "roofline"]

LOW_RATIO, HIGH_RATIO = 0.7, 6.0
"""Bounds of real over analytic latency where nothing is calibrated.

Even a fitted roofline of three terms is off by 12 to 32% (median) on boards; data-sheet peaks err much more, and to
one side, since hardly a kernel reaches them. In ncnn's public table for a Raspberry Pi 4 with four threads, 21 CNNs
take 0.8 to 9 times 2 x MACs / peak (median 3.7; with one thread 0.4 to 2.7): large 3x3 convolutions least, since
Winograd needs fewer multiplications than are counted, depthwise and very small networks most. Memory traffic and
overhead, which are counted here, explain part of the upper end. Read the value as a floor and a means to rank, until
a calibration says more.
"""

Limit = Literal["compute", "memory", "overhead", "fused", "free"]

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv"})
NORMS = frozenset({"BatchNormalization"})
ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "PRelu"})
FREE = frozenset({"Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})
"""Operators that only rename the same bytes."""


@dataclass(frozen=True)
class NodeLatency:
    """What one operator is predicted to take, and what limits it.

    ``fused``: computed inside the operator before it. ``free``: moves no data.
    """

    name: str
    op_type: str
    latency_ms: float
    limited_by: Limit


def predict_latency(model: ir.Model, profile: Profile, threads: int | None = None) -> Figure:
    """Predict the latency of one inference (batch 1) on a device, in ms.

    The roofline model (Williams, Waterman, Patterson 2009) per operator: the larger of 2 x MACs / peak and
    bytes / bandwidth, plus a fixed overhead. ``analytic`` with a wide interval, or ``calibrated`` where the profile
    holds a calibration and the threads are its default.

    Raises:
        InputError: more threads than the device has cores, or fewer than one.
    """
    nodes = node_costs(model)
    total_ms = sum(latency.latency_ms for latency in roofline(nodes, profile, threads, _output_names(model)))
    calibration = profile.calibration
    if calibration is not None and threads in (None, profile.default_threads):
        return Figure(
            total_ms * calibration.ratio,
            "ms",
            "calibrated",
            low=total_ms * calibration.low_ratio,
            high=total_ms * calibration.high_ratio,
            n=calibration.models,
        )
    return Figure(total_ms, "ms", "analytic", low=total_ms * LOW_RATIO, high=total_ms * HIGH_RATIO)


def predict_node_latencies(model: ir.Model, profile: Profile, threads: int | None = None) -> tuple[NodeLatency, ...]:
    """Return the analytic latency of every operator of a model, in execution order.

    Raises:
        InputError: more threads than the device has cores, or fewer than one.
    """
    return roofline(node_costs(model), profile, threads, _output_names(model))


def roofline(
    nodes: Sequence[NodeCost], profile: Profile, threads: int | None = None, graph_outputs: Collection[str] = ()
) -> tuple[NodeLatency, ...]:
    """Return the analytic latency of each operator.

    A norm or activation costs nothing extra where a runtime computes it inside the operator before it: Conv, norm,
    activation, and Add, activation, as long as nobody else reads the value between them. Threads scale the arithmetic
    of a CPU; memory bandwidth is shared and stays as it is.

    Raises:
        InputError: more threads than the device has cores, or fewer than one.
    """
    rates = _Rates.of(profile, threads)
    latencies = []
    for node, placed in zip(nodes, _placed(nodes, graph_outputs), strict=True):
        latency_ms = 0.0
        limited_by: Limit | None = placed
        if placed is None:
            compute_ms, memory_ms = rates.compute_ms(node.macs), rates.memory_ms(_traffic(node))
            latency_ms = max(compute_ms, memory_ms) + rates.overhead_ms
            limited_by = "compute" if compute_ms >= memory_ms else "memory"
            if rates.overhead_ms > max(compute_ms, memory_ms):
                limited_by = "overhead"
        assert limited_by is not None
        latencies.append(NodeLatency(node.name, node.op_type, latency_ms, limited_by))
    return tuple(latencies)


def predict_latencies(
    places: Sequence[Place], amounts: Amounts, profile: Profile, graph_outputs: Collection[str]
) -> NDArray[np.float64]:
    """Return what `predict_latency` says, in ms `(N,)`, for N candidates of one graph at once."""
    rates = _Rates.of(profile, None)
    own = [i for i, placed in enumerate(_placed(places, graph_outputs)) if placed is None]
    moved = amounts.node_input_bytes[own] + amounts.node_weight_bytes[own] + amounts.node_output_bytes[own]
    slower = np.maximum(amounts.node_macs[own] * rates.compute_ms(1), moved * rates.memory_ms(1))
    total: NDArray[np.float64] = slower.sum(axis=0) + len(own) * rates.overhead_ms
    return total if profile.calibration is None else total * profile.calibration.ratio


@dataclass(frozen=True)
class _Rates:
    """A device's data-sheet rates in units of one ms."""

    flop_per_ms: float
    bytes_per_ms: float
    overhead_ms: float

    @classmethod
    def of(cls, profile: Profile, threads: int | None) -> "_Rates":
        return cls(
            _peak_gflops(profile, threads) * 1e6, profile.bandwidth_gb_s * 1e6, profile.launch_overhead_us / 1000
        )

    def compute_ms(self, macs: int) -> float:
        return 2 * macs / self.flop_per_ms

    def memory_ms(self, moved: int) -> float:
        return moved / self.bytes_per_ms


def _traffic(node: NodeCost) -> int:
    return node.input_bytes + node.weight_bytes + node.output_bytes


def _placed(
    nodes: Sequence[NodeCost] | Sequence[Place], graph_outputs: Collection[str]
) -> list[Literal["free", "fused"] | None]:
    """Tell of each operator whether it costs nothing of its own, and why; None where it is a kernel."""
    readers = Counter(name for node in nodes for name in node.inputs)
    readers.update(graph_outputs)
    open_to: dict[str, str] = {}  # value -> op type of the fused kernel that could still take in its only reader
    found: list[Literal["free", "fused"] | None] = []
    for node in nodes:
        kernel = next((open_to[name] for name in node.inputs if name in open_to and readers[name] == 1), None)
        placed: Literal["free", "fused"] | None = None
        if node.op_type in FREE:
            placed = "free"
        elif kernel is not None and _fuses(kernel, node.op_type):
            placed = "fused"
        following = _kernel_after(kernel if placed == "fused" else None, node.op_type)
        if following is not None and node.outputs:
            open_to[node.outputs[0]] = following
        found.append(placed)
    return found


def _fuses(kernel: str, op_type: str) -> bool:
    return op_type in ACTIVATIONS or (op_type in NORMS and kernel in WEIGHTED)


def _kernel_after(kernel: str | None, op_type: str) -> str | None:
    """Return the op type that decides what else may join the kernel after this operator; None where it is closed."""
    if op_type in WEIGHTED or op_type == "Add" or op_type in NORMS:
        return kernel if kernel is not None else op_type
    return None


def _peak_gflops(profile: Profile, threads: int | None) -> float:
    if threads is None:
        return profile.peak_gflops
    if not 1 <= threads <= profile.cores:
        raise InputError(f"{threads} threads: {profile.name} has {profile.cores} cores; give 1 to {profile.cores}")
    if profile.compute_unit == "gpu":
        return profile.peak_gflops
    return profile.peak_gflops * threads / profile.default_threads


def _output_names(model: ir.Model) -> frozenset[str]:
    return frozenset(value.name for value in model.graph.outputs if value.name is not None)
