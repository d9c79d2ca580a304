"""How a device takes its integers: types of activations, bits of weights, zero points."""

from collections.abc import Collection

from n2n_edge.devices.profile import Profile
from n2n_edge.graph.image_session import is_x86
from n2n_edge.measure.board import cpu_flags
from n2n_edge.quantize.plan import QuantizationPlan

__all__ = ["VNNI", "has_vnni", "host_plan", "is_x86", "plan_for"]

VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Flags of processors that sum products of bytes without saturating."""


def plan_for(profile: Profile, float_nodes: Collection[str] = ()) -> QuantizationPlan:
    """Return how a network is quantized for a device, but for what stays float.

    Signed activations for ARM, those of an x86 host unsigned, since ONNX Runtime has no kernels for signed ones there;
    a GPU has no zero points.
    """
    if profile.compute_unit == "gpu":
        return QuantizationPlan(frozenset(float_nodes), symmetric=True)
    return host_plan(float_nodes) if profile.is_host else QuantizationPlan(frozenset(float_nodes))


def host_plan(float_nodes: Collection[str] = ()) -> QuantizationPlan:
    """Return how a network is quantized for this machine's processor."""
    if is_x86():
        return QuantizationPlan(frozenset(float_nodes), 8 if has_vnni() else 7, "uint8")
    return QuantizationPlan(frozenset(float_nodes))


def has_vnni() -> bool:
    """Whether this processor sums products of bytes in 32 bits."""
    return bool(VNNI & cpu_flags())
