"""Latency model of a device: the one way from a graph and a profile to a predicted latency with its interval.

`docs/prediction.md` tells what a prediction rests on, how that was chosen, and how well it holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.devices.profile import Precision, Profile
from n2n_edge.errors import InputError
from n2n_edge.foreign import foreign_file
from n2n_edge.graph.costs import Amounts, NodeSpec, node_amounts
from n2n_edge.graph.layers import layers_by_name
from n2n_edge.graph.op import counted_op
from n2n_edge.graph.shape_run import DEFAULT_SPATIAL_SIZE, analysing
from n2n_edge.graph.subgraphs import flattened, holds_graph
from n2n_edge.latency.basis import Basis, energy_basis, latency_basis
from n2n_edge.latency.kernels import Kernels
from n2n_edge.metrics.figures import MB, SCHEMA_VERSION, Figure
from n2n_edge.metrics.notices import Notice

__all__ = ["Estimate", "GraphLatency", "LatencyModel", "NodeLatency", "input_pixels"]

_UNCOUNTED = 10.0
"""By how much an interval is widened where operators multiply that nobody counts, such as an LSTM."""

_QUANTIZED = 4.0
"""The same, but on its lower side alone, for a file that is quantized, predicted from timings of float ones."""

_OPEN_WEIGHTS = 3.0
"""The same, where weights are graph inputs: ONNX Runtime was three times slower on such a file than predicted."""

_RUNTIME_MB = {"cpu": 80.0, "gpu": 1500.0}
"""Memory that a process takes before it holds any model: Python with ONNX Runtime (measured on x86-64: 60 to 80 MB),
and with the CUDA and cuDNN libraries loaded (assumed)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NodeLatency:
    """What one node is predicted to take; `kernel` is its class, or ``fused`` or ``free`` for what is no kernel.

    `layer` is the layer of ``inspect`` that it belongs to, or ''.
    """

    name: str
    op_type: str
    latency_ms: float
    kernel: str
    layer: str


class LatencyModel:
    """Predicts the latency of graphs on one device, with so many threads and in one precision.

    >>> LatencyModel(load_profile("raspberry-pi-4")).estimate(model).figure
    Figure(value=0.42, unit='ms', provenance='calibrated', low=0.2, high=0.9, n=29)

    `threads` default to the profile's. `relative` is whose calibrations a device without its own borrows, instead of
    those of the one that its profile names.

    Raises:
        InputError: more threads than the device has cores, or fewer than one.
    """

    def __init__(
        self,
        profile: Profile,
        threads: int | None = None,
        precision: Precision = "fp32",
        *,
        relative: Profile | None = None,
    ) -> None:
        self.profile = profile
        self.threads = profile.default_threads if threads is None else threads
        self.precision = precision
        self._relative = relative
        self._by_pixels: dict[float, Basis] = {}
        if not 1 <= self.threads <= profile.cores:
            raise InputError(
                f"{self.threads} threads: {profile.name} has {profile.cores} cores; give 1 to {profile.cores}"
            )

    def basis(self, pixels: float = 224.0**2) -> Basis:
        """Return what the latency of any graph with an input of so many `pixels` is predicted from.

        Raises:
            InputError: the device has no calibration, and none of its relatives has.
        """
        if pixels not in self._by_pixels:
            self._by_pixels[pixels] = latency_basis(self.profile, self.threads, self.precision, pixels, self._relative)
        return self._by_pixels[pixels]

    def estimate(self, model: ir.Model) -> "Estimate":
        """Predict one inference of a batch of one.

        Raises:
            InputError: the model can't be analysed.
        """
        with foreign_file("the model"):
            with analysing(model):
                flat = flattened(model)
            nodes, amounts = node_amounts(flat)
            return self.of_graph(flat, nodes).estimate(amounts)

    def of_graph(self, model: ir.Model, nodes: Sequence[NodeSpec]) -> "GraphLatency":
        """Return the latency of a flat graph as a function of its amounts, so of the widths of its channel groups."""
        return GraphLatency(self, model, nodes)


class GraphLatency:
    """Latency of one graph on one device, for one choice of widths or for thousands at once."""

    def __init__(self, latency: LatencyModel, model: ir.Model, nodes: Sequence[NodeSpec]) -> None:
        self.latency = latency
        self.model = model
        self.kernels = Kernels(nodes, [str(value.name) for value in model.graph.outputs], latency.profile.block)
        self._chosen = latency.basis(input_pixels(model))
        open_weights = sum(value.name in model.graph.initializers for value in model.graph.inputs)
        self._open = f"{open_weights} weights are graph inputs, so none can be fused or packed: make them constants"
        self._any_open = open_weights > 0
        self._quantized = any(counted_op(node.op_type, node.domain).quantized for node in model.graph)
        self._uncounted = sorted({node.op_type for node in model.graph if _is_uncounted(node)})

    def latencies_ms(self, amounts: Amounts) -> Floats:
        """Return the expected latencies of N candidates, `(N,)`."""
        return self.kernels.total_ns(amounts, self._chosen.rates) / 1e6

    def upper_ms(self, amounts: Amounts) -> Floats:
        """Return the upper bounds of `latencies_ms`: those of each candidate's `estimate`."""
        high: float = self._widened(self._chosen).high_ratio
        return self.latencies_ms(amounts) * high * self._chosen.outside(amounts.macs)

    def estimate(self, amounts: Amounts) -> "Estimate":
        """Return what one candidate is predicted to cost (N = 1)."""
        basis = self._widened(self._chosen.within(float(amounts.macs[0])))
        return Estimate(basis.figure(float(self.latencies_ms(amounts)[0]), "ms"), basis, self, amounts)

    def _widened(self, basis: Basis) -> Basis:
        """Widen the interval for what is unusual about the graph."""
        if self._any_open:
            basis = basis.widened(Notice("open-weights", self._open), _OPEN_WEIGHTS)
        if self._quantized:  # what is quantized is rarely slower, and often several times faster
            notice = Notice("quantized", "the file is quantized, and what was timed is float")
            basis = basis.widened(notice, high=1.0, low=_QUANTIZED)
        if self._uncounted:
            notice = Notice("uncounted-ops", f"what {', '.join(self._uncounted)} multiply is not counted")
            basis = basis.widened(notice, _UNCOUNTED).unmeasured()
        return basis


