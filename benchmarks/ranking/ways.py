"""Which cheap accuracy ranks: every way of judging, on the sample that `truth.py` has distilled.

``python benchmarks/ranking/ways.py resnet20_jpeg.onnx CIFAR`` fills ``ways.json`` and writes ``results.md``: Kendall's
tau of each way's accuracy, of its loss, and of the quality that a search makes of both, against the accuracy after
distillation, and its seconds per candidate.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from math import exp
from pathlib import Path

import torch
from importance import norm_scores, taylor_scores
from sample import architectures
from scipy.stats import kendalltau
from truth import MEAN, STD

from n2n_edge.data.dataset import load_data
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.settings import DistillSettings

HERE = Path(__file__).parent
CONSTANT_LOSS, LOSS_WEIGHT = 17.8, 2.0
"""What answering with the teacher's mean output to every image loses, and how a search weighs the share of it."""


@dataclass(frozen=True)
class Way:
    """One way to judge: which channels stay, whether layers are refitted, and the training after that."""

    images: int
    refit: bool = True
    importance: str = "norm"
    validation: int = 1000
    rate: float = 0.02
    passes: int = 1

    @property
    def name(self) -> str:
        start = "refitted" if self.refit else "inherited"
        training = f"{self.images} images at {self.rate:g}" if self.passes else "no training"
        return f"{self.importance}, {start}, {training}, {self.validation} judged"


WAYS = (
    Way(1, refit=False, passes=0),
    Way(1, passes=0),
    Way(1024, refit=False),
    Way(2560, refit=False),
    Way(512),
    Way(1024),
    Way(2560),
    Way(2560, rate=0.05),
    Way(1024, importance="BatchNorm scale"),
    Way(1024, importance="Taylor"),
    Way(2560, refit=False, importance="Taylor"),
    Way(1024, validation=2500),
    Way(2560, validation=2500),
)


def main() -> None:
    """Judge, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--truth", type=Path, default=HERE / "truth.json")
    parser.add_argument("--out", type=Path, default=HERE / "ways.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teacher = Teacher.load(options.teacher)
    data = load_data(options.data, input_shape=(3, 32, 32), classes=10, mean=MEAN, std=STD)
    teachers = {
        "norm": teacher,
        "BatchNorm scale": teacher.scored(norm_scores(teacher.model)),
        "Taylor": teacher.scored(taylor_scores(teacher.model, data)),
    }
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    for way in WAYS:
        rows = known.setdefault(way.name, {})
        distiller: ShortDistiller | None = None
        for architecture in architectures(teacher):
            if architecture.key in rows:
                continue
            if distiller is None:
                settings = DistillSettings(calibration_images=512, learning_rate=way.rate)
                distiller = ShortDistiller(
                    teacher.model, data, way.images, settings, passes=way.passes, validation_images=way.validation
                )
            chosen = teachers[way.importance]
            kept = surviving(chosen, architecture) if way.refit else None
            judged = distiller.evaluate(build(chosen, architecture), kept, seed=0)
            rows[architecture.key] = [judged.accuracy, judged.loss, round(judged.seconds, 2)]
            options.out.write_text(json.dumps(known, indent=1) + "\n")
        print(way.name, flush=True)
    write_table(known, json.loads(options.truth.read_text()), options.out.with_name("results.md"))


def write_table(known: dict[str, dict[str, list[float]]], truth: dict[str, dict[str, float]], path: Path) -> None:
    """Write one row per way."""
    lines = [
        "| channels kept by, weights, training | tau of accuracy | tau of loss | tau of quality | mean accuracy "
        "| s per candidate |",
        "| --- " * 6 + "|",
    ]
    for name, rows in known.items():
        keys = [key for key in rows if key in truth]
        target = [truth[key]["accuracy"] for key in keys]
        by_accuracy = kendalltau([rows[key][0] for key in keys], target).statistic
        by_loss = kendalltau([-rows[key][1] for key in keys], target).statistic
        both = [rows[key][0] * exp(-LOSS_WEIGHT * min(rows[key][1] / CONSTANT_LOSS, 1)) for key in keys]
        by_both = kendalltau(both, target).statistic
        mean = statistics.mean(rows[key][0] for key in keys)
        seconds = statistics.median(rows[key][2] for key in keys)
        lines.append(f"| {name} | {by_accuracy:.2f} | {by_loss:.2f} | {by_both:.2f} | {mean:.1%} | {seconds:.1f} |")
    for name in ("params", "macs"):
        keys = [key for key in truth if key != "teacher"]
        tau = kendalltau([truth[key][name] for key in keys], [truth[key]["accuracy"] for key in keys]).statistic
        lines.append(f"| {name} alone | {tau:.2f} | | | | 0 |")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
