"""Precision as part of the search against pruning alone, and against pruning first and quantizing then.

    python benchmarks/precision/joint.py TEACHER CIFAR WORK [--budgets quarter eighth latency] [--seeds 0]
        [--candidates 8] [--epochs 4] [--images 8000]

*joint* is `compress` with ``precision="auto"``, *float* with ``"fp32"``; *then* prunes in float to what is quantized to
the budget, and puts it into int8 with quantization-aware distillation. All have as many candidates, draw the same
training images and train as long: what the float student doesn't spend on quantized epochs it trains in float. Rows in
``joint.json`` are kept, ``joint.md`` is written after each.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir
import torch

import n2n_edge
from n2n_edge.data.dataset import Data, load_data
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import ModelFile
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.ptq import Validation, post_train
from n2n_edge.quantize.qdq import folded, structural
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.tasks.choice import choose_task
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.training.batches import subset
from n2n_edge.training.file_evaluation import file_meters
from n2n_edge.training.quantization_aware import quantize_aware, quantize_aware_settings
from n2n_edge.training.settings import DistillSettings

HERE = Path(__file__).parent
DEVICE = "raspberry-pi-5"
"""A device on which int8 pays: its cores multiply bytes four at a time."""
WAYS = ("joint", "float", "then")
QUANTIZED_SHARE = 0.3
"""Quantized epochs as a share of the float ones, as `quantize_aware_settings` has it."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Row = dict[str, Any]


class Progress(RunCallback):
    """What a run says, on stdout."""

    def on_message(self, message: str) -> None:
        print(" ", message, flush=True)


def figures(path: Path) -> tuple[float, float]:
    """Return megabytes, and the predicted milliseconds."""
    return path.stat().st_size / 1e6, ModelFile(path).estimate(load_profile(DEVICE)).figure.value


def limits(teacher: Path, budget: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the budget, and what a float network may have that keeps it in int8, as the teacher tells."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        save_model(structural(fold_batchnorm(Teacher.load(teacher).model), QuantizationPlan()), path)
        whole, small = figures(teacher), figures(path)
    if budget == "latency":
        limit = 0.5 * whole[1]
        return {"max_latency_ms": limit}, {"max_latency_ms": 0.98 * limit * whole[1] / small[1]}
    limit = whole[0] / {"quarter": 4, "eighth": 8}[budget]
    overhead = small[0] - whole[0] / 4  # scales and pairs, which don't become fewer with channels
    return {"max_mb": limit}, {"max_mb": 0.98 * 4 * (limit - overhead)}


def compressed(given: argparse.Namespace, source: Path, out: Path, budget: Mapping[str, float], **how: Any) -> Path:
    """Return the student of a run, which is gone on with where it was begun."""
    run = n2n_edge.compress(
        given.teacher, str(source), device=DEVICE, accept_expected=True, candidates=given.candidates, out=out,
        mean=MEAN, std=STD, resume=(out / "run.toml").exists(), callbacks=[Progress()], **budget, **how,
    )  # fmt: skip
    return run.student


def in_int8(student: Path, teacher: Path, data: Data, epochs: int, seed: int, out: Path) -> Path:
    """Quantize a float student with its teacher's help."""
    graph = fold_batchnorm(Teacher.load(student).model)
    plan = QuantizationPlan()
    validation = Validation(graph, data, data.validation, 512)
    found = post_train(graph, data, validation, plan, images=512, max_drop=math.inf)
    settings = quantize_aware_settings(DistillSettings(seed=seed, threads=1))
    trained = quantize_aware(found.training, Teacher.load(teacher).model, data, replace(settings, epochs=epochs))
    save_model(folded(trained.model), out)
    return out


def row(given: argparse.Namespace, budget: str, way: str, seed: int, data: Data, source: Path) -> Row:
    """Return what a way's student costs and is worth."""
    limit, wider = limits(given.teacher, budget)
    quantized = max(1, round(given.epochs * QUANTIZED_SHARE))
    out = given.work / f"{budget}-{way}-{seed}"
    if way == "joint":
        path = compressed(given, source, out, limit, seed=seed, precision="auto", epochs=given.epochs)
    elif way == "float":
        path = compressed(given, source, out, limit, seed=seed, precision="fp32", epochs=given.epochs + quantized)
    else:
        pruned = compressed(given, source, out, wider, seed=seed, precision="fp32", epochs=given.epochs)
        path = in_int8(pruned, given.teacher, data, quantized, seed, out / "int8.onnx")
    before, after = file_meters(given.teacher, path, data.test, data, fidelity=(False, False), threads=1)
    difference = paired_difference(before, after)
    assert difference is not None
    size, latency = figures(path)
    precisions = {value.dtype.name for value in load_model(path).graph.initializers.values() if value.dtype}
    return {
        "score": after.evaluation().score, "teacher": before.evaluation().score,
        "difference": [difference.value, difference.low, difference.high], "mb": size, "ms": latency,
        "limit": next(iter(limit.values())), "int8": ir.DataType.INT8.name in precisions,
    }  # fmt: skip


def write_table(rows: Mapping[str, Row], path: Path) -> None:
    """Write rows as a table."""
    lines = ["| budget | seed | way | score, % | against the teacher, points (95%) | MB | ms on the device | int8 |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for key, one in sorted(rows.items()):
        value, low, high = one["difference"]
        lines.append(
            f"| {key} | {100 * one['score']:.2f} | {value:+.2f} ({low:+.2f} to {high:+.2f}) | {one['mb']:.4f} "
            f"| {one['ms']:.3f} | {'yes' if one['int8'] else 'no'} |"
        )
    path.write_text("\n".join(lines) + "\n")


def few(cifar: Path, work: Path, images: int, seed: int) -> Path:
    """Link an equal number of training images of every class, and all test images."""
    folder = work / f"data-{images}-{seed}"
    if not folder.exists():
        for kind in sorted((cifar / "train").iterdir()):
            files = sorted(kind.iterdir())
            source = torch.Generator().manual_seed(seed)
            target = folder / "train" / kind.name
            target.mkdir(parents=True)
            for index in torch.randperm(len(files), generator=source)[: images // 10].tolist():
                (target / files[index].name).symlink_to(files[index].absolute())
        (folder / "test").symlink_to((cifar / "test").absolute(), target_is_directory=True)
    return folder


def add_row(out: Path, key: str, make: Callable[[], Row], write: Callable[[Mapping[str, Row], Path], None]) -> None:
    """Make a row that `out` doesn't hold yet, keep it there, and write the table beside it; what stops it is told."""
    rows = json.loads(out.read_text()) if out.exists() else {}
    if key in rows:
        return
    print(key, flush=True)
    try:
        rows[key] = make()
    except n2n_edge.N2NError as error:
        print(key, f"{type(error).__name__}: {error}", flush=True)
        return
    print(key, rows[key], flush=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")
    write(rows, out.with_suffix(".md"))


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("teacher", "cifar", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--budgets", nargs="*", default=["quarter", "eighth", "latency"])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--out", type=Path, default=HERE / "joint.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in given.seeds:
        source = few(given.cifar, given.work, given.images, seed)
        data = load_data(str(source), preprocessing=Preprocessing((32, 32), mean=MEAN, std=STD), classes=10, seed=seed)
        data, _ = choose_task(Teacher.load(given.teacher).model, data)
        data = replace(data, validation=subset(data.validation, 1000, seed))
        for budget in given.budgets:
            for way in given.ways:
                make = partial(row, given, budget, way, seed, data, source)
                add_row(given.out, f"{budget} | {seed} | {way}", make, write_table)


if __name__ == "__main__":
    main()
