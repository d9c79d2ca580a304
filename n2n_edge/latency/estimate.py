"""Prediction of what one inference of a model costs on a device, with its interval, its parts and what it rests on."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from n2n_edge.devices.profile import Profile
from n2n_edge.foreign import foreign_file
from n2n_edge.graph.costs import Amounts
from n2n_edge.graph.layers import layers_by_name
from n2n_edge.latency.basis import Basis, threads_in_words
from n2n_edge.metrics.figures import MB, SCHEMA_VERSION, Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.precisions import Precision

if TYPE_CHECKING:
    from n2n_edge.latency.model import GraphLatency

__all__ = ["Estimate", "NodeLatency", "Share"]

_RUNTIME_MB = {"cpu": 80.0, "gpu": 1500.0}
"""Memory that a process takes before it holds any model: Python with ONNX Runtime (measured on x86-64: 60 to 80 MB),
and with the CUDA and cuDNN libraries loaded (assumed)."""


@dataclass(frozen=True)
class NodeLatency:
    """What one node is predicted to take; `kernel` is its class, or ``fused`` or ``free`` for what is no kernel.

    `precision` is what the graph says that it is calculated in; `layer` is the layer of ``inspect`` that it belongs to,
    or ''.
    """

    name: str
    op_type: str
    latency_ms: float
    kernel: str
    precision: Precision
    layer: str


@dataclass(frozen=True)
class Share:
    """What of a graph is calculated in one precision: its part of the latency and of the MACs, and the basis for it."""

    precision: Precision
    figure: Figure
    macs: int
    basis: Basis

    def to_json(self) -> dict[str, object]:
        """Return the share as a JSON object."""
        return {
            "precision": self.precision,
            "latency_ms": self.figure.to_json(),
            "macs": self.macs,
            "evidence": self.basis.to_json(),
        }


@dataclass(frozen=True)
class Estimate:
    """What one inference of a graph is predicted to cost on a device.

    `figure` is the latency in ms, ``calibrated`` or ``analytic``, with the interval that holds nine of ten; `shares`
    are its parts by precision, the longest first.
    """

    figure: Figure
    shares: tuple[Share, ...]
    graph: "GraphLatency" = field(repr=False, compare=False)
    amounts: Amounts = field(repr=False, compare=False)

    @property
    def basis(self) -> Basis:
        """What the prediction rests on: for several precisions, that of the longest part."""
        return self.shares[0].basis

    @property
    def profile(self) -> Profile:
        """The device."""
        return self.graph.latency.profile

    @property
    def threads(self) -> int:
        """The CPU threads that it would be run with."""
        return self.graph.latency.threads

    @property
    def unit(self) -> str:
        """What computes: ``1 thread``, ``GPU``."""
        return threads_in_words(self.threads) if self.profile.compute_unit == "cpu" else "GPU"

    @property
    def precision(self) -> Precision:
        """What it would be calculated in: for several precisions, that of the longest part."""
        return self.shares[0].precision

    @property
    def evidence(self) -> tuple[Notice, ...]:
        """What the prediction rests on."""
        return tuple(dict.fromkeys(notice for share in self.shares for notice in share.basis.notes()))

    @property
    def warnings(self) -> tuple[Notice, ...]:
        """What makes the prediction less certain, and has widened its interval."""
        found: dict[Notice, list[Precision]] = {}
        for share in self.shares:
            for notice in share.basis.warnings:
                found.setdefault(notice, []).append(share.precision)
        return tuple(
            (notice if len(where) == len(self.shares) else notice.prefixed("/".join(where))).prefixed("less certain")
            for notice, where in found.items()
        )

    @cached_property
    def nodes(self) -> tuple[NodeLatency, ...]:
        """The latency of every node, in execution order."""
        kernels = self.graph.kernels
        with foreign_file("the model"):
            bases = {share.precision: share.basis for share in self.shares}
            node_ms = self.graph.node_ns(self.amounts, bases)[:, 0] / 1e6
            layers = layers_by_name(self.graph.model)
        return tuple(
            NodeLatency(
                node.name,
                node.op_type,
                float(ms),
                kernel,
                node.precision,
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
        return self.graph.energy(self.amounts)

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
            "runtime": self.profile.runtime,
            "threads": self.threads,
            "precision": self.precision,
            "latency_ms": self.figure.to_json(),
            **({} if energy is None else {"energy_mj": energy.to_json()}),
            "memory_mb": {**self.memory.to_json(), "usable_mb": self.profile.usable_memory_mb, "fits": self.fits},
            "evidence": self.basis.to_json(),
            "by_precision": [share.to_json() for share in self.shares],
            "layers": [{"name": name or None, "latency_ms": round(ms, 6)} for name, ms in self.by_layer().items()],
            "nodes": [
                {
                    "name": node.name,
                    "op_type": node.op_type,
                    "kernel": node.kernel,
                    "precision": node.precision,
                    "layer": node.layer or None,
                    "latency_ms": round(node.latency_ms, 6),
                }
                for node in self.nodes
            ],
        }
