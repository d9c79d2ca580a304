"""What one candidate costs, on every device of the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from n2n_edge.metrics.figures import Figure

__all__ = ["CandidateCosts"]


@dataclass(frozen=True)
class CandidateCosts:
    """Costs of one candidate; `latencies` are by device name, those of them that somebody has to know.

    Budgets and reward take what is held for the latency: its upper bound where it is predicted, unless the user accepts
    the expected value; of several devices, that of the slowest. `failed` says that the runtime crashed on it, hung, or
    refused it.
    """

    size_mb: float
    params: int
    macs: int
    memory_bound_mb: float
    latencies: Mapping[str, Figure] = field(default_factory=dict)
    accept_expected: bool = False
    failed: bool = False

    @property
    def latency(self) -> Figure | None:
        """The latency on the slowest device; None where it isn't known."""
        return max(self.latencies.values(), key=self._held, default=None)

    @property
    def held_ms(self) -> float:
        """What budgets and reward take for `latency`; nought where it isn't known."""
        return 0.0 if self.latency is None else self._held(self.latency)

    def held_on(self, device: str) -> float:
        """Return what is held against the budget of one device, in ms."""
        return self._held(self.latencies[device])

    def as_mapping(self) -> dict[str, float]:
        """Return the costs that are known, by the names that budgets use."""
        known = {
            "size_mb": self.size_mb,
            "params": float(self.params),
            "macs": float(self.macs),
            "memory_bound_mb": self.memory_bound_mb,
        }
        return {**known, "latency_ms": self.held_ms} if self.latencies else known

    def with_latency(self, device: str, latency: Figure | None) -> "CandidateCosts":
        """Return the costs with the latency on one device found out; None where it couldn't be run."""
        if latency is None:
            return replace(self, failed=True)
        return replace(self, latencies={**self.latencies, device: latency})

    def _held(self, latency: Figure) -> float:
        return latency.held(accept_expected=self.accept_expected)
