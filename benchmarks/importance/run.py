"""Which channels go first: by the size of their weights, or by what the layers that read them can't make up for.

    python benchmarks/importance/run.py MODELS COCO PEOPLE CIFAR WORK [--networks yolox-nano]

Every network is cut to a share of its channels in all groups alike, refitted without any training, and scored on images
that it wasn't refitted on: once with each order of units, all else equal. MODELS holds exam/ and teachers/; COCO,
PEOPLE and WORK are as for benchmarks/tasks, CIFAR a folder with train/ and test/. Rows that are in ``results.json``
are kept.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tasks"))

from networks import NETWORKS, arranged  # noqa: E402

from n2n_edge.devices.registry import load_profile  # noqa: E402
from n2n_edge.graph.teacher import build, surviving  # noqa: E402
from n2n_edge.runs.callbacks import RunCallback  # noqa: E402
from n2n_edge.runs.folder import RunFolder  # noqa: E402
from n2n_edge.runs.prepare import Prepared, prepare  # noqa: E402
from n2n_edge.runs.settings import CompressSettings  # noqa: E402
from n2n_edge.training.batches import subset  # noqa: E402
from n2n_edge.training.evaluation import evaluate  # noqa: E402
from n2n_edge.training.reconstruct import reconstructed  # noqa: E402
from n2n_edge.training.unit_importance import data_importance  # noqa: E402

CIFAR = {"resnet20": "teachers/resnet20_jpeg.onnx", "resnet56": "teachers/resnet56_jpeg.onnx"}
OTHERS = ("yolox-nano", "nanodet-m-416", "fastestdet", "selfie", "pfld")
SHARES = (0.9, 0.75, 0.5)
SEEDS = (0, 1, 2)
TEST_IMAGES = 1000


def prepared_network(name: str, given: argparse.Namespace) -> Prepared:
    """Return a network with its images, as a run prepares them."""
    if name in CIFAR:
        model, data, unlabelled = CIFAR[name], str(given.cifar), ()
        options: dict[str, object] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    else:
        network = NETWORKS[name]
        data, unlabelled = arranged(network.images, getattr(given, network.images), given.work)
        model, options = network.file, dict(network.options)
    settings = CompressSettings(
        teacher=str(given.models / model), data=data, unlabelled=unlabelled or None, train_precision="fp32",
        train_device="cpu", **options,
    )  # fmt: skip
    folder = RunFolder(given.work / f"{name}-prepared")
    folder.path.mkdir(parents=True, exist_ok=True)
    return prepare(settings, (load_profile("cpu"),), folder, RunCallback())


def rows(name: str, given: argparse.Namespace) -> dict[str, object]:
    """Return the scores of one network: by share, order and seed; labels count where there are any."""
    prepared = prepared_network(name, given)
    data, teacher = prepared.data, prepared.teacher
    test = subset(data.test, TEST_IMAGES, 0)
    found: dict[str, object] = {}
    scores: dict[str, dict[str, list[list[float | None]]]] = {}
    seconds = []
    for seed in SEEDS:
        settings = replace(prepared.distilling, seed=seed)
        start = time.monotonic()
        by_data = teacher.ranked(data_importance(teacher, data, settings))
        seconds.append(round(time.monotonic() - start, 1))
        for share in SHARES:
            architecture = teacher.full
            for group in teacher.groups:
                if group.shrinkable:
                    architecture = architecture.resize(group.name, max(1, round(share * group.width)))
            for order, ranked in (("weights", teacher), ("data", by_data)):
                kept = surviving(ranked, architecture)
                student = reconstructed(build(ranked, architecture), teacher.model, data, settings, kept)
                told = evaluate(student, test, data, teacher=teacher.model)
                scores.setdefault(f"{share:g}", {}).setdefault(order, []).append([told.score, told.fidelity])
                print(name, share, order, seed, told.score, told.fidelity, flush=True)
    before = evaluate(teacher.model, test, data).score if test.labels is not None or test.annotations else None
    found |= {"task": data.task.name if data.task else "", "teacher": before, "scores": scores, "order_s": seconds}
    return found | {"images": len(test)}


def table(results: dict[str, dict]) -> str:  # type: ignore[type-arg]
    """Return the means over seeds as a table."""
    lines = [
        "| network | test images | channels kept | score: teacher | by weights | by data | agreement: by weights "
        "| by data |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in results.items():
        for share, by_order in row["scores"].items():
            cells = []
            for place in (0, 1):
                for order in ("weights", "data"):
                    told = [pair[place] for pair in by_order[order]]
                    cells.append("" if told[0] is None else f"{np.mean(told):.3f}")
            teacher = "" if row["teacher"] is None else f"{row['teacher']:.3f}"
            lines.append(f"| {name} | {row['images']} | {share} | {teacher} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for place in ("models", "coco", "people", "cifar", "work"):
        parser.add_argument(place, type=Path)
    parser.add_argument("--networks", nargs="*", default=[*CIFAR, *OTHERS])
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.networks:
        results = json.loads(given.out.read_text()) if given.out.exists() else {}
        if name not in results:
            results[name] = rows(name, given)
            given.out.write_text(json.dumps(results, indent=1) + "\n")
        given.out.with_suffix(".md").write_text(table(results))


if __name__ == "__main__":
    main()
