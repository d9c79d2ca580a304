"""Trial of a search: one candidate architecture with all that is known of it, and its costs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from n2n_edge.graph.architecture import Architecture
from n2n_edge.metrics.figures import Figure

__all__ = ["Actions", "StageName", "Trial", "TrialCosts"]

Actions = tuple[int, ...]
"""One action per step of a stage, the form in which a proposer names a candidate."""

StageName = Literal["removal", "shrinkage"]


@dataclass(frozen=True)
class TrialCosts:
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

    @classmethod
    def from_json(cls, row: Mapping[str, Any], provenance: Any) -> "TrialCosts":
        """Return the costs of a journal's row; the one latency that the first version kept stands under the name ""."""
        latencies = {name: Figure(**figure) for name, figure in row.get("latencies", {}).items()}
        if "latency_ms" in row and not latencies:
            latencies = {"": Figure(float(row["latency_ms"]), "ms", provenance)}
        costs = cls(
            float(row["size_mb"]), int(row["params"]), int(row["macs"]), float(row["memory_bound_mb"]), latencies
        )
        # the row names the slowest device's latency: which one that is depends on what was held
        upper = costs.latency
        return costs if upper is None or upper.value == row["latency_ms"] else replace(costs, accept_expected=True)

    def to_json(self) -> dict[str, Any]:
        """Return what a journal keeps."""
        costs: dict[str, Any] = self.as_mapping()
        if self.latency is not None:
            costs["latency_ms"] = self.latency.value
            costs["latencies"] = {name: figure.to_json() for name, figure in self.latencies.items()}
        return costs

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
        costs = {
            "size_mb": self.size_mb,
            "params": float(self.params),
            "macs": float(self.macs),
            "memory_bound_mb": self.memory_bound_mb,
        }
        return {**costs, "latency_ms": self.held_ms} if self.latencies else costs

    def with_latency(self, device: str, latency: Figure | None) -> "TrialCosts":
        """Return the costs with the latency on one device; None where it couldn't be run."""
        if latency is None:
            return replace(self, failed=True)
        return replace(self, latencies={**self.latencies, device: latency})

    def _held(self, latency: Figure) -> float:
        return latency.held(accept_expected=self.accept_expected)


@dataclass(frozen=True)
class Trial:
    """One candidate of a search with all that is known of it, as proposers and callbacks get it.

    It is the `number`-th of its `stage` (from nought), proposed in `batch` by taking `actions`. What was evaluated in
    this run, rather than read from a journal, knows `loss`, `quality` and `excesses`, too.

    >>> trial = n2n_edge.Run.open(example_run).trials[0].trial
    >>> trial.stage, trial.architecture.key == trial.key
    ('removal', True)
    """

    architecture: Architecture
    costs: TrialCosts
    reward: float
    feasible: bool
    """Whether it met every budget on its costs."""
    score: float | None = None
    """Accuracy, or fidelity to the teacher, after the proxy evaluation; None where it was never trained."""
    loss: float | None = None
    """Distillation loss on the validation images; None where it isn't known, or isn't a number."""
    quality: float = 0.0
    """What the reward counts: the score, in a run with budgets lowered by the loss."""
    excesses: Mapping[str, float] = field(default_factory=dict)
    """Budgets that were missed, and by how much (see `reward.violation`)."""
    error: Literal["evaluation", "runtime"] | None = None
    """What failed: the proxy evaluation ended the process before, or the runtime couldn't run it."""
    fresh: bool = False
    """Whether it was trained just now."""
    stage: StageName = "removal"
    number: int = 0
    batch: int = 0
    actions: Actions = ()

    @property
    def key(self) -> str:
        """Identity of the architecture."""
        return self.architecture.key

    @property
    def total_excess(self) -> float:
        """Sum of the excesses, nought where it is feasible."""
        return sum(self.excesses.values())
