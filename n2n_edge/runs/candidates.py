"""Candidates of a run as its journal has them, in the order in which reports count them."""

from collections.abc import Sequence

from n2n_edge.metrics.figures import Figure
from n2n_edge.report.document import CandidateJson
from n2n_edge.search.store import Fact, Journal
from n2n_edge.search.trial import Trial

__all__ = ["STAGES", "candidate_rows", "entropy_of", "latencies_of", "listed_candidates", "place_of"]

STAGES = {"removal": 1, "shrinkage": 2}
"""The numbers that reports give the stages."""


def listed_candidates(journal: Journal) -> tuple[Trial, ...]:
    """Return the candidates of both stages in the order evaluated; candidate N is the N-th, counted from one."""
    return tuple(journal.trials())


def place_of(key: str, candidates: Sequence[Trial]) -> int | None:
    """Return the index of the first candidate with this architecture; None where there is none."""
    return next((index for index, trial in enumerate(candidates) if trial.key == key), None)


def candidate_rows(journal: Journal) -> list[CandidateJson]:
    """Return the candidates as `report.json` has them."""
    several = "other_profiles" in journal.meta()
    return [_row(trial, entropy_of(journal, trial), several) for trial in listed_candidates(journal)]


def latencies_of(trial: Trial, device: str) -> dict[str, Figure]:
    """Return a candidate's latencies by device name; older journals kept one value, that of the run's `device`."""
    return {name or device: figure for name, figure in trial.costs.latencies.items()}


def entropy_of(journal: Journal, trial: Trial) -> float | None:
    """Return how undecided the policy was when it proposed a candidate; None where nobody noted it."""
    row = journal.cached(Fact.ENTROPY, f"{trial.stage}/{trial.batch}")
    return None if row is None else float(row["entropy"])


def _row(trial: Trial, entropy: float | None, several: bool) -> CandidateJson:
    costs = trial.costs
    row: CandidateJson = {
        "stage": STAGES[trial.stage],
        "index": trial.number,
        "reward": trial.reward,
        "score": trial.score,
        "feasible": trial.feasible,
        "params": costs.params,
        "size_mb": costs.size_mb,
        "macs": costs.macs,
        "memory_bound_mb": costs.memory_bound_mb,
        "latency_ms": None if costs.latency is None else costs.latency.value,
        "entropy": entropy,
        "trained": trial.score is not None,
    }
    if trial.architecture.int8:
        row["int8"] = sorted(trial.architecture.int8)
    if several:
        row["latencies_ms"] = {name: figure.value for name, figure in costs.latencies.items()}
    return row
