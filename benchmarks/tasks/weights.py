"""Students of the synthetic teachers, trained with labels of various weights in the loss.

    python benchmarks/tasks/weights.py SYNTHETIC [--kinds detection segmentation] [--weights 0 0.1 0.5] [--epochs 8]

SYNTHETIC is as for ``labels.py``. Every channel group is cut to the same share, the student refitted and distilled: the
same start, images and epochs for every weight. Scores are by the labels of the test images. Rows in ``weights.json``
are kept; ``weights.md`` is written after each.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.tasks.choice import choose_task
from n2n_edge.training.distillation import distill
from n2n_edge.training.evaluation import evaluate
from n2n_edge.training.reconstruct import reconstructed
from n2n_edge.training.settings import DistillSettings

HERE = Path(__file__).parent
KINDS = {"detection": "data.yaml", "segmentation": "", "keypoints": "labels.csv", "regression": "labels.csv"}
SIDE, REFITTED_ON = 96, 128
Row = dict[str, object]


def loaded(kind: str, synthetic: Path) -> tuple[Teacher, Data]:
    """Return a teacher and its data."""
    teacher = Teacher.load(synthetic / "teachers" / f"{kind}.onnx")
    spec = str(synthetic / kind / KINDS[kind])
    data = load_data(spec, input_shape=(3, SIDE, SIDE), classes=None, may_be_values=True)
    return teacher, choose_task(teacher.model, data, kind)[0]


def row_of(kind: str, synthetic: Path, share: float, weight: float, epochs: int, seed: int) -> Row:
    """Train a student whose labels count `weight`, and score it."""
    teacher, data = loaded(kind, synthetic)
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, max(1, round(group.width * share)))
    settings = DistillSettings(epochs=epochs, threads=1, precision="fp32", device="cpu", seed=seed)
    settings = replace(settings.for_images(len(data.train)), kd_weight=1.0 - weight)
    kept = surviving(teacher, architecture)
    start = reconstructed(build(teacher, architecture), teacher.model, data, settings, kept, images=REFITTED_ON)
    began = time.monotonic()
    result = distill(start, teacher.model, data, settings, kept=kept)
    before, after = (evaluate(each, data.test, data, teacher=teacher.model) for each in (start, result.model))
    return {
        "teacher": evaluate(teacher.model, data.test, data).score, "refitted": before.score, "score": after.score,
        "agreement": after.fidelity, "images": len(data.train), "test_images": len(data.test), "share": share,
        "epochs": epochs, "best_epoch": result.best_epoch, "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def write_table(rows: Mapping[str, Row], path: Path) -> None:
    """Write one line for each kind, weight and seed."""
    lines = [
        "| teacher, seed | width | epochs | labels' weight | teacher's score | refitted | trained | agreement |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, row in sorted(rows.items()):
        kind, weight, seed = key.split(" | ")
        scores = [f"{row[name]:.3f}" for name in ("teacher", "refitted", "score", "agreement")]
        lines.append(f"| {kind}, {seed} | {row['share']} | {row['epochs']} | {weight} | {' | '.join(scores)} |")
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("synthetic", type=Path)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--weights", nargs="*", type=float, default=[0.0, 0.1, 0.5, 1.0])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--share", type=float, default=0.4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path, default=HERE / "weights.json")
    given = parser.parse_args()
    for kind in given.kinds:
        for seed in given.seeds:
            for weight in given.weights:
                key = f"{kind} | {weight:g} | {seed}"
                rows = json.loads(given.out.read_text()) if given.out.exists() else {}
                if key in rows:
                    continue
                rows[key] = row_of(kind, given.synthetic, given.share, weight, given.epochs, seed)
                print(key, rows[key], flush=True)
                given.out.write_text(json.dumps(rows, indent=1) + "\n")
                write_table(rows, given.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
