"""Latency model of a device: the one way from a graph and a profile to a predicted latency with its interval.

`docs/prediction.md` tells what a prediction rests on, how that was chosen, and how well it holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.devices.profile import Profile
from n2n_edge.errors import InputError
from n2n_edge.foreign import foreign_file
from n2n_edge.graph.costs import Amounts, Counted, NodeSpec, counted
from n2n_edge.graph.op import counted_op
from n2n_edge.graph.shape_run import DEFAULT_SPATIAL_SIZE
from n2n_edge.graph.subgraphs import holds_graph
from n2n_edge.latency.basis import Basis, energy_basis, latency_basis
from n2n_edge.latency.estimate import Estimate, Share
from n2n_edge.latency.kernels import Kernels
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.precisions import BYTES, Precision
from n2n_edge.metrics.runtimes import ONNXRUNTIME

__all__ = ["GraphLatency", "LatencyModel", "input_pixels"]

_UNCOUNTED = 10.0
"""By how much an interval is widened where operators multiply that nobody counts, such as an LSTM."""

_OPEN_WEIGHTS = 3.0
"""The same, where weights are graph inputs: ONNX Runtime was three times slower on such a file than predicted. What
converts a file for another runtime takes them as constants."""

Floats = NDArray[np.float64]


class LatencyModel:
    """Predicts the latency of graphs on one device, with so many threads.

    >>> LatencyModel(load_profile("raspberry-pi-4")).estimate(model).figure
    Figure(value=0.42, unit='ms', provenance='calibrated', low=0.2, high=0.9, n=29)

    `threads` default to the profile's. `precision` is what float32 kernels are run in, by default what the profile's
    runtime takes (`Profile.float_precision`); those that a file quantizes, or holds in float16, are told by rates of
    int8 and fp16. `relative` is whose calibrations a device without its own borrows, instead of those of the one that
    its profile names. For another runtime than the profile's, give ``profile.under("ncnn")``.

    Raises:
        InputError: more threads than the device has cores, or fewer than one.
    """

    def __init__(
        self,
        profile: Profile,
        threads: int | None = None,
        precision: Precision | None = None,
        *,
        relative: Profile | None = None,
    ) -> None:
        self.profile = profile
        self.threads = profile.default_threads if threads is None else threads
        self.precision = profile.float_precision if precision is None else precision
        self._relative = relative
        self._chosen: dict[tuple[float, Precision], Basis] = {}
        if not 1 <= self.threads <= profile.cores:
            raise InputError(
                f"{self.threads} threads: {profile.name} has {profile.cores} cores; give 1 to {profile.cores}"
            )

    def basis(self, pixels: float = 224.0**2, precision: Precision | None = None) -> Basis:
        """Return what the latency of any graph with an input of so many `pixels` is predicted from.

        `precision` is that of its kernels where it isn't the model's own.

        Raises:
            InputError: the device has no calibration, and none of its relatives has.
        """
        key = (pixels, precision or self.precision)
        if key not in self._chosen:
            self._chosen[key] = latency_basis(self.profile, self.threads, key[1], pixels, self._relative)
        return self._chosen[key]

    def estimate(self, model: ir.Model) -> Estimate:
        """Predict one inference of a batch of one.

        Raises:
            InputError: the model can't be analysed.
        """
        with foreign_file("the model"):
            return self.of_counted(counted(model))

    def node_ms(self, model: ir.Model) -> dict[str, float]:
        """Return the predicted milliseconds of every node of a model, by its name; raises as `estimate` does."""
        return {item.name: item.latency_ms for item in self.estimate(model).nodes}

    def of_counted(self, found: Counted) -> Estimate:
        """Return the `estimate` of a model that was counted already."""
        return self.of_graph(found.flat, found.nodes).estimate(found.amounts)

    def of_graph(self, model: ir.Model, nodes: Sequence[NodeSpec]) -> "GraphLatency":
        """Return the latency of a flat graph as a function of its amounts, so of the widths of its channel groups."""
        return GraphLatency(self, model, nodes)


class GraphLatency:
    """Latency of one graph on one device, for one choice of widths or for thousands at once.

    Each kernel is told by the rates of the precision that the graph says it calculates in.
    """

    def __init__(self, latency: LatencyModel, model: ir.Model, nodes: Sequence[NodeSpec]) -> None:
        self.latency = latency
        self.model = model
        self.kernels = Kernels(nodes, [str(value.name) for value in model.graph.outputs], latency.profile.block)
        self._runs_in = _runs_in(latency, self.kernels)
        used = dict.fromkeys(self._runs_in[precision] for precision in BYTES if precision in self._runs_in)
        self._pixels = input_pixels(model)
        self._bases = {precision: latency.basis(self._pixels, precision) for precision in used}
        self._members = {
            precision: np.array([self._runs_in.get(node.precision) == precision for node in self.kernels.nodes], bool)
            for precision in used
        }
        open_weights = sum(value.name in model.graph.initializers for value in model.graph.inputs)
        self._open = f"{open_weights} weights are graph inputs, so none can be fused or packed: make them constants"
        self._any_open = open_weights > 0 and latency.profile.runtime == ONNXRUNTIME
        self._uncounted = sorted({node.op_type for node in model.graph if _is_uncounted(node)})

    def latencies_ms(self, amounts: Amounts) -> Floats:
        """Return the expected latencies of N candidates, `(N,)`."""
        latencies: Floats = self.node_ns(amounts, self._bases).sum(axis=0) / 1e6
        return latencies

    def upper_ms(self, amounts: Amounts) -> Floats:
        """Return the upper bounds of `latencies_ms`: those of each candidate's `estimate`."""
        parts = self.by_precision(self.node_ns(amounts, self._bases) / 1e6)
        bounds = [
            parts[precision] * self._widened(basis).high_ratio * basis.outside(amounts.macs)
            for precision, basis in self._bases.items()
        ]
        upper: Floats = np.sum(bounds, axis=0)
        return upper

    def estimate(self, amounts: Amounts) -> Estimate:
        """Return what one candidate is predicted to cost (N = 1)."""
        latencies = self.by_precision(self.node_ns(amounts, self._bases) / 1e6)
        macs = self.by_precision(amounts.node_macs)
        shares = []
        for precision, chosen in self._bases.items():
            basis = self._widened(chosen.within(float(amounts.macs[0])))
            figure = replace(basis.figure(float(latencies[precision][0]), "ms"), runtime=self.latency.profile.runtime)
            shares.append(Share(precision, figure, int(macs[precision][0]), basis))
        shares.sort(key=lambda share: -share.figure.value)
        return Estimate(_sum([share.figure for share in shares]), tuple(shares), self, amounts)

    def energy(self, amounts: Amounts) -> Figure | None:
        """Return the energy of one inference, in mJ; None where nobody measured it in each of the precisions."""
        latency, figures = self.latency, []
        bases = {
            precision: energy_basis(latency.profile, latency.threads, precision, self._pixels)
            for precision in self._bases
        }
        known = {precision: basis for precision, basis in bases.items() if basis is not None}
        if len(known) < len(bases):
            return None
        parts = self.by_precision(self.node_ns(amounts, known) / 1e6)  # rates are nJ a unit
        for precision, basis in known.items():
            figures.append(basis.within(float(amounts.macs[0])).figure(float(parts[precision][0]), "mJ"))
        return _sum(figures)

    def node_ns(self, amounts: Amounts, bases: Mapping[Precision, Basis]) -> Floats:
        """Return nanoseconds (or nJ) of every node, each by the basis of its precision: `(nodes, N)`."""
        rates = {told: bases[used].rates for told, used in self._runs_in.items()}
        return self.kernels.node_ns(amounts, {}, rates)

    def by_precision(self, figures: Floats) -> dict[Precision, Floats]:
        """Return the sums of figures of nodes, `(nodes, N)`, over those of each precision: `(N,)`."""
        return {precision: figures[members].sum(axis=0) for precision, members in self._members.items()}

    def _widened(self, basis: Basis) -> Basis:
        """Widen the interval for what is unusual about the graph."""
        if self._any_open:
            basis = basis.widened(Notice("open-weights", self._open), _OPEN_WEIGHTS)
        if self._uncounted:
            notice = Notice("uncounted-ops", f"what {', '.join(self._uncounted)} multiply is not counted")
            basis = basis.widened(notice, _UNCOUNTED).unmeasured()
        return basis


