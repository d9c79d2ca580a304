"""Networks that detect, segment and find points, compressed to shares of their predicted latency.

    python benchmarks/tasks/run.py MODELS COCO PEOPLE WORK [--networks yolox-nano] [--shares 0.7 0.5] [--minutes 10]
        [--unlabelled FOLDER ...]

MODELS is the folder of models, COCO a folder in YOLO's layout, PEOPLE one with images/ and masks/; WORK gets the runs.
Rows that are in ``results.json`` are kept, a run that was killed is gone on with; ``results.md`` is written after each.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from networks import NETWORKS, Network, arranged
from torch_pruned import pruned_by_torch_pruning

import n2n_edge
from n2n_edge.data.dataset import Data, Split
from n2n_edge.graph.load import save_model
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.final import kept_plan, train_to_the_end
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.prepare import prepare
from n2n_edge.runs.run import Run
from n2n_edge.runs.schedule import Schedule
from n2n_edge.runs.unit_order import with_kept_order
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.precision import Base
from n2n_edge.search.store import Journal
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.training.file_evaluation import file_meters

HERE = Path(__file__).parent
DEVICE = "raspberry-pi-4"
WAYS = ("ours", "smaller images", "uniform", "torch-pruning")
Row = dict[str, object]


class Progress(RunCallback):
    """What a run says, on stdout."""

    def on_message(self, message: str) -> None:
        print(" ", message, flush=True)


class Bench:
    """One network at one share of its latency."""

    def __init__(
        self,
        network: Network,
        share: float,
        models: Path,
        sources: Mapping[str, Path],
        work: Path,
        more: Sequence[Path] = (),
    ) -> None:
        self.teacher, self.share = models / network.file, share
        self.network, self.out = network, work / f"{self.teacher.stem}-{share:g}"
        self.data, self.unlabelled = arranged(network.images, sources[network.images], work)
        self.unlabelled = (*self.unlabelled, *map(str, more))

    def predicted(self, path: Path) -> float:
        """Return the expected latency, ms."""
        shape = self.network.options.get("input_shape")
        return n2n_edge.predict(path, DEVICE, input_shape=shape).figure.value  # type: ignore[arg-type]

    def cost(self, model: ir.Model) -> float:
        """Return the expected latency of a graph, ms."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save_model(model, path)
            return self.predicted(path)

    def ours(self, minutes: float, candidates: int) -> Run:
        """Compress; a run that was begun is gone on with."""
        return self._compressed(self.out, minutes, candidates)

    def _compressed(self, out: Path, minutes: float, candidates: int, **more: Any) -> Run:
        return n2n_edge.compress(
            self.teacher, self.data, unlabelled=self.unlabelled or None, device=DEVICE, accept_expected=True,
            max_latency_ms=round(self.share * self.predicted(self.teacher), 2), minutes=minutes, effort="quick",
            candidates=candidates, out=out, resume=(out / "run.toml").exists(), callbacks=[Progress()],
            **self.network.options, **more,
        )  # fmt: skip

    def smaller(self, minutes: float, candidates: int) -> Row:
        """Return what a student is worth that may take smaller images; it has its own minutes, as many as ours."""
        out = self.out.with_name(f"{self.out.name}-smaller")
        run = self._compressed(out, minutes, candidates, input_size="auto")
        prepared = prepare(run.settings, (n2n_edge.load_profile(DEVICE),), RunFolder(out), Progress())
        with Journal.read(RunFolder(out).journal) as journal:
            plan = kept_plan(journal)
        return {
            **self.scores(run.student, prepared.teacher_data, prepared.student_images),
            "task": prepared.data.task.name if prepared.data.task else "", "size": list(prepared.data.input_shape[1:]),
            "teacher_ms": self.predicted(self.teacher), "student_ms": self.predicted(run.student),
            "seconds": round(float(run.report["training"]["seconds"])), "epochs": plan.epochs if plan else 0,
            "images": (plan.images if plan else None) or len(prepared.data.train),
        }  # fmt: skip

    def row(self, way: str, minutes: float, candidates: int) -> Row:
        """Return what a way's student is worth; each trains as much as ours did at the end."""
        if way == "smaller images":
            return self.smaller(minutes, candidates)
        run = self.ours(minutes, candidates)
        folder = RunFolder(self.out / (way if way == "torch-pruning" else "uniform"))
        folder.path.mkdir(exist_ok=True)
        profiles = (n2n_edge.load_profile(DEVICE),)
        prepared = prepare(run.settings, profiles, folder, Progress())
        student, seconds = run.student, float(run.report["training"]["seconds"])
        with Journal.read(RunFolder(self.out).journal) as journal:
            plan = kept_plan(journal)
            schedule = Schedule.of_journal(journal, run.settings)
        assert plan is not None
        assert schedule is not None
        if way == "uniform":
            with WarmWorker() as worker, Journal.create(folder.path / f"costs-{time.time_ns()}.sqlite") as journal:
                meter = CostMeter(
                    prepared.teacher, profiles[0], run.settings.budgets, journal, worker, accept_expected=True
                )
                architecture = meter.fitted(Base(), {})
            with Journal.read(RunFolder(self.out).journal) as journal:
                at_hand = with_kept_order(schedule.applied(prepared), journal)
        elif way == "torch-pruning":
            (budget,) = run.settings.budgets
            cut, architecture = pruned_by_torch_pruning(
                prepared.teacher, prepared.data.input_shape, profiles[0].channel_multiple, self.cost, budget.limit
            )
            at_hand = replace(schedule.applied(prepared), teacher=cut)
        if way != "ours":
            trained = train_to_the_end(
                at_hand, architecture, plan, folder, Progress(), lambda _: None, feature_images=schedule.feature_images
            )
            student, seconds = folder.path / "student.onnx", trained.seconds
            save_model(trained.result.model, student)
        return {
            **self.scores(student, prepared.data),
            "task": prepared.data.task.name if prepared.data.task else "",
            "teacher_ms": self.predicted(self.teacher), "student_ms": self.predicted(student),
            "seconds": round(seconds), "epochs": plan.epochs, "images": plan.images or len(prepared.data.train),
        }  # fmt: skip

    def scores(self, student: Path, data: Data, own: tuple[Split, Data] | None = None) -> Row:
        """Return scores by the labels of the test images, the paired difference in points, and the agreement.

        `own` are the images as the student takes them, where it takes smaller ones.
        """
        if not self.network.labelled:
            data = replace(data, test=replace(data.test, annotations=None, labels=None, targets=None))
        before, after = file_meters(self.teacher, student, data.test, data, fidelity=(False, True), threads=1, own=own)
        found = after.evaluation()
        row: Row = {"agreement": found.fidelity, "test_images": found.n}
        if (difference := paired_difference(before, after)) is not None:
            row |= {"before": before.evaluation().score, "after": found.score}
            row["difference"] = [difference.value, difference.low, difference.high]
        return row


