"""Scale of the driver: searches of up to a thousand workers whose evaluations only take time, on a clock of their own.

The driver, the proposer, the prices of candidates and the journal are real; an evaluation is an end on a virtual clock.
That clock goes by the driver's processor time, and jumps where the driver waits, so what else the machine does
doesn't count, and a search of hours takes seconds. Waiting for the disk isn't in it; it is timed and told beside.
"""

import argparse
import heapq
import json
import os
import pickle
import platform
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from n2n_edge._example import teacher_path
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.driver import SearchPlan, search
from n2n_edge.search.evaluations import AHEAD, Evaluations, Outcome, Pending, Request
from n2n_edge.search.evaluator import Evaluator, Objective
from n2n_edge.search.store import Journal

HERE = Path(__file__).parent


class Clock:
    """Seconds of processor time of this process, and what it would have waited."""

    def __init__(self) -> None:
        self.waited = 0.0

    @property
    def now(self) -> float:
        return time.process_time() + self.waited

    def wait_until(self, then: float) -> None:
        self.waited += max(0.0, then - self.now)


@dataclass
class Batch:
    """Trials without a pause between them: when the first began, and the last one to begin will end."""

    first: float
    last: float = 0.0
    trials: int = 0


@dataclass(order=True)
class End:
    at: float
    number: int
    pending: Pending


class Sleeping(Evaluations):
    """So many workers, each evaluation of which takes `seconds`."""

    aside = True

    def __init__(self, workers: int, seconds: float) -> None:
        self.width, self.seconds = workers, seconds
        self.clock = Clock()
        self.ends: list[End] = []
        self.line: deque[Pending] = deque()
        self.batches: list[Batch] = []
        self.idle = True
        self.sent_bytes = 0

    @property
    def begun(self) -> int:
        return sum(batch.trials for batch in self.batches)

    def begin(self, request: Request) -> Pending:
        self.line.append(Pending(request))
        pending = self.line[-1]
        self._look()
        return pending

    @property
    def full(self) -> bool:
        return len(self.line) + len(self.ends) >= self.width + AHEAD

    def wait(self) -> None:
        if self.ends:
            self.clock.wait_until(self.ends[0].at)
            self._look()
            self.idle = not self.ends  # all that was asked for has ended, and its results are waited for

    def _look(self) -> None:
        """Take what has ended by now, and send what is in line to the workers that are free."""
        while self.ends and self.ends[0].at <= self.clock.now:
            self._end()
        while self.line and len(self.ends) < self.width:
            pending = self.line.popleft()
            if self.idle:
                self.batches.append(Batch(self.clock.now))
                self.idle = False
            self.sent_bytes += len(pickle.dumps(pending.request.make()))
            batch = self.batches[-1]
            batch.trials, batch.last = batch.trials + 1, self.clock.now + self.seconds
            heapq.heappush(self.ends, End(batch.last, self.begun, pending))

    def _end(self) -> None:
        end = heapq.heappop(self.ends)
        score = 0.5 + int(end.pending.request.key[:6], 16) % 1000 / 4000
        end.pending.outcome = Outcome(score, 1.0 - score, self.seconds, self.seconds)

    def close(self) -> None:
        """Nothing."""


def simulated(workers: int, seconds: float, policy: str, each: int) -> dict[str, float]:
    """Return how a search of so many trials for `each` worker went, asked for all at once."""
    evaluations = Sleeping(workers, seconds)
    with tempfile.TemporaryDirectory() as folder, Journal.create(Path(folder) / "journal.sqlite", {}) as journal:
        spent, wall = searched(evaluations, journal, policy, each * workers + 1)
        trained = len({trial.key for trial in journal.trials("shrinkage") if trial.feasible})
    batch = max(evaluations.batches, key=lambda batch: batch.trials)
    took, trials = batch.last - batch.first, batch.trials
    return {
        "workers": workers,
        "trial_s": seconds,
        "trials": trials,
        "trained": trained,
        "took_s": round(took, 3),
        "linear_share": round(trials * seconds / (workers * took), 4),
        "driver_ms_per_trial": round(1000 * spent / evaluations.begun, 2),
        "sent_kb_per_trial": round(evaluations.sent_bytes / 1000 / evaluations.begun, 1),
        "wall_s": round(wall, 1),
    }


def searched(evaluations: Sleeping, journal: Journal, policy: str, trials: int) -> tuple[float, float]:
    """Search with a half of the parameters as budget, on a predicted device; return processor time and wall time."""
    teacher = Teacher.load(teacher_path())
    budgets = [Budget("params", 0.5 * sum(layer.params for layer in teacher.layers))]
    with WarmWorker() as worker:
        meter = CostMeter(teacher, load_profile("raspberry-pi-4"), budgets, journal, worker)
        objective = Objective.choose("params", meter.static(build(teacher, teacher.full)), budgets)
        evaluator = Evaluator(teacher, meter, None, 1.0, 0.0, 20.0, objective, journal, 0, evaluations=evaluations)  # type: ignore[arg-type]
        plan = SearchPlan(policy, 0, 1, trials, proposals=trials)
        spent, start = time.process_time(), time.monotonic()
        search(evaluator, plan, journal, [], lambda: None)  # type: ignore[arg-type, return-value]
        return time.process_time() - spent, time.monotonic() - start


def journal_write_ms() -> float:
    """Return the median of a write of the journal, on the clock."""
    times = []
    with tempfile.TemporaryDirectory() as folder, Journal.create(Path(folder) / "journal.sqlite", {}) as journal:
        for number in range(200):
            start = time.perf_counter()
            journal.store("accuracy", str(number), {"accuracy": 0.5})
            times.append(time.perf_counter() - start)
    return 1000 * sorted(times)[len(times) // 2]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    options.add_argument("--per-worker-ms", type=float, nargs="+", default=[200.0, 50.0, 20.0, 10.0, 5.0])
    options.add_argument("--each", type=int, default=10, help="trials for each worker")
    options.add_argument("--policy", default="random")
    options.add_argument("--out", type=Path, default=HERE / "simulated.json")
    given = options.parse_args()
    found: dict[str, object] = {
        "policy": given.policy,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "journal_write_ms": round(journal_write_ms(), 2),
    }
    rows: list[dict[str, float]] = []
    for workers in given.workers:
        for each_ms in given.per_worker_ms:
            rows.append(simulated(workers, workers * each_ms / 1000, given.policy, given.each))
            rows[-1]["load"] = round(os.getloadavg()[0], 1)
            print(rows[-1], flush=True)
            given.out.write_text(json.dumps({**found, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
