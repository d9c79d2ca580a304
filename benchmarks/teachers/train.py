"""Train the teachers of the benchmarks of precision and of the search on CIFAR-10, and write them as ONNX.

    python benchmarks/teachers/train.py CIFAR [--networks mobilenet-v2 ...] [--epochs 8] [--out FOLDER]

CIFAR is a folder of images per class with train/ and test/. Every network is trained once, with one seed; the file and
a row of ``results.json`` are written when it ends, and a network that has both is left out.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from networks import NETWORKS
from torch import Tensor, nn
from torch.nn import functional

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.training.file_evaluation import evaluate_file

HERE = Path(__file__).parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, PEAK, DECAY, SMOOTHING, PADDING, OPSET, SEED = 128, 0.2, 2e-4, 0.1, 4, 17, 0


def augmented(images: Tensor, source: torch.Generator) -> Tensor:
    """Return images ``(N, C, H, W)``, each shifted by up to four pixels and mirrored or not."""
    count, _, height, width = images.shape
    padded = functional.pad(images, [PADDING] * 4)
    rows, columns = torch.randint(0, 2 * PADDING + 1, (2, count), generator=source)
    mirrored = torch.rand(count, generator=source) < 0.5
    x = torch.arange(width).expand(count, width)
    x = torch.where(mirrored[:, None], x.flip(1), x) + columns[:, None]
    y = torch.arange(height).expand(count, height) + rows[:, None]
    return padded[torch.arange(count)[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def normalised(images: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> Tensor:
    """Return bytes ``(N, H, W, C)`` as the network takes them."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def train(network: nn.Module, data: Data, epochs: int) -> None:
    """Train by SGD from a short warm-up along a cosine to zero."""
    images, labels = np.asarray(data.train.images[np.arange(len(data.train))]), torch.from_numpy(data.train.labels)
    source = torch.Generator().manual_seed(SEED)
    steps = len(images) // BATCH * epochs
    sgd = torch.optim.SGD(network.parameters(), lr=PEAK, momentum=0.9, weight_decay=DECAY, nesterov=True)
    step, network = 0, network.to(memory_format=torch.channels_last).train()
    for epoch in range(epochs):
        begun, total = time.monotonic(), 0.0
        for chosen in torch.randperm(len(images), generator=source).split(BATCH)[: len(images) // BATCH]:
            rate = min((step + 1) / (0.1 * steps), 0.5 * (1 + math.cos(math.pi * step / steps)))
            sgd.param_groups[0]["lr"] = PEAK * rate
            x = augmented(normalised(images[chosen.numpy()]), source).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(network(x), labels[chosen], label_smoothing=SMOOTHING)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            total, step = total + float(loss.detach()), step + 1
        spent = time.monotonic() - begun
        print(f"epoch {epoch + 1}/{epochs}: loss {total * epochs / steps:.3f}, {spent:.0f} s", flush=True)


def export(network: nn.Module, path: Path) -> None:
    """Write the network with its BatchNorm kept and its batch axis free."""
    torch.onnx.export(
        network.eval(), (torch.zeros(2, 3, 32, 32),), str(path), opset_version=OPSET, dynamo=False,
        input_names=["input"], output_names=["logits"], training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False, dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip
    onnx.checker.check_model(onnx.load(path))


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(str(given.cifar), input_shape=(3, 32, 32), classes=10, mean=MEAN, std=STD)
    kept = HERE / "results.json"
    for name in given.networks:
        rows = json.loads(kept.read_text()) if kept.exists() else {}
        path = given.out / f"{name}.onnx"
        if name in rows and path.exists():
            continue
        print(name, flush=True)
        torch.manual_seed(SEED)
        network, begun = NETWORKS[name](), time.monotonic()
        train(network, data, given.epochs)
        export(network, path)
        found = evaluate_file(path, data.test, data)
        rows[name] = {
            "test_accuracy": found.score, "test_images": found.n, "epochs": given.epochs, "images": len(data.train),
            "bytes": path.stat().st_size, "params": sum(each.numel() for each in network.parameters()),
            "seconds": round(time.monotonic() - begun), "torch": torch.__version__.split("+")[0], "seed": SEED,
        }  # fmt: skip
        print(name, rows[name], flush=True)
        kept.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
