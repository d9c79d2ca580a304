"""Best reward against candidates for every policy, over several seeds.

``python benchmarks/policy/run.py TEACHERS CIFAR [--seeds 5] [--candidates 30]`` searches students of ResNet-20 for a
Raspberry Pi 4 with real short distillations, without training any winner; TEACHERS is the folder with
``resnet20_jpeg.onnx``. Writes ``results.json`` and ``results.md``; rows that are there are kept.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from n2n_edge.data.dataset import load_data
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.latency.model import LatencyModel
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.driver import Progress, SearchPlan, search
from n2n_edge.search.evaluator import Evaluator, Objective
from n2n_edge.search.store import Journal
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.settings import DistillSettings

HERE = Path(__file__).parent
POLICIES, OTHERS = ("reinforce", "random", "n2n"), ("evolution", "greedy")
REMOVAL_SHARE = 0.4
PARAMS_SHARE, LATENCY_SHARE = 0.3, 0.5
"""Budgets: params and predicted latency that the student may have, of the teacher's."""

SCRATCH = {
    "from the Jetson": "reinforce",
    "from the digits": "reinforce",
    "ResNet-56 from scratch": "ResNet-56 from scratch",
    "ResNet-56 from ResNet-20": "ResNet-56 from scratch",
}
"""Rows of an earlier state, whose searches could start from policies of others, and what each is held against."""


def main() -> None:
    """Run every policy with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--other-seeds", type=int, default=3, help="of evolution and greedy")
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--images", type=int, default=512, help="images of a short distillation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    network = Network(options.teachers / "resnet20_jpeg.onnx", options.data, options.images)

    def keep(key: str, row: dict[str, object]) -> None:
        rows[key] = row
        print(key, row["best"][-1], row["seconds"], flush=True)  # type: ignore[index]
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
        write_table(rows, options.out.with_suffix(".md"))

    def fill(policies: tuple[str, ...], seeds: int) -> None:
        for seed in range(seeds):
            for policy in policies:
                if f"{policy}/{seed}" not in rows:
                    keep(f"{policy}/{seed}", network.search(policy, seed, options.candidates))

    fill(POLICIES, options.seeds)
    fill(OTHERS, options.other_seeds)


class Network:
    """A teacher, its data and one distiller that all policies share."""

    def __init__(self, path: Path, data: str, images: int) -> None:
        self.teacher = Teacher.load(path)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        loaded = load_data(data, input_shape=(3, 32, 32), classes=10, mean=mean, std=std)
        settings = DistillSettings(calibration_images=512)
        self.distiller = ShortDistiller(self.teacher.model, loaded, images, settings)
        self.profiler = ShortDistiller.refitting(self.teacher.model, loaded, settings)

    def search(self, policy: str, seed: int, candidates: int) -> dict[str, object]:
        """Return the best reward and the seconds after each trained candidate, and the winner."""
        best: list[float] = []
        seconds: list[float] = []
        seen: set[str] = set()
        start = time.perf_counter()

        def watch(progress: Progress) -> None:
            trial = progress.trial
            if trial.feasible and trial.key not in seen:
                seen.add(trial.key)
                best.append(max([trial.reward, *best[-1:]]))
                seconds.append(round(time.perf_counter() - start, 1))

        profile = load_profile("raspberry-pi-4")
        budgets = [
            Budget("params", PARAMS_SHARE * sum(layer.params for layer in self.teacher.layers)),
            Budget("latency_ms", LATENCY_SHARE * LatencyModel(profile).estimate(self.teacher.model).figure.value),
        ]
        with (
            tempfile.TemporaryDirectory() as folder,
            WarmWorker() as worker,
            Journal.create(Path(folder) / "journal.sqlite") as journal,
        ):
            meter = CostMeter(self.teacher, profile, budgets, journal, worker, accept_expected=True)
            base = meter.static(build(self.teacher, self.teacher.full))
            objective = Objective.choose(None, base, budgets)
            known = self.distiller
            evaluator = Evaluator(
                self.teacher, meter, known, known.teacher.metric, known.teacher_loss, known.constant_loss, objective,
                journal, seed,
            )  # fmt: skip
            removal = round(REMOVAL_SHARE * candidates)
            plan = SearchPlan(policy, seed, removal, candidates - removal)
            found = search(evaluator, plan, journal, [], lambda: self.profiler, watch)
        assert found.winner is not None
        return {
            "best": [round(value, 5) for value in best],
            "seconds": seconds,
            "winner": found.winner.architecture.to_json(),
        }


def write_table(rows: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Write medians over seeds: the best reward at the end, and what it takes to reach the best of other policies."""
    by_policy: dict[str, list[Mapping[str, list[float]]]] = {}
    for key, row in rows.items():
        by_policy.setdefault(key.rpartition("/")[0], []).append(row)
    marks = {name: statistics.median(row["best"][-1] for row in found) for name, found in by_policy.items()}
    lines = [
        "| policy | seeds | best reward: median (least to most) | candidates to random's best | to n2n's best "
        "| to its best from scratch | s to random's best | s in all |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for policy, found in by_policy.items():
        ends = [row["best"][-1] for row in found]
        large = policy.startswith("ResNet-56")
        cells = [_needed(found, marks.get(mark), "count") if not large else "" for mark in ("random", "n2n")]
        cells.append(_needed(found, marks.get(SCRATCH[policy]), "count") if policy in SCRATCH else "")
        cells.append("" if large else _needed(found, marks.get("random"), "seconds"))
        spread = f"{statistics.median(ends):.4f} ({min(ends):.4f} to {max(ends):.4f})"
        total = statistics.median(row["seconds"][-1] for row in found)
        lines.append(f"| {policy} | {len(found)} | {spread} | {' | '.join(cells)} | {total:.0f} |")
    path.write_text("\n".join(lines) + "\n")


def _needed(rows: list[Mapping[str, list[float]]], mark: float | None, unit: str) -> str:
    if mark is None:
        return ""
    found = []
    for row in rows:
        place = next((place for place, best in enumerate(row["best"]) if best >= mark), None)
        found.append(float("inf") if place is None else place + 1 if unit == "count" else row["seconds"][place])
    middle = statistics.median(found)
    return "not reached" if middle == float("inf") else f"{middle:.0f}"


if __name__ == "__main__":
    main()
