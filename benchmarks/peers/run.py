"""Ways to choose a student, on equal terms: the same budget, the same images, the same distillation.

From the repository's root: ``python -m benchmarks.peers.run TEACHERS CIFAR WORK`` fills ``results.json`` and writes
``results.md``; rows that are there are kept. TEACHERS holds ``resnet20_jpeg.onnx`` and ``resnet56_jpeg.onnx``, WORK
gets the students. ``--networks``, ``--budgets``, ``--ways`` and ``--seeds`` choose a part. ``torch-pruning`` is needed
for its row alone (``pip install --no-deps torch-pruning``).
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from benchmarks.peers.others import by_hand, pruned_by_magnitude
from n2n_edge.data.dataset import load_data
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import save_model
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.measure.comparison import compare
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import HostTarget
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.driver import Rung, SearchPlan, search
from n2n_edge.search.evaluator import Evaluator, Objective
from n2n_edge.search.precision import Base
from n2n_edge.search.store import Journal
from n2n_edge.training.distillation import distill
from n2n_edge.training.evaluation import evaluate
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.reconstruct import Kept, reconstructed
from n2n_edge.training.settings import DistillSettings

HERE = Path(__file__).parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SEARCHED = ("reinforce", "n2n", "random", "evolution", "greedy")
WAYS = (*SEARCHED, "all groups alike", "smaller ResNet by hand", "torch-pruning")
BUDGETS = {"params/2": ("params", 0.5), "params/4": ("params", 0.25), "latency/2": ("latency_ms", 0.5)}
CANDIDATES, SHORT_IMAGES, REMOVAL_SHARE = 30, 512, 0.4
EPOCHS, IMAGES_PER_EPOCH = 2, 32_000


@dataclass
class Bench:
    """A teacher, its data, and what judges candidates."""

    name: str
    teachers: Path
    data_path: str

    def __post_init__(self) -> None:
        self.teacher = Teacher.load(self.teachers / f"{self.name}_jpeg.onnx")
        self.data = load_data(self.data_path, input_shape=(3, 32, 32), classes=10, mean=MEAN, std=STD)
        short = DistillSettings(calibration_images=512)
        self.short = ShortDistiller(self.teacher.model, self.data, SHORT_IMAGES, short)
        self.profiler = ShortDistiller.refitting(self.teacher.model, self.data, short)
        self.longer = ShortDistiller(self.teacher.model, self.data, 8 * SHORT_IMAGES, short, validation_images=5000)

    def student(self, way: str, budget: str, seed: int) -> tuple[ir.Model, Kept | None, dict[str, object]]:
        """Return an untrained student, what it kept of the teacher if that is known, and what choosing it took."""
        cost, share = BUDGETS[budget]
        start = time.perf_counter()
        with (
            tempfile.TemporaryDirectory() as folder,
            WarmWorker() as worker,
            Journal.create(Path(folder) / "journal.sqlite") as journal,
        ):
            profile = load_profile("cpu")
            probe = CostMeter(self.teacher, profile, [], journal, worker)
            base = probe.static(self.teacher.model).as_mapping()
            if cost == "latency_ms":
                measured = probe.devices[0].measured(self.teacher.full, self.teacher.model)
                assert measured is not None
                base["latency_ms"] = measured.value
            limit = Budget(cost, share * base[cost])  # type: ignore[arg-type]
            meter = CostMeter(self.teacher, profile, [limit], journal, worker)
            if way == "smaller ResNet by hand":
                return by_hand(self.name, budget, limit, meter, seed), None, {}
            if way == "torch-pruning":
                return pruned_by_magnitude(self.name, self.teacher.model, limit, meter), None, {}
            architecture = meter.fitted(Base(), {})
            found: dict[str, object] = {}
            if way in SEARCHED:
                full = meter.evaluate(self.teacher.full)
                evaluator = Evaluator(
                    self.teacher, meter, self.short, self.short.teacher.metric, self.short.teacher_loss,
                    Objective.choose(None, full, [limit]), journal, 0,
                )  # fmt: skip
                removal = round(REMOVAL_SHARE * CANDIDATES)
                plan = SearchPlan(way, seed, removal, CANDIDATES - removal)
                winner = search(
                    evaluator, plan, journal, [Rung(4, 8, lambda: self.longer)], lambda: self.profiler
                ).winner
                assert winner is not None
                architecture = winner.architecture
                found = {"search_s": round(time.perf_counter() - start, 1)}
        kept = surviving(self.teacher, architecture)
        return build(self.teacher, architecture), kept, {**found, "architecture": architecture.to_json()}

    def row(self, way: str, budget: str, seed: int, out: Path) -> dict[str, object]:
        """Choose, train and judge one student."""
        student, kept, found = self.student(way, budget, seed)
        settings = DistillSettings(epochs=EPOCHS, images_per_epoch=IMAGES_PER_EPOCH, seed=seed)
        if kept is not None:
            student = reconstructed(student, self.teacher.model, self.data, settings, kept)
        start = time.perf_counter()
        trained = distill(student, self.teacher.model, self.data, settings, kept=kept)
        found["train_s"] = round(time.perf_counter() - start, 1)
        counted = costs(trained.model)
        save_model(trained.model, out)
        accuracy = evaluate(trained.model, self.data.test, self.data).metric
        return {"accuracy": accuracy, "params": counted.params, "macs": counted.macs, **found}


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path)
    parser.add_argument("data")
    parser.add_argument("work", type=Path)
    parser.add_argument("--networks", nargs="*", default=["resnet20", "resnet56"])
    parser.add_argument("--budgets", nargs="*", default=list(BUDGETS))
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time", action="store_true", help="only time the students that are there, in turns")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.time:
        add_latencies(rows, options.teachers, options.work)
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
        write_table(rows, options.out.with_suffix(".md"))
        return
    for network in options.networks:
        bench: Bench | None = None
        for seed in options.seeds:
            for budget in options.budgets:
                for way in options.ways:
                    key = f"{network} | {budget} | {way} | {seed}"
                    if key in rows:
                        continue
                    bench = bench or Bench(network, options.teachers, options.data)
                    path = student_path(options.work, key)
                    rows[key] = bench.row(way, budget, seed, path)
                    print(key, {k: v for k, v in rows[key].items() if k != "architecture"}, flush=True)
                    options.out.write_text(json.dumps(rows, indent=1) + "\n")
                    write_table(rows, options.out.with_suffix(".md"))


def student_path(work: Path, key: str) -> Path:
    """Return where the student of a row is kept."""
    return work / (key.replace(" | ", "-").replace("/", "-").replace(" ", "-") + ".onnx")


def add_latencies(rows: dict[str, dict[str, object]], teachers: Path, work: Path) -> None:
    """Time the teacher and its students in turns, budget by budget: `latency_ms`, and as a share of the teacher's."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key in rows:
        network, budget, *_ = key.split(" | ")
        if student_path(work, key).is_file():
            groups.setdefault((network, budget), []).append(key)
    for (network, _), keys in groups.items():
        paths = [teachers / f"{network}_jpeg.onnx", *(student_path(work, key) for key in keys)]
        found = compare(paths, BenchOptions(threads=1, max_time_s=5.0), HostTarget())
        for key, measured, comparison in zip(keys, found.measurements[1:], found.comparisons[1:], strict=True):
            if isinstance(measured, Exception) or comparison is None:
                continue
            rows[key]["latency_ms"] = measured.p50_ms
            rows[key]["latency_share"] = [comparison.ratio, comparison.low, comparison.high]
            print(key, rows[key]["latency_ms"], rows[key]["latency_share"], flush=True)


