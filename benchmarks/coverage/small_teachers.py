"""CIFAR-size teachers of five styles, trained a little on sign-language digits, and `compress` on each.

``python benchmarks/coverage/small_teachers.py sign-digits-32.npz RUNS`` trains, exports and compresses; the tables go
to ``small_teachers.json``.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from n2n_edge.graph.load import save_model
from n2n_edge.graph.torch_export import export_module

HERE = Path(__file__).parent
CLASSES = 10

EPOCHS = 20
"""Epochs of the final distillation; quick effort by itself would take 60 of so small a set."""


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution and BatchNorm."""
    padding = kernel // 2
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    """What is inside, added to what comes in."""

    def __init__(self, *inside: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.inside = nn.Sequential(*inside)
        self.after = after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return self.after(x + self.inside(x))  # type: ignore[no-any-return]


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = max(4, width // 8)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            nn.SiLU(),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return x * self.gate(x)  # type: ignore[no-any-return]


class ShuffleUnit(nn.Module):
    """Half of the channels pass, the other half is worked on, then both are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.half = half
        self.branch = nn.Sequential(
            *conv(half, half, 1), nn.ReLU(), *conv(half, half, groups=half), *conv(half, half, 1), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        passed, worked = x.chunk(2, dim=1)
        joined = torch.cat([passed, self.branch(worked)], dim=1)
        count, width, rows, columns = joined.shape
        return joined.view(count, 2, self.half, rows, columns).transpose(1, 2).reshape(count, width, rows, columns)


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, convolution, and everything before concatenated."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), *conv(inputs, 4 * growth, 1), nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return torch.cat([x, self.layers(x)], dim=1)


def inverted(inputs: int, outputs: int, stride: int, activation: Callable[[], nn.Module], gated: bool) -> nn.Module:
    """Inverted residual block, with a gate in EfficientNet's."""
    wide = 4 * inputs
    layers = [*conv(inputs, wide, 1), activation(), *conv(wide, wide, 3, stride, wide), activation()]
    layers += [Gate(wide)] if gated else []
    layers += conv(wide, outputs, 1)
    return Residual(*layers) if stride == 1 and inputs == outputs else nn.Sequential(*layers)


def headed(width: int, *layers: nn.Module) -> nn.Sequential:
    """Layers and a pooled classifier."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def mobilenet_v2() -> nn.Module:
    """MobileNetV2's blocks."""
    plan = [(16, 24, 1), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
    return headed(64, *conv(3, 16), nn.ReLU6(), *(inverted(*step, nn.ReLU6, False) for step in plan))


def efficientnet() -> nn.Module:
    """EfficientNet's blocks."""
    plan = [(16, 24, 1), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 80, 2), (80, 80, 1)]
    return headed(80, *conv(3, 16), nn.SiLU(), *(inverted(*step, nn.SiLU, True) for step in plan))


def shufflenet_v2() -> nn.Module:
    """ShuffleNetV2's units."""
    layers: list[nn.Module] = [*conv(3, 24), nn.ReLU()]
    width = 24
    for wider in (48, 96, 192):
        layers += [*conv(width, width, 3, 2, width), *conv(width, wider, 1), nn.ReLU()]
        layers += [ShuffleUnit(wider) for _ in range(3)]
        width = wider
    return headed(width, *layers)


def densenet() -> nn.Module:
    """DenseNet-BC."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, padding=1, bias=False)]
    width = 24
    for block in range(3):
        for _ in range(4):
            layers.append(DenseLayer(width, 12))
            width += 12
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        if block < 2:
            layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    return headed(width, *layers)


def resnext() -> nn.Module:
    """ResNeXt's bottlenecks."""
    layers: list[nn.Module] = [*conv(3, 32), nn.ReLU()]
    width = 32
    for wider, stride in ((64, 1), (128, 2), (256, 2)):
        layers += [*conv(width, wider, 1, stride), nn.ReLU()]
        inner = wider // 2
        for _ in range(2):
            bottleneck = [*conv(wider, inner, 1), nn.ReLU(), *conv(inner, inner, groups=8), nn.ReLU()]
            layers.append(Residual(*bottleneck, *conv(inner, wider, 1), after=nn.ReLU()))
        width = wider
    return headed(width, *layers)


class FullyConvolutional(nn.Module):
    """A small segmentation network: down, up by a transposed convolution and by resizing, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(*conv(3, 24), nn.ReLU())
        self.second = nn.Sequential(*conv(24, 48, stride=2), nn.ReLU(), *conv(48, 48), nn.ReLU())
        self.third = nn.Sequential(*conv(48, 96, stride=2), nn.ReLU(), *conv(96, 96), nn.ReLU())
        self.up = nn.ConvTranspose2d(96, 48, 2, stride=2)
        self.merge = nn.Sequential(*conv(96, 48), nn.ReLU())
        self.last = nn.Sequential(*conv(72, 24), nn.ReLU(), nn.Conv2d(24, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of five classes for every pixel."""
        first = self.first(x)
        second = self.second(first)
        merged = self.merge(torch.cat([second, self.up(self.third(second))], dim=1))
        upper = nn.functional.interpolate(merged, scale_factor=2.0, mode="nearest")
        return self.last(torch.cat([first, upper], dim=1))  # type: ignore[no-any-return]


CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "shufflenet_v2": shufflenet_v2,
    "efficientnet": efficientnet,
    "densenet": densenet,
    "resnext": resnext,
}


def main() -> None:
    """Train, export and compress."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("digits", type=Path, help="sign-digits-32.npz")
    parser.add_argument("runs", type=Path, help="folder for teachers and runs")
    parser.add_argument("--only", nargs="*", help="names; default: all")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    arrays = np.load(options.digits)
    images, labels = arrays["x_train"], arrays["y_train"]
    pictures = options.runs / "unlabelled.npz"
    np.savez(pictures, x_train=images, x_test=arrays["x_test"])
    out = HERE / "small_teachers.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    for name in [*CLASSIFIERS, "segmentation"]:
        if options.only and name not in options.only:
            continue
        path = options.runs / f"{name}.onnx"
        if not path.exists():
            torch.manual_seed(0)
            module = segmenter(images) if name == "segmentation" else classifier(CLASSIFIERS[name](), images, labels)
            save_model(export_module(module, torch.zeros(1, 3, 32, 32)), path)
        data = pictures if name == "segmentation" else options.digits
        results[name] = compress(name, path, data, options.runs)
        out.write_text(json.dumps(results, indent=1) + "\n")


def as_input(images: np.ndarray) -> Tensor:
    """Normalise as the runs are told to: mean and std 0.5."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def train(module: nn.Module, images: np.ndarray, loss_of: Callable[[Tensor, Tensor], Tensor], epochs: int) -> nn.Module:
    """Train on shifted images; `loss_of` gets the outputs and the positions of the images."""
    steps = epochs * (len(images) // 64)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    inputs = as_input(images)
    module.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images))[: len(images) // 64 * 64].split(64):
            rows, columns = (int(shift) for shift in torch.randint(-2, 3, (2,)))
            loss = loss_of(module(inputs[chosen].roll((rows, columns), (2, 3))), chosen)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return module.eval()


def classifier(module: nn.Module, images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Train a classifier."""
    targets = torch.from_numpy(labels.astype(np.int64))
    return train(module, images, lambda outputs, chosen: nn.functional.cross_entropy(outputs, targets[chosen]), 20)


def segmenter(images: np.ndarray) -> nn.Module:
    """Train to tell five levels of brightness of every pixel: a task that needs no labels by people."""
    grey = torch.from_numpy(images).float().mean(dim=3)
    levels = (nn.functional.avg_pool2d(grey[:, None], 3, 1, 1)[:, 0] / 51.01).long().clamp(0, 4)
    network = FullyConvolutional()
    return train(network, images, lambda outputs, chosen: nn.functional.cross_entropy(outputs, levels[chosen]), 6)


def compress(name: str, path: Path, data: Path, runs: Path) -> dict[str, object]:
    """Run the command at quick effort, half of the teacher's file as the budget."""
    budget = round(path.stat().st_size / 2e6, 3)
    command = [sys.executable, "-m", "n2n_edge", "compress", str(path), "--data", str(data)]
    command += ["--device", "raspberry-pi-4", "--max-mb", str(budget), "--effort", "quick", "--epochs", str(EPOCHS)]
    command += ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    done = subprocess.run([*command, "--out", str(runs / name), "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"exit": done.returncode, "error": done.stderr.strip().splitlines()[-1]}
    report = json.loads(done.stdout)
    kept = ("accuracy", "fidelity", "params", "size_mb", "macs", "memory_bound_mb")
    row: dict[str, object] = {"exit": 0, "max_mb": budget}
    for model in ("teacher", "student"):
        figures = {key: report[model].get(key) for key in kept}
        row[model] = {key: figure["value"] for key, figure in figures.items() if figure is not None}
    return row


if __name__ == "__main__":
    main()
