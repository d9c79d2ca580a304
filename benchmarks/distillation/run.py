"""What the final distillation is worth: one setting changed at a time, each on the same number of images.

``python benchmarks/distillation/run.py resnet20_jpeg.onnx CIFAR [--images 64000] [--options NAME ...]`` trains the same
student, all groups shrunk alike to a share of the params, once per option and seed; writes ``results.json`` and
``results.md``. Rows that are there are kept.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.costs import costs
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.training.augmentation import normalise, shifted
from n2n_edge.training.batches import as_bytes, evaluation_batches
from n2n_edge.training.batchnorm import recalibrate
from n2n_edge.training.compute import Engine, default_format, deterministic, generator
from n2n_edge.training.evaluation import compare, outputs_of
from n2n_edge.training.hints import FeatureHints
from n2n_edge.training.optimiser import Lesson, Optimiser
from n2n_edge.training.reconstruct import reconstructed
from n2n_edge.training.settings import DistillSettings

HERE = Path(__file__).parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


PLAIN = DistillSettings(hint_weight=0.0)


@dataclass(frozen=True)
class Option:
    """A setting, and what isn't one: no refit, averaging of weights, mixed images, cut-out squares."""

    settings: DistillSettings = PLAIN
    refit: bool = True
    average: float = 0.0
    mixed: float = 0.0
    cut_out: bool = False


def changed(**values: object) -> Option:
    return Option(replace(PLAIN, **values))  # type: ignore[arg-type]


OPTIONS = {
    "plain": Option(),
    "rate 0.02": changed(learning_rate=0.02),
    "rate 0.1": changed(learning_rate=0.1),
    "rate 0.2": changed(learning_rate=0.2),
    "batch 64": changed(batch_size=64),
    "temperature 2": changed(temperature=2.0),
    "temperature 8": changed(temperature=8.0),
    "teacher alone": changed(kd_weight=1.0),
    "labels count half": changed(kd_weight=0.5),
    "labels alone": changed(kd_weight=0.0),
    "not augmented": changed(augment="none"),
    "weight decay 1e-4": changed(weight_decay=1e-4),
    "not refitted": Option(refit=False),
    "weights averaged": Option(average=0.99),
    "feature hints": changed(hint_weight=1.0),
    "feature hints of weight 3": changed(hint_weight=3.0),
    "feature hints, rate 0.02": changed(hint_weight=1.0, learning_rate=0.02),
    "feature hints, not augmented": changed(hint_weight=1.0, augment="none"),
    "feature hints, not augmented, rate 0.02": changed(hint_weight=1.0, augment="none", learning_rate=0.02),
    "feature hints, labels count half": changed(hint_weight=1.0, kd_weight=0.5),
    "feature hints, not refitted": Option(replace(PLAIN, hint_weight=1.0), refit=False),
    "images mixed": Option(mixed=0.5),
    "squares cut out": Option(cut_out=True),
}


