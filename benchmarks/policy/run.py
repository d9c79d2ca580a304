"""Best reward against candidates for every policy, over several seeds, and started from another run's policy.

``python benchmarks/policy/run.py [--seeds 5] [--candidates 30]`` searches students of the built-in example for a
Raspberry Pi 4 with real short distillations, without training any winner; writes ``results.json`` and ``results.md``.
``transferred`` is `reinforce` that starts from the policies of a search for a Jetson with another seed.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from n2n_edge._example import teacher_path
from n2n_edge.devices import load_profile
from n2n_edge.distill import DistillSettings, ShortDistiller, load_data
from n2n_edge.gate import Budget
from n2n_edge.graph import Teacher, build
from n2n_edge.measure import WarmWorker
from n2n_edge.search import CostMeter, Evaluator, Journal, Objective, Progress, SearchPlan, search

HERE = Path(__file__).parent
POLICIES = ("reinforce", "n2n", "random", "greedy", "evolution")
REMOVAL_SHARE = 0.4
BUDGET_SHARE = 0.04
"""Params that the student may have, of the teacher's."""


def main() -> None:
    """Run every policy with every seed; rows that are there are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--images", type=int, default=512, help="images of a short distillation")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    bench = Bench(options.images)
    for seed in range(options.seeds):
        for policy in (*POLICIES, "transferred"):
            key = f"{policy}/{seed}"
            if key in rows:
                continue
            states: Mapping[str, object] = {}
            if policy == "transferred":
                states = bench.run("reinforce", seed + 100, options.candidates, {}, device="jetson")[1]
            rows[key] = bench.run(policy, seed, options.candidates, states)[0]
            print(key, round(max(rows[key]), 4), flush=True)
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
    write_table(rows, options.out.with_suffix(".md"))


class Bench:
    """The example's teacher, its data and one distiller that all policies share."""

    def __init__(self, images: int) -> None:
        self.teacher = Teacher.load(teacher_path())
        self.data = load_data("builtin:digits", input_shape=(1, 16, 16), classes=10, mean=(0.3054,), std=(0.3187,))
        self.settings = DistillSettings(calibration_images=512, learning_rate=0.02)
        self.distiller = ShortDistiller(self.teacher.model, self.data, images, self.settings, validation_images=360)
        self.profiler = ShortDistiller(
            self.teacher.model, self.data, 1, self.settings, passes=0, validation_images=360, feature_images=128
        )

    def run(
        self, policy: str, seed: int, candidates: int, states: Mapping[str, object], device: str = "raspberry-pi-4"
    ) -> tuple[list[float], Mapping[str, object]]:
        """Return the best reward after each trained candidate, and what the policies learned."""
        rewards: list[float] = []
        seen: set[str] = set()

        def watch(progress: Progress) -> None:
            judged = progress.judged
            if judged.feasible and judged.architecture.key not in seen:
                seen.add(judged.architecture.key)
                rewards.append(judged.reward)

        budgets = [Budget("params", BUDGET_SHARE * sum(layer.params for layer in self.teacher.layers))]
        with (
            tempfile.TemporaryDirectory() as folder,
            WarmWorker() as worker,
            Journal.create(Path(folder) / "journal.sqlite") as journal,
        ):
            meter = CostMeter(self.teacher, load_profile(device), budgets, journal, worker)
            base = meter.static(build(self.teacher, self.teacher.full))
            objective = Objective.choose(None, base, budgets)
            accuracy = self.distiller.teacher.metric
            evaluator = Evaluator(self.teacher, meter, self.distiller, accuracy, objective, journal, seed)
            removal = round(REMOVAL_SHARE * candidates)
            name = "reinforce" if policy == "transferred" else policy
            plan = SearchPlan(name, seed, removal, candidates - removal, 1, states)  # type: ignore[arg-type]
            found = search(evaluator, plan, journal, lambda: self.distiller, lambda: self.profiler, watch)
        best = [max(rewards[: count + 1]) for count in range(len(rewards))]
        return best, found.policy_states


def write_table(rows: Mapping[str, list[float]], path: Path) -> None:
    """Write medians over seeds: the best reward at the end, and after how many candidates random's best is reached."""
    by_policy: dict[str, dict[str, list[float]]] = {}
    for key, curve in rows.items():
        policy, _, seed = key.partition("/")
        by_policy.setdefault(policy, {})[seed] = curve
    marks = {policy: statistics.median(c[-1] for c in curves.values()) for policy, curves in by_policy.items()}
    lines = [
        "| policy | best reward, median (lowest to highest) | candidates to random's best | to n2n's best |",
        "| --- | --- | --- | --- |",
    ]
    for policy, curves in by_policy.items():
        ends = [curve[-1] for curve in curves.values()]
        needed = [_needed(list(curves.values()), marks[mark]) for mark in ("random", "n2n")]
        spread = f"{statistics.median(ends):.4f} ({min(ends):.4f} to {max(ends):.4f})"
        lines.append(f"| {policy} | {spread} | {needed[0]} | {needed[1]} |")
    path.write_text("\n".join(lines) + "\n")


def _needed(curves: list[list[float]], mark: float) -> str:
    counts = sorted(next((i + 1 for i, best in enumerate(curve) if best >= mark), 10**9) for curve in curves)
    middle = counts[len(counts) // 2]
    return str(middle) if middle < 10**9 else "not reached"


if __name__ == "__main__":
    main()
