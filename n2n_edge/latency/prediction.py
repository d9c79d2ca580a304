"""What a model will cost on a device that isn't at hand, with the evidence and an interval.

`docs/prediction.md` tells what the prediction rests on, how it was chosen, and how well it holds.
"""

from dataclasses import dataclass

import onnx_ir as ir

from n2n_edge.devices.profile import Precision, Profile
from n2n_edge.foreign import foreign_file
from n2n_edge.graph.costs import Amounts
from n2n_edge.graph.layers import layers_by_name
from n2n_edge.latency.basis import Basis, basis_for_model, energy_basis, input_pixels, latency_basis
from n2n_edge.latency.kernels import Kernels, kernels_of
from n2n_edge.metrics.figures import MB, Figure

__all__ = [
    "NodeLatency",
    "Prediction",
    "latency_evidence",
    "latency_with_evidence",
    "predict",
    "predict_latency",
    "predict_node_latencies",
]

_RUNTIME_MB = {"cpu": 80.0, "gpu": 1500.0}
"""Memory that a process takes before it holds any model: Python with ONNX Runtime (measured on x86-64: 60 to 80 MB),
and with the CUDA and cuDNN libraries loaded (assumed)."""


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


@dataclass(frozen=True)
class Prediction:
    """What one model is predicted to cost on a device.

    `memory` is the graph's bound plus what the runtime takes by itself; `fits` says whether the device has that.
    `energy` (mJ an inference) is None where nobody measured it.
    """

    latency: Figure
    energy: Figure | None
    memory: Figure
    fits: bool
    nodes: tuple[NodeLatency, ...]
    basis: Basis

    def by_layer(self) -> dict[str, float]:
        """Return the ms of each layer, the largest first; '' is what belongs to none."""
        sums: dict[str, float] = {}
        for node in self.nodes:
            sums[node.layer] = sums.get(node.layer, 0.0) + node.latency_ms
        return dict(sorted(sums.items(), key=lambda item: -item[1]))


def predict(model: ir.Model, profile: Profile, threads: int | None = None, precision: Precision = "fp32") -> Prediction:
    """Predict latency (ms), energy (mJ) and memory (MB) of one inference of a batch of one.

    Raises:
        InputError: more threads than the device has cores, or fewer than one.
    """
    basis, kernels, amounts = _looked_into(model, profile, threads, precision)
    with foreign_file("the model"):
        node_ms = kernels.node_ns(amounts, basis.rates)[:, 0] / 1e6
        energy = energy_basis(profile, threads, precision, input_pixels(model))
        layers = layers_by_name(model)
        memory = float(amounts.memory_bound_bytes[0]) / MB + _RUNTIME_MB[profile.compute_unit]
        return Prediction(
            latency=basis.figure(float(node_ms.sum()), "ms"),
            energy=None if energy is None else energy.energy(kernels, amounts),
            memory=Figure(memory, "MB", "analytic"),
            fits=memory <= profile.usable_memory_mb,
            nodes=tuple(
                NodeLatency(
                    place.name,
                    place.op_type,
                    float(ms),
                    kernel,
                    next((layers[name] for name in (place.name, *place.outputs) if name in layers), ""),
                )
                for place, ms, kernel in zip(kernels.places, node_ms, kernels.classes, strict=True)
            ),
            basis=basis,
        )


def predict_latency(
    model: ir.Model, profile: Profile, threads: int | None = None, precision: Precision = "fp32"
) -> Figure:
    """Predict the latency of one inference (batch 1) in ms: ``calibrated`` or ``analytic``, with a 90% interval.

    Raises:
        InputError: more threads than the device has cores, or fewer than one.
    """
    return latency_with_evidence(model, profile, threads, precision)[0]


def latency_with_evidence(
    model: ir.Model, profile: Profile, threads: int | None = None, precision: Precision = "fp32"
) -> tuple[Figure, Basis]:
    """Return what `predict_latency` gives, and what it rests on."""
    basis, kernels, amounts = _looked_into(model, profile, threads, precision)
    with foreign_file("the model"):
        return basis.figure(float(basis.latencies_ms(kernels, amounts)[0]), "ms"), basis


def latency_evidence(model: ir.Model, profile: Profile, threads: int | None = None) -> Basis:
    """Return what `predict_latency` rests on for this model."""
    return _looked_into(model, profile, threads, "fp32")[0]


def predict_node_latencies(model: ir.Model, profile: Profile, threads: int | None = None) -> tuple[NodeLatency, ...]:
    """Return the predicted latency of every node of a model, in execution order.

    Raises:
        InputError: more threads than the device has cores, or fewer than one.
    """
    return predict(model, profile, threads).nodes


def _looked_into(
    model: ir.Model, profile: Profile, threads: int | None, precision: Precision
) -> tuple[Basis, Kernels, Amounts]:
    """Return what a model's latency rests on, its kernels on the device, and its amounts."""
    basis = latency_basis(profile, threads, precision, input_pixels(model))
    with foreign_file("the model"):
        kernels, amounts = kernels_of(model, profile.block)
        return basis_for_model(basis, model, amounts), kernels, amounts
