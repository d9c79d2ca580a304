"""Students of the synthetic teachers, searched for with the labels in the reward and without any.

    python benchmarks/tasks/labels.py SYNTHETIC WORK [--kinds detection regression] [--candidates 4] [--epochs 8]

SYNTHETIC holds a folder of each kind (see ``shapes.py``) and ``teachers/KIND.onnx`` (see ``teachers.py``). Both have
the same images, budget, candidates and epochs; both students are scored by the labels of the same test images. Rows in
``labels.json`` are kept; ``labels.md`` is written after each.
"""

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path

import torch

import n2n_edge
from n2n_edge.data.dataset import load_data
from n2n_edge.graph.teacher import Teacher
from n2n_edge.tasks.choice import choose_task
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.training.file_evaluation import file_meter

HERE = Path(__file__).parent
KINDS = {
    "detection": "data.yaml",
    "segmentation": "",
    "keypoints": "labels.csv",
    "regression": "labels.csv",
    "ellipses:Ellipse": "labels.csv",
}
OF = {"ellipses:Ellipse": "regression"}
"""Whose data and teacher a task of one's own has."""

DEVICE, SIDE = "raspberry-pi-4", 96
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
Row = dict[str, object]


def images_alone(kind: str, source: Path, out: Path) -> Path:
    """Link the training and validation images, split as they are with labels, and the test images beside them."""
    if KINDS[kind] == "labels.csv":
        with (source / "labels.csv").open(newline="") as file:
            found = [(row["split"], source / row["file"]) for row in csv.DictReader(file)]
    else:
        where = source / "images" if kind == "detection" else source
        found = [
            (split, path)
            for split in ("train", "val", "test")
            for path in sorted((where / split if kind == "detection" else where / split / "images").iterdir())
        ]
    for split, path in found:
        target = out / split / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(path.absolute())
    return out


def row_of(kind: str, synthetic: Path, work: Path, share: float, epochs: int, candidates: int, seed: int) -> Row:
    """Compress with labels and without, and score teacher and students on the labelled test images."""
    of = OF.get(kind, kind)
    path, spec = synthetic / "teachers" / f"{of}.onnx", synthetic / of / KINDS[kind]
    limit = round(share * n2n_edge.predict(path, DEVICE).figure.value, 3)
    loaded = load_data(str(spec), input_shape=(3, SIDE, SIDE), classes=None, may_be_values=True)
    data, choice = choose_task(Teacher.load(path).model, loaded, kind)
    row: Row = {"metric": choice.task.metric, "test_images": len(data.test), "share": share}
    row |= {"epochs": epochs, "candidates": candidates}
    teacher = file_meter(path, data.test, data, threads=1)
    row["teacher"] = teacher.evaluation().score
    meters = {}
    for way in ("labels", "none"):
        out = work / f"labels-{of if kind == of else 'own'}-{seed}-{candidates}-{way}"
        given = spec if way == "labels" else images_alone(kind, synthetic / of, work / f"images-{of}")
        run = n2n_edge.compress(
            path, given, device=DEVICE, accept_expected=True, max_latency_ms=limit, task=kind, epochs=epochs,
            effort="quick", candidates=candidates, seed=seed, out=out, resume=(out / "run.toml").exists(), **PLAIN,
        )  # fmt: skip
        meters[way] = file_meter(run.student, data.test, data, teacher=path, threads=1)
        found = meters[way].evaluation()
        row[way] = {"score": found.score, "agreement": found.fidelity}
    difference = paired_difference(meters["none"], meters["labels"])
    if difference is not None:
        row["difference"] = [difference.value, difference.low, difference.high]
    return row


def write_table(rows: Mapping[str, Row], path: Path) -> None:
    """Write one line for each kind and seed."""
    lines = [
        "| teacher | seed | candidates | metric | teacher's | with labels | without | difference, points (95%) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, row in rows.items():
        if "error" in row:
            lines.append(f"| {key} | {row['error']} | | | | |")
            continue
        scores = [row["teacher"], row["labels"]["score"], row["none"]["score"]]  # type: ignore[index]
        value, low, high = row["difference"]  # type: ignore[misc]
        between = f" ({low:+.1f} to {high:+.1f})" if low is not None else ""
        cells = [str(row["metric"]), *(f"{score:.3f}" for score in scores), f"{value:+.1f}{between}"]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("synthetic", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "labels.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for seed in given.seeds:
        for kind in given.kinds:
            key = f"{kind} | {seed} | {given.candidates}"
            rows = json.loads(given.out.read_text()) if given.out.exists() else {}
            if key in rows:
                continue
            try:
                row = row_of(kind, given.synthetic, given.work, given.share, given.epochs, given.candidates, seed)
            except n2n_edge.N2NError as error:
                row = {"error": f"{type(error).__name__}: {error}"[:300]}
            print(key, row, flush=True)
            rows[key] = row
            given.out.write_text(json.dumps(rows, indent=1) + "\n")
            write_table(rows, given.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
