"""Which networks a processor trains faster in bfloat16: one step of each in both formats, by turns.

    python benchmarks/engine/formats.py MODEL.onnx:3x32x32 ... [--rounds 5]

Processor time of one thread. Writes `formats.md` beside this, the grouped convolutions' share of all outputs included.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from n2n_edge.graph.teacher import Teacher
from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.outputs import as_tuple, output_kind
from n2n_edge.tasks.task import Task
from n2n_edge.tasks.values import Values
from n2n_edge.training.compute import Engine, deterministic
from n2n_edge.training.distillation import grouped_share
from n2n_edge.training.optimiser import Lesson, Optimiser
from n2n_edge.training.settings import DistillSettings, Format

HERE = Path(__file__).resolve().parent
PIXELS = 400_000
FORMATS: tuple[Format, ...] = ("fp32", "bf16")


def seconds(path: str, shape: tuple[int, ...], rounds: int) -> tuple[int, float, dict[Format, float]]:
    """Return the images of a step, the grouped share, and the median time of a step in each format."""
    teacher = Teacher.load(path, shape)
    count = min(64, max(2, PIXELS // (shape[1] * shape[2])))
    images = torch.rand(count, *shape)
    steps = {}
    for number_format in FORMATS:
        engine = Engine(torch.device("cpu"), number_format)
        module = engine.module(teacher.model)
        with torch.no_grad():
            said = tuple(output.float() for output in as_tuple(module(images)))
        kind = output_kind(teacher.model)
        task: Task = Values() if kind == "other" else Classification(kind)
        steps[number_format] = Optimiser(module, DistillSettings(), steps=rounds + 1, task=task, engine=engine)
        module.train()
    taken: dict[Format, list[float]] = {number_format: [] for number_format in FORMATS}
    for turn in range(rounds + 1):
        for number_format in FORMATS if turn % 2 else reversed(FORMATS):
            start = time.process_time()
            steps[number_format].step(turn, [Lesson(images, None, said)], count)
            if turn:
                taken[number_format].append(time.process_time() - start)
    return count, grouped_share(teacher.model), {name: statistics.median(found) for name, found in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", help="MODEL.onnx:CxHxW")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    lines = [
        "| network | input | images a step | grouped share | fp32, ms | bf16, ms | fp32 / bf16 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    with deterministic(1):
        for model in given.models:
            path, _, text = model.rpartition(":")
            count, share, found = seconds(path, tuple(map(int, text.split("x"))), given.rounds)
            times = " | ".join(f"{1000 * found[name]:.0f}" for name in FORMATS)
            ratio = found["fp32"] / found["bf16"]
            lines.append(f"| {Path(path).stem} | {text} | {count} | {share:.2f} | {times} | {ratio:.2f} |")
            print(lines[-1], flush=True)
    (HERE / "formats.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
