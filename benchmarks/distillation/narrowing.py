"""Is a student better that was wider at the beginning of its training? The same number of images for every way.

``python benchmarks/distillation/narrowing.py resnet20_jpeg.onnx CIFAR`` cuts a student at once, or first cuts a wider
network, trains it on a part of the images, and cuts the student from that: as it is, or refitted to the teacher. Writes
``narrowing.json``; rows that are there are kept.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from run import MEAN, STD

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.costs import costs
from n2n_edge.graph.groups import importance_order
from n2n_edge.graph.slicing import drop_channels
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.training.distillation import distill
from n2n_edge.training.evaluation import evaluate
from n2n_edge.training.reconstruct import reconstructed
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.unit_importance import data_importance

HERE = Path(__file__).parent
WIDTHS = {"g2": 8, "g4": 8, "g5": 16, "g6": 8, "g7": 16, "g8": 8, "g9": 24, "g10": 8, "g11": 24, "g12": 24}
"""A student of ResNet-20 with a quarter of its params."""
WAYS = ("at once", "wider first", "wider first, refitted")
MULTIPLE = 8


def main() -> None:
    """Train and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=64_000)
    parser.add_argument("--first", type=float, default=0.5, help="share of the images for the wider network")
    parser.add_argument("--wider", type=float, default=0.5, help="how much of what goes the wider network keeps")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "narrowing.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    teacher = Teacher.load(given.teacher)
    data = load_data(given.data, input_shape=(3, 32, 32), classes=10, mean=MEAN, std=STD)
    teacher = teacher.ranked(data_importance(teacher, data, DistillSettings()))
    rows = json.loads(given.out.read_text()) if given.out.exists() else {}
    for seed in range(given.seeds):
        for way in WAYS:
            key = f"{way}/{given.first:g} of the images/{seed}"
            if key not in rows:
                rows[key] = trained(teacher, data, way, given, seed)
                print(key, rows[key], flush=True)
                given.out.write_text(json.dumps(rows, indent=1) + "\n")


def trained(teacher: Teacher, data: Data, way: str, given: argparse.Namespace, seed: int) -> dict[str, float]:
    """Return test accuracy before and after training, and seconds."""
    start = time.perf_counter()
    narrow = teacher.architecture((), WIDTHS)
    settings, left = DistillSettings(seed=seed, epochs=2), given.images
    kept = surviving(teacher, narrow)
    found: dict[str, float] = {}
    if way == "at once":
        student = build(teacher, narrow)
    else:
        first = round(given.first * left)
        left -= first
        wide = wider(teacher, narrow, given.wider)
        wide_kept = surviving(teacher, wide)
        model = reconstructed(build(teacher, wide), teacher.model, data, settings, wide_kept)
        once = replace(settings, epochs=1, images_per_epoch=first)
        model = distill(model, teacher.model, data, once, kept=wide_kept).model
        found |= {"wide_macs": costs(model).macs, "wide": evaluate(model, data.test, data).metric}
        student = narrowed(teacher, model, wide, narrow)
    if way != "wider first":
        student = reconstructed(student, teacher.model, data, settings, kept)
    found["before"] = evaluate(student, data.test, data).metric
    student = distill(student, teacher.model, data, replace(settings, images_per_epoch=left // 2), kept=kept).model
    found |= {"macs": costs(student).macs, "test": evaluate(student, data.test, data).metric}
    return {**found, "seconds": round(time.perf_counter() - start)}


def wider(teacher: Teacher, narrow: Architecture, share: float) -> Architecture:
    """Return the architecture that keeps `share` of what the narrow one gives up."""
    widths = dict(narrow.widths)
    result = teacher.full
    for group in teacher.groups:
        width = widths.get(group.name, group.width)
        wanted = -(-(width + share * (group.width - width)) // MULTIPLE) * MULTIPLE
        if wanted < group.width:
            result = result.resize(group.name, int(wanted))
    return result


def narrowed(teacher: Teacher, trained_model: ir.Model, wide: Architecture, narrow: Architecture) -> ir.Model:
    """Return the narrow network with the weights of a trained wide one, whose channels are all among its own."""
    full, labels, standing = teacher.model.clone(), teacher.labels, alive(teacher, wide)
    for name, value in full.graph.initializers.items():
        held = trained_model.graph.initializers.get(name)
        if held is None or held.const_value is None or value.const_value is None:
            continue
        weight = value.const_value.numpy().copy()
        rows = [labels.dims.get((name, axis)) for axis in range(weight.ndim)]
        places = [
            np.arange(size) if row is None else np.flatnonzero(standing[row])
            for size, row in zip(weight.shape, rows, strict=True)
        ]
        weight[np.ix_(*places)] = held.const_value.numpy()
        value.const_value = ir.Tensor(weight, name=name)
    return drop_channels(full, labels, np.flatnonzero(~alive(teacher, narrow)).tolist())


def alive(teacher: Teacher, architecture: Architecture) -> np.ndarray:
    """Return which units an architecture without removed layers keeps."""
    standing = np.ones(teacher.labels.count, bool)
    widths, importance = dict(architecture.widths), teacher.base_graph(frozenset()).importance
    for group in teacher.groups:
        order = importance_order(group, importance)
        standing[np.array(group.units)[order[widths.get(group.name, group.width) :]]] = False
    return standing


if __name__ == "__main__":
    main()
