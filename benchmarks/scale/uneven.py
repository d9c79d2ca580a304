"""Share of workers that are idle where evaluations take unevenly long, by the size of a batch of proposals.

Times are log-normal with a mean of one. A batch is handed out as workers come free, and the next one is proposed when
all of it has ended. Beside it: a window, in which a candidate is proposed as soon as the results of all but the last so
many before it are known. The driver takes no time here; `simulate.py` has it.
"""

import argparse
import heapq
import json
import sqlite3
import statistics
from math import log
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def of_batches(workers: int, size: int, spread: float, batches: int, random: np.random.Generator) -> float:
    """Return the idle share of so many batches, each of `size` candidates."""
    busy = took = 0.0
    for _ in range(batches):
        seconds = random.lognormal(-(spread**2) / 2, spread, size)
        ends = [0.0] * workers
        for each in seconds:
            heapq.heapreplace(ends, ends[0] + each)
        busy, took = busy + float(seconds.sum()), took + max(ends)
    return 1 - busy / (workers * took)


def of_a_window(workers: int, size: int, spread: float, candidates: int, random: np.random.Generator) -> float:
    """Return the idle share where candidate `n` is proposed when the results up to ``n - size`` are known, in order."""
    seconds = random.lognormal(-(spread**2) / 2, spread, candidates)
    ends = [0.0] * workers
    told: list[float] = []
    for number, each in enumerate(seconds):
        start = max(heapq.heappop(ends), told[number - size] if number >= size else 0.0)
        heapq.heappush(ends, start + each)
        told.append(max(start + each, told[-1] if told else 0.0))
    return 1 - float(seconds.sum()) / (workers * max(ends))


def spread_of(journal: Path) -> dict[str, float]:
    """Return how unevenly long the evaluations of a run took: the standard deviation of the logarithm of seconds."""
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT value FROM facts WHERE kind = 'accuracy'").fetchall()
    seconds = [json.loads(value)["seconds"] for (value,) in rows]
    logs = [log(each) for each in seconds if each > 0]
    return {
        "evaluations": len(logs),
        "median_s": round(statistics.median(seconds), 2),
        "spread": round(statistics.stdev(logs), 2),
    }


def rounded(shares: dict[int, float]) -> dict[str, float]:
    """Return idle shares by candidates per worker."""
    return {str(times): round(float(share), 3) for times, share in shares.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16, 64])
    options.add_argument("--spreads", type=float, nargs="+", default=[0.1, 0.3, 0.6, 1.0])
    options.add_argument("--per-worker", type=int, nargs="+", default=[1, 2, 4, 8])
    options.add_argument("--candidates", type=int, default=40_000)
    options.add_argument("--journals", type=Path, nargs="*", default=[], help="runs whose own spread is told")
    given = options.parse_args()
    random = np.random.default_rng(0)
    rows = []
    for workers in given.workers:
        for spread in given.spreads:
            sizes = {times: times * workers for times in given.per_worker}
            batches = {
                times: of_batches(workers, size, spread, given.candidates // size, random)
                for times, size in sizes.items()
            }
            windows = {
                times: of_a_window(workers, size, spread, given.candidates, random) for times, size in sizes.items()
            }
            rows.append({"workers": workers, "spread": spread, "batch": rounded(batches), "window": rounded(windows)})
            print(rows[-1], flush=True)
    runs = [spread_of(path) for path in given.journals]
    (HERE / "uneven.json").write_text(json.dumps({"runs": runs, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
