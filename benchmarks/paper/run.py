"""The article's kind of claim: over-sized teachers, compressed as far as they go at no loss.

``python benchmarks/paper/run.py NAME DATA WORK [--smoke]`` trains the teacher of a task (unless WORK has it), runs
``n2n-edge compress`` on it and adds the figures to ``results.json``. ``--smoke`` takes a few steps on noise of the
right form instead, which shows that a task would run and nothing more; its figures aren't kept.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from networks import ResNet, vgg
from torch import Tensor, nn

from n2n_edge.data.dataset import Data, Split, load_data
from n2n_edge.graph.load import save_model
from n2n_edge.graph.torch_export import export_module
from n2n_edge.training.augmentation import normalise, shifted
from n2n_edge.training.compute import native_bf16

HERE = Path(__file__).parent
BATCH = 128


@dataclass(frozen=True)
class Task:
    """A teacher, its data's form, how long both networks train, and how many times fewer params the student has."""

    network: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    classes: int
    teacher_epochs: int
    ratio: float
    effort: str = "standard"
    epochs: int | None = None
    learning_rate: float = 0.1


TASKS = {
    "mnist-vgg13": Task(lambda: vgg(13, 1, 10), (1, 28, 28), 10, 2, 130, "quick", 12, 0.05),
    "signs-wide-resnet": Task(
        lambda: ResNet(3, 10, (1, 1, 1), (64, 128, 256)), (3, 32, 32), 10, 40, 21, "quick", 100, 0.05
    ),
    "cifar10-vgg19": Task(lambda: vgg(19, 3, 10), (3, 32, 32), 10, 150, 20),
    "cifar10-resnet18": Task(lambda: ResNet.standard(18, 10), (3, 32, 32), 10, 150, 11),
    "cifar10-resnet34": Task(lambda: ResNet.standard(34, 10), (3, 32, 32), 10, 150, 10),
    "cifar100-resnet34": Task(lambda: ResNet.standard(34, 100), (3, 32, 32), 100, 150, 7),
    "svhn-resnet18": Task(lambda: ResNet.standard(18, 10), (3, 32, 32), 10, 100, 20),
}


def main() -> None:
    """Train the teacher, compress it, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(TASKS))
    parser.add_argument("data", nargs="?", help="a folder or an .npz file, as compress takes it")
    parser.add_argument("work", nargs="?", type=Path, default=Path("paper-runs"))
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    task = TASKS[options.name]
    options.work.mkdir(parents=True, exist_ok=True)
    if options.smoke:
        options.data = str(noise(task, options.work / f"{options.name}-noise.npz"))
    elif options.data is None:
        parser.error("no data given")
    teacher = options.work / f"{options.name}{'-smoke' if options.smoke else ''}.onnx"
    mean, std = statistics_of(load_data(options.data, input_shape=task.shape, classes=task.classes))
    data = load_data(options.data, input_shape=task.shape, classes=task.classes, mean=mean, std=std)
    if not teacher.exists():
        train(task, data, teacher, steps=3 if options.smoke else None)
    row = compressed(task, options.data, mean, std, teacher, options.work / f"{options.name}-run", options)
    print(json.dumps(row, indent=1))
    if not options.smoke:
        path = HERE / "results.json"
        rows = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**rows, f"{options.name}/{options.seed}": row}, indent=1) + "\n")


def noise(task: Task, path: Path) -> Path:
    """Write a few random images with labels."""
    random = np.random.default_rng(0)
    channels, height, width = task.shape
    found = {}
    for part, count in (("train", 512), ("test", 128)):
        found[f"x_{part}"] = random.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
        found[f"y_{part}"] = np.arange(count) % task.classes
    np.savez(path, **found)  # type: ignore[arg-type]
    return path


def statistics_of(data: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the training pixels, by channel."""
    pixels = data.train.images[:5000].astype(np.float64) / 255
    rounded = [tuple(round(float(v), 4) for v in one(axis=(0, 1, 2))) for one in (pixels.mean, pixels.std)]
    return rounded[0], rounded[1]


def train(task: Task, data: Data, path: Path, steps: int | None) -> None:
    """Train a teacher by SGD under a one-cycle schedule and write it."""
    torch.manual_seed(0)
    randomness = torch.Generator().manual_seed(0)
    network = task.network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    per_epoch = len(data.train) // BATCH
    total = steps or task.teacher_epochs * per_epoch
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, task.learning_rate, total_steps=total, pct_start=0.2)
    start = time.perf_counter()
    network.train()
    done = 0
    while done < total:
        for chosen in torch.randperm(len(data.train), generator=randomness).split(BATCH)[:per_epoch]:
            inputs, labels = batch(data, data.train, chosen, randomness)
            with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
                loss = nn.functional.cross_entropy(network(inputs), labels, label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done += 1
            if done % 50 == 0:
                print(
                    f"step {done} of {total}: loss {float(loss):.3f}, {time.perf_counter() - start:.0f} s", flush=True
                )
            if done == total:
                break
    network.eval()
    right = 0
    for chosen in torch.arange(len(data.test)).split(500):
        inputs, labels = batch(data, data.test, chosen, None)
        with torch.inference_mode():
            right += int((network(inputs).argmax(dim=1) == labels).sum())
    params = sum(parameter.numel() for parameter in network.parameters())
    print(f"teacher: {params:,} params, {right / len(data.test):.2%} on the test images", flush=True)
    save_model(export_module(network, torch.zeros(1, *task.shape)), path)


def batch(data: Data, split: Split, chosen: Tensor, randomness: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Return normalised images, augmented if `randomness` is given, and labels."""
    assert split.labels is not None
    images = torch.from_numpy(np.ascontiguousarray(split.images[chosen.numpy()]))
    if randomness is not None:
        images = shifted(images, randomness, flip=False)
    return normalise(images, data.preprocessing), torch.from_numpy(split.labels[chosen.numpy()])


def compressed(
    task: Task,
    data: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    teacher: Path,
    out: Path,
    options: argparse.Namespace,
) -> dict[str, object]:
    """Run the command and return what its report says."""
    params = sum(parameter.numel() for parameter in task.network().parameters())
    command = [
        sys.executable, "-m", "n2n_edge", "compress", str(teacher), "--data", data, "--out", str(out),
        "--max-params", str(int(params / task.ratio)), "--effort", task.effort, "--seed", str(options.seed),
        "--mean", ",".join(map(str, mean)), "--std", ",".join(map(str, std)), "--no-flip",
    ]  # fmt: skip
    if options.smoke:
        command += ["--candidates", "2", "--epochs", "1"]
    elif task.epochs is not None:
        command += ["--epochs", str(task.epochs)]
    start = time.perf_counter()
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    report = json.loads((out / "report.json").read_text())
    return {"exit": done.returncode, "minutes": round((time.perf_counter() - start) / 60, 1), **summary(report)}


def summary(report: dict[str, dict[str, dict[str, float]]]) -> dict[str, object]:
    """Return costs and accuracies of teacher and student."""
    names = ("params", "macs", "size_mb", "accuracy")
    return {who: {name: report[who][name]["value"] for name in names} for who in ("teacher", "student")}


if __name__ == "__main__":
    main()