def _runs_in(latency: LatencyModel, kernels: Kernels) -> dict[Precision, Precision]:
    """Return by which precision's rates the kernels of each precision in the graph are told.

    What was asked for is that of float32 kernels, but for int8 where the graph says itself what is. A CPU without
    arithmetic in float16 calculates in float32, as ONNX Runtime does there.
    """
    used = {
        node.precision for node, placement in zip(kernels.nodes, kernels.placements, strict=True)
        if placement == "kernel"
    } or {"fp32"}  # fmt: skip
    quantized = "int8" in used
    asked = "fp32" if latency.precision == "int8" and quantized else latency.precision
    half: Precision = "fp32" if latency.profile.peak_fp16_gflops is None else "fp16"
    each: dict[Precision, Precision] = {"fp32": asked, "fp16": half, "int8": "int8"}
    return {precision: each[precision] for precision in BYTES if precision in used}


def _sum(figures: Sequence[Figure]) -> Figure:
    """Return the sum of predicted figures, whose errors are taken to go the same way."""
    first, *rest = figures
    if not rest:
        return first
    return Figure(
        sum(each.value for each in figures),
        first.unit,
        "calibrated" if all(each.provenance == "calibrated" for each in figures) else "analytic",
        low=sum(each.low or 0.0 for each in figures),
        high=sum(each.high or 0.0 for each in figures),
        n=min(each.n or 0 for each in figures),
        runtime=first.runtime,
    )


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
