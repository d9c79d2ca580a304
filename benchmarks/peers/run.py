"""Ways to choose a student, on equal terms: the same budget, the same images, the same distillation.

From the repository's root: ``python -m benchmarks.peers.run TEACHERS CIFAR WORK`` fills ``results.json`` and writes
``results.md``; rows that are there are kept, a run that was killed is gone on with. TEACHERS holds
``resnet20_jpeg.onnx`` and ``resnet56_jpeg.onnx``; those of ``benchmarks/teachers`` go by their names. CIFAR is a folder
of images per class with train/ and test/, WORK gets the runs. ``--networks``, ``--budgets``, ``--ways`` and ``--seeds``
choose a part. ``torch-pruning`` and ``onnx2torch`` are needed for one row alone, ``nvidia-modelopt`` for another.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from scipy.stats import t as student_t

import n2n_edge
from benchmarks.peers.fastnas import fastnas_architecture
from benchmarks.precision.joint import MEAN, STD, Progress, add_row, few
from benchmarks.tasks.torch_pruned import pruned_by_torch_pruning, sparse_learned
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.load import save_model
from n2n_edge.graph.teacher import build, surviving
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.measure.options import BenchOptions
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import Cost
from n2n_edge.runs.final import FinalPlan, train_to_the_end
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.prepare import Prepared, prepare
from n2n_edge.runs.run import Run
from n2n_edge.runs.schedule import Schedule
from n2n_edge.runs.unit_order import with_kept_order
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.precision import Base
from n2n_edge.search.store import Journal
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.training.distillation import distill
from n2n_edge.training.file_evaluation import file_meters
from n2n_edge.training.reconstruct import reconstructed

HERE = Path(__file__).parent
PI = "raspberry-pi-4"
SEARCHED: Mapping[str, Mapping[str, Any]] = {
    "ours": {"policy": "reinforce", "merging": False},
    "ours, half": {"policy": "reinforce", "merging": False, "share": 0.5},
    "ours, merging": {"policy": "reinforce", "merging": True},
    "n2n": {"policy": "n2n"},
    "random": {"policy": "random"},
    "random, merging": {"policy": "random", "merging": True},
    "evolution": {"policy": "evolution"},
    "greedy": {"policy": "greedy"},
}
"""Settings of ways that search; `share` is that of the candidates which the others have."""
CUT = ("plan", "uniform", "torch-pruning", "torch-pruning, sparse", "fastnas")
"""Ways that train no candidate: what ours begins with, every group as wide as the others, what Torch-Pruning takes by
group magnitude, without and with its sparse learning, and what FastNAS of nvidia-modelopt takes of a ResNet."""
BUDGETS: Mapping[str, tuple[Cost, str, float]] = {
    "pi4/0.65": ("latency_ms", PI, 0.65), "pi4/2": ("latency_ms", PI, 0.5), "pi4/0.35": ("latency_ms", PI, 0.35),
    "host/2": ("latency_ms", "cpu", 0.5), "host/0.35": ("latency_ms", "cpu", 0.35),
    "params/4": ("params", PI, 0.25),
}  # fmt: skip
"""What is limited, on which device, and to which share of the teacher's."""
Row = dict[str, Any]


