"""Trials per hour of two workers of one core each against one, by turns, on two cores that do nothing else."""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def trials_per_hour(workers: int, candidates: int) -> float:
    """Return the rate of the second stage of a search on the built-in example; starting workers isn't counted."""
    import n2n_edge

    class Times(n2n_edge.RunCallback):
        def __init__(self) -> None:
            self.times: list[float] = []
            self.stages: list[str] = []

        def on_trial(self, progress: "n2n_edge.Progress") -> None:  # type: ignore[name-defined]
            self.times.append(time.monotonic())
            self.stages.append(progress.stage)

    times = Times()
    with tempfile.TemporaryDirectory() as folder:
        n2n_edge.compress(
            device="raspberry-pi-4", max_mb=0.3, effort="quick", candidates=candidates, epochs=1, policy="random",
            proposals=candidates, cluster="local", workers=workers, out=Path(folder) / "run", callbacks=[times],
        )  # fmt: skip
    second = [at for at, stage in zip(times.times, times.stages, strict=True) if stage == "shrinkage"]
    begun = max(at for at, stage in zip(times.times, times.stages, strict=True) if stage == "removal")
    return 3600 * len(second) / (second[-1] - begun)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--candidates", type=int, default=28)
    given = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, by the run and by its workers
    found: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(given.rounds):
        for workers in (1, 2):
            found[str(workers)].append(round(trials_per_hour(workers, given.candidates), 1))
            print(workers, found[str(workers)][-1], "load", os.getloadavg()[0], flush=True)
    ratio = statistics.median(found["2"]) / statistics.median(found["1"])
    result = {
        "trials_per_hour": found,
        "ratio": round(ratio, 3),
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
    }
    (HERE / "two_workers.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
