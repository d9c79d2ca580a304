"""Merging of layers against removing and narrowing them, at the same predicted latency, refitted and not trained.

    python benchmarks/merging/run.py TEACHERS CIFAR WORK [--networks mobilenet-v2]

Of the runs of layers whose merging lowers the predicted latency on a Raspberry Pi 4, those that together save most are
each merged alone; beside it stand the network without those of these layers that can go, and the network with all channel groups narrowed alike to the same
predicted latency. Then several of them at once, against narrowing. Nothing is trained: layers are refitted by least
squares, as in a search's profile, and scored on validation images. TEACHERS holds resnet20_jpeg.onnx, CIFAR is a folder with
train/ and test/. Rows that are in ``results.json`` are kept.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.merging import merges_of
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.latency.model import LatencyModel
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.prepare import Prepared, prepare
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.search.merging import chosen_merges, priced_merges
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.unit_importance import data_importance

HERE = Path(__file__).parent
DEVICE = "raspberry-pi-4"
NETWORKS = ("mobilenet-v2", "resnet20")
SEEDS = (0, 1)
IMAGES = 2000
SHARES = tuple(round(0.995 - 0.005 * step, 3) for step in range(199))


def prepared_network(name: str, given: argparse.Namespace) -> Prepared:
    """Return a network with its images, as a run prepares them."""
    own = HERE.parent / "teachers" / f"{name}.onnx"
    options: dict[str, object] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    model = own if own.exists() else given.teachers / f"{name}_jpeg.onnx"
    settings = CompressSettings(
        teacher=str(model), data=str(given.cifar), train_precision="fp32", train_device="cpu", **options,
    )  # fmt: skip
    folder = RunFolder(given.work / f"{name}-prepared")
    folder.path.mkdir(parents=True, exist_ok=True)
    return prepare(settings, (load_profile(DEVICE),), folder, RunCallback())


def narrowed(teacher: Teacher, latency: LatencyModel, limit_ms: float) -> Architecture:
    """Return the widest architecture with all groups at one share of their width that takes at most `limit_ms`."""
    architecture = teacher.full
    for share in SHARES:
        for group in teacher.groups:
            if group.shrinkable:
                architecture = architecture.resize(group.name, max(1, round(share * group.width)))
        if latency.estimate(build(teacher, architecture)).figure.value <= limit_ms:
            break
    return architecture


def rows(name: str, given: argparse.Namespace) -> dict[str, object]:
    """Return what merging, removing and narrowing leave of one network."""
    prepared = prepared_network(name, given)
    data, teacher = prepared.data, prepared.teacher
    latency = LatencyModel(load_profile(DEVICE))
    whole_ms = latency.estimate(teacher.model).figure.value
    order = teacher.ranked(data_importance(teacher, data, prepared.distilling))
    refitters = [
        ShortDistiller(
            teacher.model, data, 1, replace(prepared.distilling, seed=seed), passes=0, validation_images=IMAGES
        )
        for seed in SEEDS
    ]

    def told(architecture: Architecture) -> dict[str, object]:
        model = build(order, architecture)
        kept = surviving(order, architecture)
        found = [refitter.evaluate(model, kept, seed=seed) for seed, refitter in zip(SEEDS, refitters, strict=True)]
        scores = [round(each.accuracy, 4) for each in found]
        losses = [round(each.loss, 4) for each in found]
        ms = latency.estimate(model).figure.value
        print(name, architecture.to_json(), round(ms, 3), scores, losses, flush=True)
        return {"ms": round(ms, 4), "scores": scores, "losses": losses}

    merges = [priced for priced in priced_merges(teacher, load_profile(DEVICE)) if priced.saved_ms > 0]
    singles = []
    ranked = sorted(chosen_merges(merges), key=lambda each: -each.saved_ms)
    for priced in ranked:
        layers = priced.merge.layers
        merged = told(teacher.full.linearise(*priced.merge.linear))
        gone = teacher.repaired(
            frozenset(layer.name for layer in teacher.layers if layer.name in layers and layer.removable)
        )
        singles.append(
            {
                "layers": layers,
                "exact_borders": priced.merge.exact_borders,
                "merged": merged,
                "removed": {"layers": sorted(gone), **told(teacher.full.remove(*gone))} if gone else None,
                "narrowed": told(narrowed(teacher, latency, float(str(merged["ms"])))),
            }
        )
    together = []
    halves = [len(ranked) >> step for step in range(4)]
    for count in sorted({count for count in halves if count > 1}):
        linear = [layer for priced in ranked[:count] for layer in priced.merge.linear]
        merged = told(teacher.full.linearise(*linear))
        together.append(
            {
                "merges": [priced.merge.name for priced in ranked[:count]],
                "merged": merged,
                "narrowed": told(narrowed(teacher, latency, float(str(merged["ms"])))),
            }
        )
    return {
        "teacher": {"ms": round(whole_ms, 4), "score": refitters[0].teacher.metric},
        "images": IMAGES,
        "possible": len(list(merges_of(teacher.links))),
        "saving": len(merges),
        "singles": singles,
        "together": together,
    }


def _cell(row: dict | None) -> str:  # type: ignore[type-arg]
    if row is None:
        return "none of them can go"
    return f"{np.mean(row['scores']):.3f} ({row['ms']:.2f} ms)"


def table(results: dict[str, dict]) -> str:  # type: ignore[type-arg]
    """Return the means over seeds as tables."""
    lines = []
    for name, row in results.items():
        lines += [
            f"## {name}",
            "",
            f"Teacher: {row['teacher']['score']:.3f} on {row['images']} validation images, {row['teacher']['ms']:.2f} ms; "
            f"{row['saving']} of {row['possible']} possible merges lower the predicted latency, and {len(row['singles'])} without a layer in common save most.",
            "",
            "| layers | merged | these removed | all narrowed |",
            "| --- | --- | --- | --- |",
        ]
        for one in row["singles"]:
            cells = [_cell(one[key]) for key in ("merged", "removed", "narrowed")]
            lines.append(f"| {' + '.join(one['layers'])} | {' | '.join(cells)} |")
        for many in row["together"]:
            cells = [_cell(many["merged"]), "", _cell(many["narrowed"])]
            lines.append(f"| {len(many['merges'])} merges: {', '.join(many['merges'])} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for place in ("teachers", "cifar", "work"):
        parser.add_argument(place, type=Path)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.networks:
        results = json.loads(given.out.read_text()) if given.out.exists() else {}
        if name not in results:
            start = time.monotonic()
            results[name] = rows(name, given)
            results[name]["seconds"] = round(time.monotonic() - start)
            given.out.write_text(json.dumps(results, indent=1) + "\n")
        given.out.with_suffix(".md").write_text(table(results))


if __name__ == "__main__":
    main()
