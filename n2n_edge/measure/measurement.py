"""The result of timing one model: quantiles, the interval of the median, memory, energy, and what was really used."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from n2n_edge.errors import N2NError
from n2n_edge.measure.worker import median_ranks
from n2n_edge.metrics.figures import Figure, Provenance

__all__ = [
    "ConnectionLostError",
    "Energy",
    "Measurement",
    "MeasurementError",
    "Quantiles",
    "alone_in_failing",
    "summarise",
]


class MeasurementError(N2NError):
    """A model could not be timed: the runtime crashed, hung, ran out of memory or failed (exit code 3)."""

    exit_code = 3


class ConnectionLostError(MeasurementError):
    """A connection to a board couldn't be made, or ended before its time (exit code 3)."""


@contextmanager
def alone_in_failing(label: str) -> Iterator[None]:
    """Turn whatever goes wrong with one model into an error that names it: the others keep their figures.

    Raises:
        N2NError: as it was raised, or a `MeasurementError` in place of anything that nobody expected.
    """
    try:
        yield
    except N2NError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or "no message"
        raise MeasurementError(f"{label}: unexpected {type(error).__name__}: {text}") from error


@dataclass(frozen=True)
class Quantiles:
    """Summary of a sample of times.

    All in ms, but for `cv`, the standard deviation over the mean. `p50_low_ms` to `p50_high_ms` is the 95% interval of
    the median, `mad_ms` the median absolute deviation from it.
    """

    n: int
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    mad_ms: float
    cv: float


@dataclass(frozen=True)
class Energy:
    """Energy of one inference in mJ, the idle level subtracted, and which sensors told it."""

    millijoules: float
    idle_watts: float
    source: str


@dataclass(frozen=True)
class Measurement:
    """How one model ran.

    Times in ms over `n` runs after warm-up; `p50_low_ms` to `p50_high_ms` is the 95% interval of the median by order
    statistics. `first_run_ms` and `session_ms` are the first inference and the creation of the session, `engine_ms` the
    building of an engine where the provider builds one.

    Memory: `arena_bytes` is what the runtime's allocator held, `arena_in_use_bytes` the most of it that was in use
    (None where the runtime doesn't tell). `rss_growth_bytes` is peak resident memory over that of a worker that has
    only imported the runtime; None for a worker that has run other models before, or where the system doesn't tell.

    `providers` are the ones the session ended up with. `converged` says whether the interval came within the tolerance
    before the time was up. `target` is where it ran.
    """

    quantiles: Quantiles
    samples_ms: tuple[float, ...]
    first_run_ms: float
    session_ms: float
    engine_ms: float | None
    file_size_bytes: int
    arena_bytes: int | None
    arena_in_use_bytes: int | None
    rss_growth_bytes: int | None
    energy: Energy | None
    threads: int
    batch: int
    providers: tuple[str, ...]
    runtime: str
    target: str
    converged: bool
    provenance: Provenance = "measured"
    warnings: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many runs were timed."""
        return self.quantiles.n

    @property
    def p50_ms(self) -> float:
        """The median time of a run."""
        return self.quantiles.p50_ms

    def latency(self) -> Figure:
        """Return the median with its 95% interval."""
        found = self.quantiles
        return Figure(found.p50_ms, "ms", self.provenance, low=found.p50_low_ms, high=found.p50_high_ms, n=found.n)


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
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    mean = statistics.fmean(ordered)
    return Quantiles(
        n=n,
        p50_ms=median,
        p50_low_ms=ordered[low],
        p50_high_ms=ordered[high],
        p90_ms=_nearest_rank(ordered, 90),
        p99_ms=_nearest_rank(ordered, 99),
        min_ms=ordered[0],
        max_ms=ordered[-1],
        mad_ms=statistics.median(abs(sample - median) for sample in ordered),
        cv=statistics.pstdev(ordered, mean) / mean if mean > 0 else 0.0,
    )


def _nearest_rank(ordered: Sequence[float], percent: int) -> float:
    return ordered[-(-percent * len(ordered) // 100) - 1]
