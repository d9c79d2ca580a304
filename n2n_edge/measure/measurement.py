"""The result of timing one model: quantiles, the interval of the median, memory, and what was really used."""

from collections.abc import Sequence
from dataclasses import dataclass

from n2n_edge.errors import N2NError
from n2n_edge.figures import Figure, Provenance
from n2n_edge.measure.worker import median_ranks

__all__ = ["Measurement", "MeasurementError", "Quantiles", "summarise"]


class MeasurementError(N2NError):
    """A model could not be timed: the runtime crashed, hung, ran out of memory or failed (exit code 3)."""

    exit_code = 3


@dataclass(frozen=True)
class Quantiles:
    """Summary of a sample of times, all in ms; `p50_low_ms` to `p50_high_ms` is the 95% interval of the median."""

    n: int
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float


@dataclass(frozen=True)
class Measurement:
    """How one model ran on this machine.

    Times in ms over `n` runs after warm-up; `p50_low_ms` to `p50_high_ms` is the 95% interval of the median by order
    statistics. `first_run_ms` and `session_ms` are the first inference and the creation of the session.
    `rss_growth_bytes`
    is peak resident memory over that of a worker that has only imported the runtime; None for a worker that has run
    other models before, or where the system doesn't tell. `providers` are the ones the session ended up with.
    `converged` says whether the interval came within the tolerance before the time was up.
    """

    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    n: int
    first_run_ms: float
    session_ms: float
    file_size_bytes: int
    rss_growth_bytes: int | None
    threads: int
    batch: int
    providers: tuple[str, ...]
    runtime: str
    converged: bool
    provenance: Provenance = "measured"
    warnings: tuple[str, ...] = ()

    def latency(self) -> Figure:
        """Return the median with its 95% interval."""
        return Figure(self.p50_ms, "ms", self.provenance, low=self.p50_low_ms, high=self.p50_high_ms, n=self.n)


def summarise(samples_ms: Sequence[float]) -> Quantiles:
    """Return the quantiles of a sample.

    p90 and p99 are samples that were seen (nearest rank). Below six samples the interval is the whole range.

    Raises:
        ValueError: no samples.
    """
    if not samples_ms:
        raise ValueError("no samples to summarise")
    ordered = sorted(samples_ms)
    n = len(ordered)
    low, high = median_ranks(n) or (0, n - 1)
    return Quantiles(
        n=n,
        p50_ms=(ordered[(n - 1) // 2] + ordered[n // 2]) / 2,
        p50_low_ms=ordered[low],
        p50_high_ms=ordered[high],
        p90_ms=_nearest_rank(ordered, 90),
        p99_ms=_nearest_rank(ordered, 99),
        min_ms=ordered[0],
        max_ms=ordered[-1],
    )


def _nearest_rank(ordered: Sequence[float], percent: int) -> float:
    return ordered[-(-percent * len(ordered) // 100) - 1]
