"""What of a network is quantized, and how: a value that search, training and the quantizer share."""

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Activations", "QuantizationPlan", "WeightBits"]

WeightBits = Literal[8, 7]
Activations = Literal["int8", "uint8"]


@dataclass(frozen=True)
class QuantizationPlan:
    """Precision of a network's nodes: `float_nodes` (node names) stay float, the rest becomes int8 where it can.

    Weights are signed and symmetric, one scale per output channel or, not `per_channel`, per tensor; of `weight_bits` 7
    they keep to -64..64, so that sums of two products fit into 16 bits (processors without VNNI). Activations are
    ``int8`` (S8S8) for ARM, ``uint8`` (U8S8) for x86; they have a zero point unless they are `symmetric`, as TensorRT
    asks.

    >>> QuantizationPlan(float_nodes=frozenset({"head"})).weight_bits
    8
    """

    float_nodes: frozenset[str] = frozenset()
    weight_bits: WeightBits = 8
    activations: Activations = "int8"
    per_channel: bool = True
    symmetric: bool = False

    def keeping(self, *names: str) -> "QuantizationPlan":
        """Return this plan with further nodes left in float."""
        return replace(self, float_nodes=self.float_nodes | set(names))