class Case:
    """A teacher and a budget, searched on the images of a seed."""

    def __init__(self, given: argparse.Namespace, network: str, budget: str, seed: int) -> None:
        self.given, self.seed = given, seed
        own = HERE.parent / "teachers" / f"{network}.onnx"
        self.teacher: Path = own if own.exists() else given.teachers / f"{network}_jpeg.onnx"
        self.name = f"{network}-{budget}-{seed}".replace("/", "-")
        self.source = few(given.cifar, given.work, given.images, seed)
        self.limited, self.device, share = BUDGETS[budget]
        self.budget = Budget(self.limited, share * self.cost(self.teacher))

    def cost(self, path: Path) -> float:
        """Return what the budget limits: predicted or measured ms, or parameters."""
        if self.limited == "params":
            return float(n2n_edge.costs(n2n_edge.Teacher.load(path).model).params)
        if self.device == "cpu":
            # on every core that it may use, as a run times its candidates
            return n2n_edge.bench(path, BenchOptions(max_time_s=5.0)).measurement.p50_ms
        return n2n_edge.predict(path, self.device).figure.value

    def run(self, way: str) -> tuple[Run, Prepared, RunFolder]:
        """Compress as a way of `SEARCHED` says; a run that was begun is gone on with."""
        folder = RunFolder(self.given.work / f"{self.name}-{way}".replace(", ", "-"))
        settings = dict(SEARCHED[way])
        candidates = round(self.given.candidates * settings.pop("share", 1))
        run = n2n_edge.compress(
            self.teacher, str(self.source), device=self.device, accept_expected=True, seed=self.seed, effort="quick",
            candidates=candidates, epochs=self.given.epochs, mean=MEAN, std=STD, out=folder.path,
            resume=folder.settings.exists(), callbacks=[Progress()], budgets=[self.budget], **settings,
        )  # fmt: skip
        return run, prepare(run.settings, (n2n_edge.load_profile(self.device),), folder, Progress()), folder

    def row(self, way: str) -> Row:
        """Choose, train and judge a student; what tries nothing trains as ours does, on its order of units."""
        run, prepared, folder = self.run(way if way in SEARCHED else "ours")
        data, student, search_s, taught = prepared.data, run.student, 0.0, prepared.teacher.model
        with Journal.read(folder.journal) as journal:
            schedule = Schedule.of_journal(journal, run.settings)
            assert schedule is not None
            if way in SEARCHED:
                search_s = float(journal.meta()["search_seconds"])
            prepared = with_kept_order(schedule.applied(prepared), journal)
            planned = journal.trials("removal")[0].architecture
        if way in CUT:
            architecture = planned
            if way == "uniform":
                architecture = self.uniform(prepared)
            elif way.startswith("torch-pruning"):
                if way.endswith("sparse"):
                    sparse = sparse_learned(prepared.teacher, data, prepared.distilling, self.given.epochs)
                    prepared = replace(prepared, teacher=sparse)
                prepared, architecture = self.by_torch_pruning(prepared)
            elif way == "fastnas":
                multiple = n2n_edge.load_profile(self.device).channel_multiple
                architecture = fastnas_architecture(
                    prepared.teacher, data, multiple, self.cost_of_graph, self.budget.limit
                )
            own = RunFolder(folder.path / way.replace(", ", "-"))
            own.path.mkdir(exist_ok=True)
            if way.endswith("sparse"):
                model = self.distilled(prepared, architecture, taught, schedule.feature_images)
            else:
                plan, ignored = FinalPlan(self.given.epochs), Progress()
                model = train_to_the_end(
                    prepared, architecture, plan, own, ignored, lambda _: None, feature_images=schedule.feature_images
                ).result.model
            student = own.path / "student.onnx"
            save_model(model, student)
        before, after = file_meters(self.teacher, student, data.test, data, fidelity=(False, True), threads=1)
        difference, found = paired_difference(before, after), after.evaluation()
        assert difference is not None
        counted = n2n_edge.costs(n2n_edge.Teacher.load(student).model)
        return {
            "score": found.score, "teacher": before.evaluation().score, "agreement": found.fidelity,
            "difference": [difference.value, difference.low, difference.high], "params": counted.params,
            "macs": counted.macs, "cost": self.cost(student), "budget": self.budget.limit, "search_s": round(search_s),
        }  # fmt: skip

    def distilled(self, prepared: Prepared, architecture: Architecture, teacher: ir.Model, images: int) -> ir.Model:
        """Return a student of what was prepared, refitted to its teacher on so many images, distilled from another."""
        kept = surviving(prepared.teacher, architecture)
        student = build(prepared.teacher, architecture)
        settings = replace(prepared.distilling, epochs=self.given.epochs)
        student = reconstructed(student, prepared.teacher.model, prepared.data, settings, kept, images=images)
        return distill(student, teacher, prepared.data, settings, kept=kept).model

    def uniform(self, prepared: Prepared) -> Architecture:
        """Return an architecture whose groups are all as wide, in parts of their own, as the budget allows."""
        with (
            tempfile.TemporaryDirectory() as folder,
            WarmWorker() as worker,
            Journal.create(Path(folder) / "costs.sqlite") as journal,
        ):
            profile = n2n_edge.load_profile(self.device)
            meter = CostMeter(prepared.teacher, profile, [self.budget], journal, worker, accept_expected=True)
            return meter.fitted(Base(), {})

    def by_torch_pruning(self, prepared: Prepared) -> tuple[Prepared, Architecture]:
        """Return what Torch-Pruning cuts until the budget is met."""
        shape, multiple = prepared.data.input_shape, n2n_edge.load_profile(self.device).channel_multiple
        teacher, found = pruned_by_torch_pruning(
            prepared.teacher, shape, multiple, self.cost_of_graph, self.budget.limit
        )
        return replace(prepared, teacher=teacher), found

    def cost_of_graph(self, model: ir.Model) -> float:
        """Return what a graph costs, as `cost` says."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save_model(model, path)
            return self.cost(path)


def row_of(given: argparse.Namespace, network: str, budget: str, seed: int, way: str) -> Row:
    """Return the row of one student."""
    return Case(given, network, budget, seed).row(way)


def lead(ours: Iterable[float], others: Iterable[float]) -> str:
    """Return how many points ours is ahead on the same seeds: the mean, and its 95% interval by Student's t."""
    points = [100 * (one - other) for one, other in zip(ours, others, strict=True)]
    middle = statistics.mean(points)
    if len(points) < 2:
        return f"{middle:+.2f}"
    half = float(student_t.ppf(0.975, len(points) - 1)) * statistics.stdev(points) / len(points) ** 0.5
    return f"{middle:+.2f} ({middle - half:+.2f} to {middle + half:+.2f})"


