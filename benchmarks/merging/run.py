"""Merging of layers against removing and narrowing them, at the same predicted latency, refitted and not trained.

    python benchmarks/merging/run.py TEACHERS CIFAR WORK [--networks mobilenet-v2]

Of the runs of layers whose merging lowers the predicted latency on a Raspberry Pi 4, those that together save most are
each merged alone; beside it stand the network without those of these layers that can go, and the network with all
channel groups narrowed alike to the same predicted latency. Before that several are merged at once, against narrowing.
Nothing is trained: layers are refitted by least squares, as in a search's profile, and scored on validation images.
TEACHERS holds resnet20_jpeg.onnx, CIFAR is a folder with train/ and test/. Figures in ``results.json`` are kept.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def rows(name: str, given: argparse.Namespace, row: dict[str, Any], keep: Callable[[], None]) -> None:
    """Fill in what merging, removing and narrowing leave of one network; `keep` is called after every figure."""
    start = time.monotonic()
    prepared = prepared_network(name, given)
    data, teacher = prepared.data, prepared.teacher
    latency = LatencyModel(load_profile(DEVICE))
    order = teacher.ranked(data_importance(teacher, data, prepared.distilling))
    refitters = [
        ShortDistiller(
            teacher.model, data, 1, replace(prepared.distilling, seed=seed), passes=0, validation_images=IMAGES
        )
        for seed in SEEDS
    ]
    merges = [priced for priced in priced_merges(teacher, load_profile(DEVICE)) if priced.saved_ms > 0]
    ranked = sorted(chosen_merges(merges), key=lambda each: -each.saved_ms)
    ms = round(latency.estimate(teacher.model).figure.value, 4)
    row["teacher"] = {"ms": ms, "scores": [round(refitter.teacher.metric, 4) for refitter in refitters]}
    row |= {"images": IMAGES, "possible": len(list(merges_of(teacher.links))), "saving": len(merges)}
    row["chosen"] = len(ranked)
    told: dict[str, dict[str, Any]] = row.setdefault("told", {})

    def tell(key: str, architecture: Architecture) -> float:
        """Return the predicted latency of an architecture after its figures are kept under `key`."""
        if key not in told:
            model, kept = build(order, architecture), surviving(order, architecture)
            found = [refitter.evaluate(model, kept, seed=seed) for seed, refitter in zip(SEEDS, refitters, strict=True)]
            told[key] = {
                "architecture": architecture.to_json(),
                "ms": round(latency.estimate(model).figure.value, 4),
                "scores": [round(each.accuracy, 4) for each in found],
                "losses": [round(each.loss, 4) for each in found],
            }
            print(name, key, told[key], flush=True)
            keep()
        return float(told[key]["ms"])

    halves = {len(ranked) >> step for step in range(4)}
    for count in sorted((count for count in halves if count > 1), reverse=True):
        linear = [layer for priced in ranked[:count] for layer in priced.merge.linear]
        limit_ms = tell(f"{count} merges/merged", teacher.full.linearise(*linear))
        tell(f"{count} merges/narrowed", narrowed(teacher, latency, limit_ms))
    for priced in ranked:
        layers = priced.merge.layers
        limit_ms = tell(f"{' + '.join(layers)}/merged", teacher.full.linearise(*priced.merge.linear))
        wanted = frozenset(layer.name for layer in teacher.layers if layer.name in layers and layer.removable)
        if gone := teacher.repaired(wanted):
            tell(f"{' + '.join(layers)}/removed", teacher.full.remove(*gone))
        tell(f"{' + '.join(layers)}/narrowed", narrowed(teacher, latency, limit_ms))
    row["seconds"] = round(time.monotonic() - start)


def _cell(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{np.mean(row['scores']):.3f}, {np.mean(row['losses']):.3f} ({row['ms']:.2f} ms)"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the means over seeds as tables."""
    lines = []
    for name, row in results.items():
        lines += [
            f"## {name}",
            "",
            f"Teacher: {np.mean(row['teacher']['scores']):.3f} on {row['images']} validation images, "
            f"{row['teacher']['ms']:.2f} ms. {row['saving']} of {row['possible']} possible merges lower the predicted "
            f"latency; {row['chosen']} without a layer in common save most.",
            "",
            "| layers | merged: score, loss | those that can go removed | all groups narrowed |",
            "| --- | --- | --- | --- |",
        ]
        names = dict.fromkeys(key.rsplit("/", 1)[0] for key in row["told"])
        for layers in names:
            cells = [_cell(row["told"].get(f"{layers}/{way}")) for way in ("merged", "removed", "narrowed")]
            lines.append(f"| {layers} | {' | '.join(cells)} |")
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
    results: dict[str, dict[str, Any]] = json.loads(given.out.read_text()) if given.out.exists() else {}

    def keep() -> None:
        given.out.write_text(json.dumps(results, indent=1) + "\n")
        given.out.with_suffix(".md").write_text(table(results))

    for name in given.networks:
        if "seconds" not in results.setdefault(name, {}):
            rows(name, given, results[name], keep)
            keep()


if __name__ == "__main__":
    main()