def main() -> None:
    """Train and write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=64_000)
    parser.add_argument("--share", type=float, default=1 / 3, help="params that the student has, of the teacher's")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--options", nargs="*", default=list(OPTIONS))
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teacher = Teacher.load(options.teacher)
    data = load_data(options.data, input_shape=(3, 32, 32), classes=10, mean=MEAN, std=STD)
    architecture = shrunk(teacher, options.share)
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    for seed in range(options.seeds):
        for name in options.options:
            key = f"{name}/{seed}"
            if key not in rows:
                rows[key] = trained(teacher, architecture, data, OPTIONS[name], options.images, seed)
                print(key, rows[key], flush=True)
                options.out.write_text(json.dumps(rows, indent=1) + "\n")
    write_table(rows, options.out.with_suffix(".md"))


def shrunk(teacher: Teacher, share: float) -> Architecture:
    """Return the architecture with all groups shrunk alike that has at most `share` of the params."""
    for ratio in np.linspace(1.0, 0.1, 181):
        architecture = teacher.full
        for group in teacher.groups:
            if group.shrinkable:
                architecture = architecture.resize(group.name, max(1, round(ratio * group.width)))
        if costs(build(teacher, architecture)).params <= share * costs(teacher.model).params:
            break
    return architecture


def trained(
    teacher: Teacher, architecture: Architecture, data: Data, option: Option, images: int, seed: int
) -> dict[str, float]:
    """Return accuracy on the validation and the test images, and seconds of training."""
    settings = replace(option.settings, seed=seed)
    kept = surviving(teacher, architecture)
    student = build(teacher, architecture)
    if option.refit:
        student = reconstructed(student, teacher.model, data, settings, kept)
    exact = Engine.of(settings)
    module, guide = exact.module(student), exact.module(teacher.model).eval()
    task = task_of(teacher.model, data)
    engine = exact.calculating(default_format(settings.precision, exact.device))
    steps = images // settings.batch_size
    hints = None
    if settings.hint_weight:
        images_seen = exact.moved(next(evaluation_batches(data, data.train, 1)).inputs)
        hints = FeatureHints(module, guide, kept, images_seen)
    optimiser = Optimiser(module, settings, steps=steps, task=task, engine=engine, hints=hints)
    average: dict[str, Tensor] = {}
    start = time.perf_counter()
    with deterministic(settings.threads):
        module.train()
        for index, batch in enumerate(batches(data, settings, option, steps)):
            inputs, labels = engine.moved(batch)
            with torch.inference_mode(), engine.autocast():
                outputs, features = (guide(inputs), {}) if hints is None else hints.run(guide, inputs)
            taught = tuple(output.float().clone() for output in as_tuple(outputs))
            features = {name: tensor.clone() for name, tensor in features.items()}
            optimiser.step(index, [Lesson(inputs, labels, taught, features)], len(inputs))
            if option.average:
                for name, tensor in module.learned().items():
                    old = average.setdefault(name, tensor.clone())
                    old.lerp_(tensor, max(1 - option.average, 1 / (index + 1)))
        if average:
            module.load_learned(average)
        seconds = time.perf_counter() - start
        recalibrate(module, data, settings, 2, exact)
        found = {"seconds": round(seconds, 1)}
        for name, split in (("validation", data.validation), ("test", data.test)):
            assert split.labels is not None
            judged = compare(
                outputs_of(module, data, split, exact), None, exact.moved(torch.from_numpy(split.labels)), task
            )
            found[name] = judged.metric
    return found


def batches(
    data: Data, settings: DistillSettings, option: Option, steps: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Give normalised batches; mixed ones come without labels, so that the teacher alone says what they are."""
    randomness = generator(settings.seed, 7)
    order = torch.cat([torch.randperm(len(data.train), generator=randomness) for _ in range(20)])
    for chosen in order.split(settings.batch_size)[:steps]:
        images = as_bytes(data.train, chosen)
        if settings.augment != "none":
            images = shifted(images, randomness, flip=True)
        if option.cut_out:
            images = with_squares(images, randomness)
        inputs = normalise(images, data.preprocessing)
        labels: Tensor | None = torch.from_numpy(data.train.labels[chosen.numpy()])  # type: ignore[index]
        if option.mixed and float(torch.rand((), generator=randomness)) < option.mixed:
            share = float(torch.rand((), generator=randomness))
            inputs, labels = share * inputs + (1 - share) * inputs.flip(0), None
        yield inputs, labels


def with_squares(images: Tensor, randomness: torch.Generator) -> Tensor:
    """Blacken a quarter-sized square of each image (DeVries and Taylor, 2017)."""
    count, height, width, _ = images.shape
    row = torch.randint(0, height, (count, 1, 1), generator=randomness)
    column = torch.randint(0, width, (count, 1, 1), generator=randomness)
    inside = ((torch.arange(height)[None, :, None] - row).abs() < height // 8 + 1) & (
        (torch.arange(width)[None, None] - column).abs() < width // 8 + 1
    )
    return torch.where(inside[..., None], torch.zeros_like(images), images)


def write_table(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Write the mean of each option over its seeds."""
    lines = ["| option | validation | test | training, s | seeds |", "| --- | --- | --- | --- | --- |"]
    found: dict[str, list[dict[str, float]]] = {}
    for key, row in rows.items():
        found.setdefault(key.rpartition("/")[0], []).append(row)
    for name, of_seeds in found.items():
        means = {key: statistics.mean(row[key] for row in of_seeds) for key in of_seeds[0]}
        lines.append(
            f"| {name} | {means['validation']:.1%} | {means['test']:.1%} | {means['seconds']:.0f} | {len(of_seeds)} |"
        )
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