def write_table(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Write means over seeds with the range of accuracies."""
    lines = [
        "| teacher | budget | way | test accuracy (least to most) | seeds | params | MACs | ms | of the teacher's "
        "| search, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    found: dict[str, list[dict[str, float]]] = {}
    for key, row in sorted(rows.items()):
        found.setdefault(key.rpartition(" | ")[0], []).append(row)
    for key, of_seeds in sorted(
        found.items(), key=lambda item: (item[0].split(" | ")[:2], -statistics.mean(row["accuracy"] for row in item[1]))
    ):
        accuracies = [row["accuracy"] for row in of_seeds]
        cells = [f"{statistics.mean(accuracies):.2%} ({min(accuracies):.2%} to {max(accuracies):.2%})", len(of_seeds)]
        cells += [f"{statistics.mean(row[name] for row in of_seeds):,.0f}" for name in ("params", "macs")]
        shares = [row["latency_share"][0] for row in of_seeds if "latency_share" in row]  # type: ignore[index]
        for name, form in (("latency_ms", ".3f"), ("share", ".1%"), ("search_s", ".0f")):
            if name == "share":
                cells.append(f"{statistics.mean(shares):{form}}" if shares else "")
                continue
            known = [row[name] for row in of_seeds if name in row]
            cells.append(f"{statistics.mean(known):{form}}" if known else "")
        lines.append(f"| {key} | {' | '.join(map(str, cells))} |")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
