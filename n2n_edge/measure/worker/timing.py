"""Timing of runs, and the interval of their median."""

from __future__ import annotations

import functools
import gc
import statistics
import threading
import time
from typing import Any

from . import MAX_SAMPLES

WARM_UP_RUNS = 3


WARM_UP_S = 0.2


@functools.lru_cache(maxsize=4096)
def median_ranks(n: int, miss: float = 0.05) -> tuple[int, int] | None:
    """Return 0-based ranks (low, high) of the sorted samples that bound the median but for a chance of `miss`.

    Order statistics: the number of samples below the median is binomial(n, 1/2), whatever the distribution (Conover,
    Practical Nonparametric Statistics, 3.2). None for samples so few that no pair of ranks is that sure: below six for
    a miss of 0.05, below eight for 0.01.
    """
    if n > 1000:
        low = int(n / 2 - statistics.NormalDist().inv_cdf(1 - miss / 2) / 2 * n**0.5) - 1
        return low, n - 1 - low
    term, tail, low = 0.5**n, 0.0, -1
    if 2 * term > miss:
        return None
    while tail + term <= miss / 2:
        tail += term
        low += 1
        term *= (n - low) / (low + 1)
    return low, n - 1 - low


def within_tolerance(samples: list[float], tolerance: float) -> bool:
    """Return whether both ends of the median's 95% interval lie within `tolerance` (a share) of the median."""
    ranks = median_ranks(len(samples))
    if ranks is None:
        return False
    ordered = sorted(samples)
    n = len(ordered)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return max(ordered[ranks[1]] - median, median - ordered[ranks[0]]) <= tolerance * median


def warm_up(run: Any, longest_s: float) -> None:
    """Run a few times untimed: caches, branch predictors and clocks settle."""
    start = time.perf_counter()
    count, elapsed = 0, 0.0
    while elapsed < min(WARM_UP_S, longest_s) or (count < WARM_UP_RUNS and elapsed < longest_s):
        run()
        count += 1
        elapsed = time.perf_counter() - start


def time_runs(run: Any, request: dict[str, Any]) -> tuple[list[float], bool]:
    """Return the times (ms) of repeated runs, and whether the median's 95% interval came within the tolerance."""
    clock = time.perf_counter_ns
    samples: list[float] = []
    converged = False
    next_check = 6
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        while len(samples) < MAX_SAMPLES:
            before = clock()
            run()
            samples.append((clock() - before) / 1e6)
            elapsed = time.perf_counter() - start
            if elapsed >= request["max_time_s"]:
                break
            # checks get rarer as samples accumulate, so that sorting stays a small part of the time
            if len(samples) >= next_check and elapsed >= request["min_time_s"]:
                if within_tolerance(samples, request["tolerance"]):
                    break
                next_check = len(samples) + max(5, len(samples) // 10)
        converged = within_tolerance(samples, request["tolerance"])
    finally:
        gc.enable()
    return samples, converged


def time_block(run: Any, seconds: float, least: int) -> list[float]:
    """Return the times (ms) of at least `least` runs that fill `seconds`."""
    clock = time.perf_counter_ns
    samples: list[float] = []
    gc.disable()
    try:
        end = clock() + int(seconds * 1e9)
        while len(samples) < least or clock() < end:
            before = clock()
            run()
            samples.append((clock() - before) / 1e6)
    finally:
        gc.enable()
    return samples


def throughput(runs: list[Any], seconds: float) -> dict[str, Any]:
    """Return how many runs as many threads finished on one session, window by window, and how long each took (ms)."""
    clock = time.perf_counter
    finished: list[list[tuple[float, float]]] = [[] for _ in runs]
    stop = threading.Event()
    failures: list[BaseException] = []

    def stream(run: Any, own: list[tuple[float, float]]) -> None:
        try:
            while not stop.is_set():
                before = clock()
                run()
                after = clock()
                own.append((after, (after - before) * 1000))
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=stream, args=pair, daemon=True) for pair in zip(runs, finished)]
    for thread in threads:
        thread.start()
    start = clock()
    stop.wait(seconds)
    end = clock()
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    done = [(at, took) for own in finished for at, took in own if start <= at <= end]
    windows = 10
    counts = [0] * windows
    for at, _ in done:
        counts[min(windows - 1, int((at - start) / (end - start) * windows))] += 1
    return {"seconds": end - start, "window_counts": counts, "samples_ms": [took for _, took in done][:MAX_SAMPLES]}