@dataclass(frozen=True)
class Estimate:
    """What one inference of a graph is predicted to cost on a device.

    `figure` is the latency in ms, ``calibrated`` or ``analytic``, with the interval that holds nine of ten; `basis` is
    what it rests on.
    """

    figure: Figure
    basis: Basis
    graph: GraphLatency = field(repr=False, compare=False)
    amounts: Amounts = field(repr=False, compare=False)

    @property
    def profile(self) -> Profile:
        """The device."""
        return self.graph.latency.profile

    @property
    def threads(self) -> int:
        """The CPU threads that it would be run with."""
        return self.graph.latency.threads

    @property
    def precision(self) -> Precision:
        """What it would be calculated in."""
        return self.graph.latency.precision

    @property
    def evidence(self) -> tuple[Notice, ...]:
        """What the prediction rests on."""
        return self.basis.notes()

    @property
    def warnings(self) -> tuple[Notice, ...]:
        """What makes the prediction less certain, and has widened its interval."""
        return tuple(each.prefixed("less certain") for each in self.basis.warnings)

    @cached_property
    def nodes(self) -> tuple[NodeLatency, ...]:
        """The latency of every node, in execution order."""
        kernels = self.graph.kernels
        with foreign_file("the model"):
            node_ms = kernels.node_ns(self.amounts, self.basis.rates)[:, 0] / 1e6
            layers = layers_by_name(self.graph.model)
        return tuple(
            NodeLatency(
                node.name,
                node.op_type,
                float(ms),
                kernel,
                next((layers[name] for name in (node.name, *node.outputs) if name in layers), ""),
            )
            for node, ms, kernel in zip(kernels.nodes, node_ms, kernels.classes, strict=True)
        )

    def by_layer(self) -> dict[str, float]:
        """Return the ms of each layer, the largest first; '' is what belongs to none."""
        sums: dict[str, float] = {}
        for node in self.nodes:
            sums[node.layer] = sums.get(node.layer, 0.0) + node.latency_ms
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def energy(self) -> Figure | None:
        """The energy of one inference, in mJ; None where nobody measured it."""
        basis = energy_basis(self.profile, self.threads, self.precision, input_pixels(self.graph.model))
        if basis is None:
            return None
        millijoules = float(self.graph.kernels.total_ns(self.amounts, basis.rates)[0]) / 1e6  # rates are nJ a unit
        return basis.within(float(self.amounts.macs[0])).figure(millijoules, "mJ")

    @property
    def memory(self) -> Figure:
        """The graph's memory bound and what the runtime takes by itself, in MB."""
        own = _RUNTIME_MB[self.profile.compute_unit]
        return Figure(float(self.amounts.memory_bound_bytes[0]) / MB + own, "MB", "analytic")

    @property
    def fits(self) -> bool:
        """Whether the device has the memory."""
        return self.memory.value <= self.profile.usable_memory_mb

    def to_json(self) -> dict[str, object]:
        """Return the document that ``n2n-edge predict --json`` prints of a model, which it names."""
        energy = self.energy
        return {
            "schema_version": SCHEMA_VERSION,
            "device": self.profile.name,
            "threads": self.threads,
            "precision": self.precision,
            "latency_ms": self.figure.to_json(),
            **({} if energy is None else {"energy_mj": energy.to_json()}),
            "memory_mb": {**self.memory.to_json(), "usable_mb": self.profile.usable_memory_mb, "fits": self.fits},
            "evidence": self.basis.to_json(),
            "layers": [{"name": name or None, "latency_ms": round(ms, 6)} for name, ms in self.by_layer().items()],
            "nodes": [
                {
                    "name": node.name,
                    "op_type": node.op_type,
                    "kernel": node.kernel,
                    "layer": node.layer or None,
                    "latency_ms": round(node.latency_ms, 6),
                }
                for node in self.nodes
            ],
        }


def input_pixels(model: ir.Model) -> float:
    """Return height times width of the largest input that is an image, channels first or last; 0 where none is.

    Free sizes count as what costs assume for them.
    """
    sizes = [0]
    for value in model.graph.inputs:
        dims = [] if value.shape is None else [_counted(size) for size in value.shape]
        if len(dims) == 4 and value.name not in model.graph.initializers:
            sizes.append(math.prod(sorted(dims[1:])[1:]))  # of three axes the channels are rarely the longest
    return float(max(sizes))


def _counted(size: object) -> int:
    return size if isinstance(size, int) else DEFAULT_SPATIAL_SIZE


def _is_uncounted(node: ir.Node) -> bool:
    """Tell whether a node does work that isn't counted: recurrent ones, products by letters, fused ones, subgraphs."""
    row = counted_op(node.op_type, node.domain)
    return holds_graph(node) or (node.domain.startswith("com.microsoft") and not row.quantized) or row.uncounted
