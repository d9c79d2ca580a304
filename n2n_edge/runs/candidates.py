"""The candidates of a run as its journal tells them, in the order in which reports count them."""

from collections.abc import Mapping, Sequence
from typing import cast

from n2n_edge.metrics.figures import Figure, FigureJson
from n2n_edge.report.comparison import figure_of
from n2n_edge.report.document import CandidateJson
from n2n_edge.search.journal import Candidate, Journal
from n2n_edge.search.journal_errors import damaged

__all__ = ["STAGES", "candidate_rows", "entropy_of", "latencies_of", "listed_candidates", "place_of"]

STAGES = {"removal": 1, "shrinkage": 2}
"""The numbers that reports give the stages."""


def listed_candidates(journal: Journal) -> tuple[Candidate, ...]:
    """Return the candidates of both stages in the order judged; candidate N is the N-th, counted from one.

    Raises InputError for a journal with candidates of another stage.
    """
    rows = journal.candidates()
    unknown = next((row.stage for row in rows if row.stage not in STAGES), None)
    if unknown is not None:
        raise damaged(journal.path, f"stage of a candidate: {unknown[:40]!r}")
    return tuple(sorted(rows, key=lambda row: (STAGES[row.stage], row.position)))


def place_of(key: str, candidates: Sequence[Candidate]) -> int | None:
    """Return the place of the first candidate with this architecture; None where there is none."""
    return next((place for place, row in enumerate(candidates) if row.key == key), None)


def candidate_rows(journal: Journal) -> list[CandidateJson]:
    """Return the candidates as `report.json` has them."""
    several = "other_profiles" in journal.meta()
    return [_row(candidate, entropy_of(journal, candidate), several) for candidate in listed_candidates(journal)]


def latencies_of(candidate: Candidate, device: str) -> dict[str, Figure]:
    """Return a candidate's latencies by device name; older journals kept one value, that of the run's `device`."""
    known = candidate.costs.get("latencies")
    if known is not None:
        return {name: figure_of(figure) for name, figure in cast("Mapping[str, FigureJson]", known).items()}
    if "latency_ms" not in candidate.costs:
        return {}
    return {device: Figure(float(candidate.costs["latency_ms"]), "ms", candidate.provenance)}  # type: ignore[arg-type]


def entropy_of(journal: Journal, candidate: Candidate) -> float | None:
    """Return how undecided the policy was when it proposed a candidate; None where nobody noted it."""
    known = journal.cached("entropy", f"{candidate.stage}/{candidate.batch}")
    return None if known is None else float(known["entropy"])


def _row(candidate: Candidate, entropy: float | None, several: bool) -> CandidateJson:
    costs = candidate.costs
    row: CandidateJson = {
        "stage": STAGES[candidate.stage],
        "index": candidate.position,
        "reward": candidate.reward,
        "accuracy": candidate.accuracy,
        "feasible": candidate.feasible,
        "params": int(costs["params"]),
        "size_mb": float(costs["size_mb"]),
        "macs": int(costs["macs"]),
        "memory_bound_mb": float(costs["memory_bound_mb"]),
        "latency_ms": float(costs["latency_ms"]) if "latency_ms" in costs else None,
        "entropy": entropy,
        "trained": candidate.accuracy is not None,
    }
    if several:
        row["latencies_ms"] = {name: float(figure["value"]) for name, figure in costs.get("latencies", {}).items()}
    return row
