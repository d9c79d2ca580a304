"""What the engine costs beside a training loop written by hand: the same network, batch and number format, by turns.

    python benchmarks/engine/step.py [--rounds 4] [--device cpu]

A half-width MobileNetV2 is distilled at 32 and at 224 px: by `Optimiser` on the executor, and by a plain loop over an
`nn.Module` of the same layers and weights. Both take the same batches from memory and the same teacher's outputs, since
the teacher is the same network in both. Processor time on a processor, time on the clock on a GPU. Writes
`step.json` and `step.md` beside this.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from mobilenet import blocks, half_width
from torch import Tensor, nn

from n2n_edge.tasks.classification import Classification
from n2n_edge.training.compute import Engine, chosen_device, deterministic
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.optimiser import Lesson, Optimiser
from n2n_edge.training.settings import DistillSettings, Format

HERE = Path(__file__).resolve().parent

CASES: tuple[tuple[int, int], ...] = ((32, 128), (224, 32))
"""Pixels a side, and the batch."""


class Plain(nn.Module):
    """The network as one would write it in torch."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [self.layer(3, 16, 3, 2)]
        width = 16
        for expansion, channels, repeats, first in blocks(0.5):
            for turn in range(repeats):
                layers.append(Block(width, channels, expansion, first if turn == 0 else 1))
                width = channels
        layers.append(self.layer(width, 640, 1, 1))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(640, 100, bias=False)

    @staticmethod
    def layer(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1, relu: bool = True) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.ReLU(inplace=True)] if relu else []))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        scores: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        layers = [Plain.layer(inputs, wide, 1, 1)] if expansion > 1 else []
        layers += [Plain.layer(wide, wide, 3, stride, groups=wide), Plain.layer(wide, outputs, 1, 1, relu=False)]
        self.layers, self.skips = nn.Sequential(*layers), stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return x + found if self.skips else found


def weights_of(module: GraphModule) -> list[Tensor]:
    return [tensor.detach() for tensor in module.weights()]


def plain_loop(device: torch.device, number_format: Format, module: GraphModule) -> Callable[[Tensor, Tensor], float]:
    """Return a step as one would write it, from the same weights."""
    network = Plain().to(device, memory_format=torch.channels_last)
    ours, theirs = weights_of(module), list(network.parameters())
    if sorted(tuple(t.shape) for t in ours) != sorted(tuple(t.shape) for t in theirs):
        raise SystemExit("the two networks aren't the same")
    sgd = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    scaler = torch.amp.GradScaler(device.type, enabled=number_format == "fp16")
    short = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(number_format)
    network.train()

    def step(inputs: Tensor, teacher: Tensor) -> float:
        with torch.autocast(device.type, short, enabled=short is not None):
            scores = network(inputs)
        divergence = F.kl_div(
            F.log_softmax(scores.float() / 4, 1), F.log_softmax(teacher / 4, 1), reduction="batchmean", log_target=True
        )
        loss = 16 * divergence
        sgd.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(sgd)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        scaler.step(sgd)
        scaler.update()
        return float(loss.detach())

    return step


def engine_loop(engine: Engine, module: GraphModule, steps: int) -> Callable[[Tensor, Tensor], float]:
    """Return a step of the engine."""
    settings = DistillSettings(learning_rate=0.01)
    optimiser = Optimiser(module, settings, steps=steps, task=Classification(), engine=engine)
    module.train()
    taken = iter(range(steps))

    def step(inputs: Tensor, teacher: Tensor) -> float:
        return optimiser.step(next(taken), [Lesson(inputs, None, (teacher,))], len(inputs))

    return step


def timed(step: Callable[[], float], device: torch.device, steps: int) -> float:
    """Return the seconds of some steps: of the processor, or on the clock where a GPU works."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - start) / steps


def case(size: int, batch: int, number_format: Format, device: torch.device, rounds: int) -> dict[str, object]:
    engine = Engine(device, number_format)
    model = half_width(size)
    inputs = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    teacher = torch.randn(batch, 100, device=device)
    steps = 4 if size < 100 else 2
    module = engine.module(model)  # type: ignore[arg-type]
    plain = plain_loop(device, number_format, module)
    ours = engine_loop(engine, module, (rounds + 1) * steps)
    seconds: dict[str, list[float]] = {"plain": [], "engine": []}
    for turn in range(rounds + 1):
        order = [("plain", plain), ("engine", ours)]
        for name, step in order if turn % 2 else reversed(order):
            taken = timed(lambda step=step: step(inputs, teacher), device, steps)  # type: ignore[misc]
            if turn:  # the first warms up
                seconds[name].append(taken)
    rates = {name: batch / statistics.median(found) for name, found in seconds.items()}
    paired = [one / other for one, other in zip(seconds["plain"], seconds["engine"], strict=True)]
    return {
        "size": size, "batch": batch, "format": number_format, "images_per_s": rates,
        "ratio": statistics.median(paired), "rounds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--formats", default="fp32,bf16")
    options = parser.parse_args()
    device = chosen_device(options.device)
    with deterministic(1 if device.type == "cpu" else None):
        found = [
            case(size, batch, number_format, device, options.rounds)
            for size, batch in CASES
            for number_format in options.formats.split(",")
        ]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "one thread of a processor"
    (HERE / "step.json").write_text(json.dumps({"device": name, "cases": found}, indent=1) + "\n", encoding="utf-8")
    unit = "second" if device.type == "cuda" else "second of processor time"
    lines = [
        f"Half-width MobileNetV2 on {name}; images per {unit}, medians of {options.rounds} rounds by turns.", "",
        "| pixels | batch | format | plain loop | engine | engine / plain |", "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in found:
        rates = row["images_per_s"]
        assert isinstance(rates, dict)
        lines.append(
            f"| {row['size']} | {row['batch']} | {row['format']} | {rates['plain']:,.1f} | {rates['engine']:,.1f} | "
            f"{row['ratio']:.3f} |"
        )
    (HERE / "step.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