def write_table(rows: Mapping[str, Row], path: Path) -> None:
    """Write rows as a table, in the order of the networks."""
    lines = [
        "| network | share of latency | way | before | after | difference, points (95%) | agreement "
        "| predicted ms | images trained on | training, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = list(NETWORKS)
    for key in sorted(rows, key=lambda key: (order.index(key.split(" | ")[0]), -float(key.split(" | ")[1]), key)):
        row = rows[key]
        if "error" in row:
            lines.append(f"| {key} | {row['error']} | | | | | | |")
            continue
        cells = [f"{row['before']:.3f}", f"{row['after']:.3f}"] if "before" in row else ["", ""]
        difference = row.get("difference")
        if isinstance(difference, list):
            value, low, high = difference
            cells.append(f"{value:+.1f}" + (f" ({low:+.1f} to {high:+.1f})" if low is not None else ""))
        else:
            cells.append("no labels at hand")
        cells.append("" if row["agreement"] is None else f"{row['agreement']:.3f}")
        cells.append(
            f"{row['teacher_ms']:.1f} to {row['student_ms']:.1f}" + (f", {row['size'][0]} px" if "size" in row else "")
        )
        cells += [f"{row['epochs']} x {row['images']}", f"{row['seconds']}"]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("models", "coco", "people", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--shares", nargs="*", type=float, default=[0.7, 0.5])
    parser.add_argument("--ways", nargs="*", default=["ours", "uniform"], choices=WAYS)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--candidates", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--unlabelled", nargs="*", type=Path, default=[], help="folders of further images to learn from"
    )
    parser.add_argument("--again", action="store_true", help="try rows again that ended with an error")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sources = {"coco": given.coco, "people": given.people}
    for share in given.shares:
        for name in given.networks:
            for way in given.ways:
                key = f"{name} | {share:g} | {way}"
                rows = json.loads(given.out.read_text()) if given.out.exists() else {}
                if key in rows and not (given.again and "error" in rows[key]):
                    continue
                print(key, flush=True)
                try:
                    bench = Bench(NETWORKS[name], share, given.models, sources, given.work, given.unlabelled)
                    row = bench.row(way, given.minutes, given.candidates)
                except n2n_edge.N2NError as error:
                    row = {"error": f"{type(error).__name__}: {error}"[:300]}
                print(key, row, flush=True)
                rows[key] = row
                given.out.write_text(json.dumps(rows, indent=1) + "\n")
                write_table(rows, given.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
