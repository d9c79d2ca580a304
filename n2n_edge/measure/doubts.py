"""What is doubtful about a measurement, in words: nothing is dropped from a sample, it is named."""

import statistics
from collections.abc import Sequence

from n2n_edge.measure.board import BoardState
from n2n_edge.measure.measurement import MeasurementError, Quantiles

__all__ = ["doubts_of_load", "doubts_of_sample", "doubts_of_state", "refuse_throttled"]

NOISY_RATIO = 1.5
OUTLIER_RATIO = 2.0
OUTLIER_SHARE = 0.01
SLOW_START_RATIO = 1.1
DRIFT = 0.03
BUSY_CORES = 0.3
CLOCK_CHANGE = 0.05
LEAST_FOR_TRENDS = 30


def doubts_of_sample(
    samples_ms: Sequence[float], quantiles: Quantiles, converged: bool, max_time_s: float
) -> list[str]:
    """Return doubts about the times themselves, in the order in which they were taken."""
    found = []
    median = quantiles.p50_ms
    if not converged:
        half_width = max(quantiles.p50_high_ms - median, median - quantiles.p50_low_ms)
        found.append(
            f"not settled after {max_time_s:g} s and {quantiles.n} runs: the median is known to "
            f"{100 * half_width / median:.1f}%; allow more time or quieten the machine"
        )
    if quantiles.p90_ms > NOISY_RATIO * median:
        found.append(f"noisy: one run in ten took more than {quantiles.p90_ms / median:.1f} times the median")
    outliers = sum(sample > OUTLIER_RATIO * median for sample in samples_ms)
    if outliers > OUTLIER_SHARE * len(samples_ms) and quantiles.p90_ms <= NOISY_RATIO * median:
        found.append(
            f"outliers: {outliers} of {len(samples_ms)} runs took more than {OUTLIER_RATIO:g} times the median"
        )
    if len(samples_ms) >= LEAST_FOR_TRENDS:
        found += _trends(samples_ms)
    return found


def doubts_of_load(others_cores: float | None, threads: int, cores: int, logical_cpus: int) -> list[str]:
    """Return doubts about who else used the machine meanwhile."""
    if threads > cores:
        return [f"{threads} threads share {cores} cores"]
    if others_cores is not None and others_cores + threads > logical_cpus + BUSY_CORES:
        return [f"the machine was busy: other programs used {others_cores:.1f} of {logical_cpus} cores meanwhile"]
    return []


def doubts_of_state(before: BoardState, after: BoardState, clocks_mhz: Sequence[float | None]) -> list[str]:
    """Return doubts about the machine's clocks."""
    found = list(after.doubts())
    known = [clock for clock in clocks_mhz if clock]
    if len(known) > 1 and max(known) > (1 + CLOCK_CHANGE) * min(known):
        found.append(f"the clock changed meanwhile, between {min(known):.0f} and {max(known):.0f} MHz")
    if before.power_mode != after.power_mode:
        found.append(f"the power mode changed meanwhile, from {before.power_mode} to {after.power_mode}")
    return found


def refuse_throttled(label: str, target: str, state: BoardState, before: BoardState | None = None) -> None:
    """Raise `MeasurementError` if the board is being throttled, or has been since `before`: what was timed is void."""
    meanwhile = () if before is None else tuple(set(state.was_throttled) - set(before.was_throttled))
    if state.throttled or meanwhile:
        when = (
            f"is {' and '.join(state.throttled)} now" if state.throttled else f"was {' and '.join(meanwhile)} meanwhile"
        )
        raise MeasurementError(f"{label}: void, {target} {when}; mend its cooling or power supply and measure again")


def _trends(samples_ms: Sequence[float]) -> list[str]:
    """Return what changed in the course of the runs: a slow start, or a drift from the first third to the last."""
    n = len(samples_ms)
    start = statistics.median(samples_ms[: max(3, n // 20)])
    rest = statistics.median(samples_ms[n // 2 :])
    if start > SLOW_START_RATIO * rest:
        return [f"slow first runs: they took {start / rest:.2f} times what later ones did; warm up for longer"]
    third = n // 3
    first, last = sorted(samples_ms[:third]), sorted(samples_ms[-third:])
    change = statistics.median(last) / statistics.median(first) - 1
    apart = first[3 * third // 4] < last[third // 4] or last[3 * third // 4] < first[third // 4]
    if abs(change) > DRIFT and apart:
        how = "more" if change > 0 else "less"
        return [f"drift: the last third of the runs took {abs(change):.1%} {how} than the first"]
    return []