def write_table(rows: Mapping[str, Row], path: Path) -> None:
    """Write means over seeds, and how far ours is ahead of each way on the seeds that both have."""
    lines = [
        "| teacher | budget | way | seeds | score, % (least to most) | ours ahead, points (95%) | of the budget "
        "| params | MACs | search, s |",
        "| --- " * 10 + "|",
    ]
    found: dict[tuple[str, str, str], dict[str, Row]] = {}
    for key, row in rows.items():
        network, budget, way, seed = key.split(" | ")
        found.setdefault((network, budget, way), {})[seed] = row
    for (network, budget, way), of in sorted(
        found.items(), key=lambda item: (item[0][:2], -statistics.mean(row["score"] for row in item[1].values()))
    ):
        scores = [100 * row["score"] for row in of.values()]
        own = found.get((network, budget, "ours"), {})
        both = sorted(own.keys() & of.keys()) if way != "ours" else []
        ahead = lead((own[seed]["score"] for seed in both), (of[seed]["score"] for seed in both)) if both else ""
        cells = [
            network,
            budget,
            way,
            str(len(of)),
            f"{statistics.mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})",
        ]
        cells += [ahead, f"{statistics.mean(row['cost'] / row['budget'] for row in of.values()):.3f}"]
        numbers = ("params", "macs", "search_s")
        cells += [f"{statistics.mean(row[name] for row in of.values()):,.0f}" for name in numbers]
        lines.append(f"| {' | '.join(cells)} |")
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("teachers", "cifar", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--networks", nargs="*", default=["resnet20", "mobilenet-v2", "resnet56"])
    parser.add_argument("--budgets", nargs="*", default=list(BUDGETS), choices=BUDGETS)
    parser.add_argument("--ways", nargs="*", default=[*SEARCHED, *CUT], choices=[*SEARCHED, *CUT])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--images", type=int, default=20_000, help="training images, drawn by the seed")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    for budget in given.budgets:
        for seed in given.seeds:
            for network in given.networks:
                for way in given.ways:
                    key = f"{network} | {budget} | {way} | {seed}"
                    add_row(given.out, key, partial(row_of, given, network, budget, seed, way), write_table)


if __name__ == "__main__":
    main()
