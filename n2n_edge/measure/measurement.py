"""Measurement of one model: quantiles, the interval of the median, memory, energy, and warnings about it."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from n2n_edge.errors import N2NError
from n2n_edge.measure.worker.timing import median_ranks
from n2n_edge.metrics.figures import Figure, Provenance
from n2n_edge.metrics.notices import Notice

__all__ = [
    "ConnectionLostError", "Energy", "Measurement", "MeasurementError", "Quantiles",
    "alone_in_failing", "load_warnings", "sample_warnings", "summarise",
]  # fmt: skip

NOISY_RATIO = 1.5
OUTLIER_RATIO = 2.0
OUTLIER_SHARE = 0.01
SLOW_START_RATIO = 1.1
DRIFT = 0.03
BUSY_CORES = 0.3
LEAST_FOR_TRENDS = 30


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
    warnings: tuple[Notice, ...] = ()

    @property
    def n(self) -> int:
        """How many runs were timed."""
        return self.quantiles.n

    @property
    def p50_ms(self) -> float:
        """The median time of a run."""
        return self.quantiles.p50_ms

    def warned(self, *warnings: Notice) -> "Measurement":
        """Return the measurement with more warnings."""
        return replace(self, warnings=(*self.warnings, *warnings))

    def latency(self) -> Figure:
        """Return the median with its 95% interval."""
        times = self.quantiles
        low, high = times.p50_low_ms, times.p50_high_ms
        return Figure(times.p50_ms, "ms", self.provenance, low=low, high=high, n=times.n, runtime=self.runtime)


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


def sample_warnings(
    samples_ms: Sequence[float], quantiles: Quantiles, converged: bool, max_time_s: float
) -> list[Notice]:
    """Return warnings about the times themselves, in the order in which they were taken."""
    warnings = []
    median = quantiles.p50_ms
    if not converged:
        half_width = max(quantiles.p50_high_ms - median, median - quantiles.p50_low_ms)
        settled = f"not settled after {max_time_s:g} s and {quantiles.n} runs"
        text = f"{settled}: the median is known to {100 * half_width / median:.1f}%"
        warnings.append(Notice("not-settled", text, "allow more time or quieten the machine"))
    outliers = sum(sample > OUTLIER_RATIO * median for sample in samples_ms)
    if quantiles.p90_ms > NOISY_RATIO * median:
        text = f"noisy: one run in ten took more than {quantiles.p90_ms / median:.1f} times the median"
        warnings.append(Notice("noisy", text))
    elif outliers > OUTLIER_SHARE * len(samples_ms):
        text = f"outliers: {outliers} of {len(samples_ms)} runs took more than {OUTLIER_RATIO:g} times the median"
        warnings.append(Notice("outliers", text))
    if len(samples_ms) >= LEAST_FOR_TRENDS:
        warnings += _trends(samples_ms)
    return warnings


def load_warnings(others_cores: float | None, threads: int, cores: int, logical_cpus: int) -> list[Notice]:
    """Return warnings about who else used the machine meanwhile."""
    if threads > cores:
        return [Notice("too-many-threads", f"{threads} threads share {cores} cores")]
    if others_cores is not None and others_cores + threads > logical_cpus + BUSY_CORES:
        text = f"the machine was busy: other programs used {others_cores:.1f} of {logical_cpus} cores meanwhile"
        return [Notice("busy", text)]
    return []


def _trends(samples_ms: Sequence[float]) -> list[Notice]:
    """Return what changed in the course of the runs: a slow start, or a drift from the first third to the last."""
    n = len(samples_ms)
    start = statistics.median(samples_ms[: max(3, n // 20)])
    rest = statistics.median(samples_ms[n // 2 :])
    if start > SLOW_START_RATIO * rest:
        text = f"slow first runs: they took {start / rest:.2f} times what later ones did"
        return [Notice("slow-start", text, "warm up for longer")]
    third = n // 3
    first, last = sorted(samples_ms[:third]), sorted(samples_ms[-third:])
    change = statistics.median(last) / statistics.median(first) - 1
    apart = first[3 * third // 4] < last[third // 4] or last[3 * third // 4] < first[third // 4]
    if abs(change) > DRIFT and apart:
        how = "more" if change > 0 else "less"
        return [Notice("drift", f"drift: the last third of the runs took {abs(change):.1%} {how} than the first")]
    return []
