"""Teachers for the synthetic data: small networks of usual structure, trained for a few minutes and exported to ONNX.

    python benchmarks/tasks/teachers.py detection|segmentation|keypoints|regression DATA FOLDER [--epochs 40]

The numbers of keypoints and regression need more images than the 400 by default: 4,000 and 12 epochs.

The detector has the structure of an Ultralytics export: split blocks, pooling over several sizes, and a head without
anchors that regresses distributions of distances, with one output ``(N, 4 + classes, A)``: boxes as centre and size in
pixels, scores after a sigmoid.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from shapes import CLASSES, SIDE
from torch import Tensor, nn

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.data.labels.values import Mask, Objects, Points

BINS = 8
STRIDES = (4, 8)


class Conv(nn.Sequential):
    """Convolution, BatchNorm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
        )


class Split(nn.Module):
    """A block that splits its channels, runs one half through residual convolutions and joins all stages."""

    def __init__(self, channels: int, depth: int = 1) -> None:
        super().__init__()
        half = channels // 2
        self.enter = Conv(channels, channels, 1)
        self.blocks = nn.ModuleList(nn.Sequential(Conv(half, half), Conv(half, half)) for _ in range(depth))
        self.leave = Conv(half * (2 + depth), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Pooled(nn.Module):
    """Max pooling over three sizes, joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.leave = Conv(channels, channels // 2, 1), Conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.leave(torch.cat(parts, 1))


class Detector(nn.Module):
    """Two scales, boxes as distributions of distances (generalised focal loss, Li et al. 2020), scores by class."""

    def __init__(self, width: int = 24, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(Conv(3, width, 3, 2), Conv(width, 2 * width, 3, 2), Split(2 * width))
        self.down = nn.Sequential(Conv(2 * width, 4 * width, 3, 2), Split(4 * width), Pooled(4 * width))
        self.up = Split(6 * width)
        self.near = Conv(6 * width, 2 * width, 1)
        self.box = nn.ModuleList(self._branch(each, 4 * BINS) for each in (2 * width, 4 * width))
        self.score = nn.ModuleList(self._branch(each, classes) for each in (2 * width, 4 * width))
        for branch in self.score:
            nn.init.constant_(branch[-1].bias, -4.0)
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32))

    @staticmethod
    def _branch(channels: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(Conv(channels, channels), nn.Conv2d(channels, outputs, 1))

    def raw(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return distributions of distances and logits of classes at every scale."""
        fine = self.stem(x)
        coarse = self.down(fine)
        fine = self.near(self.up(torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], 1)))
        return [
            (box(level), score(level)) for box, score, level in zip(self.box, self.score, (fine, coarse), strict=True)
        ]

    def decoded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes ``(N, A, 4)`` as corners in pixels, and logits ``(N, A, classes)``."""
        boxes, logits = [], []
        for stride, (box, score) in zip(STRIDES, self.raw(x), strict=True):
            rows, columns = box.shape[2:]
            y, x_ = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
            centres = torch.stack([x_, y], -1).reshape(1, -1, 2)
            shares = box.unflatten(1, (4, BINS)).flatten(3).softmax(2)
            far = (shares * self.bins.view(1, 1, -1, 1)).sum(2).transpose(1, 2)
            boxes.append(torch.cat([centres - far[..., :2], centres + far[..., 2:]], -1) * stride)
            logits.append(score.flatten(2).transpose(1, 2))
        return torch.cat(boxes, 1), torch.cat(logits, 1)

    def forward(self, x: Tensor) -> Tensor:
        boxes, logits = self.decoded(x)
        low, high = boxes[..., :2], boxes[..., 2:]
        return torch.cat([(low + high) / 2, high - low, logits.sigmoid()], -1).transpose(1, 2)

    def loss(self, x: Tensor, objects: list[Objects]) -> Tensor:
        """Return the loss of a batch: each object teaches the ten cells that meet it best (task-aligned assignment)."""
        boxes, logits = self.decoded(x)
        aims, total = torch.zeros_like(logits), boxes.new_zeros(())
        matched = 0
        for index, labels in enumerate(objects):
            for box, kind in zip(torch.from_numpy(labels.boxes).float(), labels.classes, strict=True):
                overlap = iou(boxes[index], box)
                centre = (boxes[index][:, :2] + boxes[index][:, 2:]) / 2
                inside = ((centre > box[:2]) & (centre < box[2:])).all(1)
                fit = overlap.detach() ** 3 * logits[index, :, int(kind)].detach().sigmoid().sqrt() + 1e-6 * inside
                best = fit.topk(10).indices
                aims[index, best, int(kind)] = torch.maximum(aims[index, best, int(kind)], overlap[best].detach())
                total = total + (1 - overlap[best]).sum() + 0.05 * (boxes[index][best] - box).abs().mean(1).sum()
                matched += len(best)
        error = F.binary_cross_entropy_with_logits(logits, aims, reduction="none")
        quality = (logits.sigmoid() - aims).abs().detach() ** 2
        return (quality * error).sum() * 10 / max(matched, 1) + total / max(matched, 1)


def iou(boxes: Tensor, box: Tensor) -> Tensor:
    """Return the overlap of boxes ``(A, 4)`` with one."""
    common = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp_min(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1)
    return common / (areas + (box[2:] - box[:2]).prod() - common + 1e-6)


class UNet(nn.Module):
    """Two halvings, skips by concatenation, logits of four classes."""

    def __init__(self, width: int = 16, classes: int = len(CLASSES) + 1) -> None:
        super().__init__()
        self.first = nn.Sequential(Conv(3, width), Conv(width, width))
        self.second = nn.Sequential(Conv(width, 2 * width), Conv(2 * width, 2 * width))
        self.third = nn.Sequential(Conv(2 * width, 4 * width), Conv(4 * width, 4 * width))
        self.back = nn.Sequential(Conv(6 * width, 2 * width), Conv(2 * width, 2 * width))
        self.last = nn.Sequential(Conv(3 * width, width), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        third = self.third(F.max_pool2d(second, 2))
        back = self.back(torch.cat([second, F.interpolate(third, scale_factor=2.0)], 1))
        return self.last(torch.cat([first, F.interpolate(back, scale_factor=2.0)], 1))


class Numbers(nn.Sequential):
    """A plain network that ends in so many numbers in 0..1."""

    def __init__(self, count: int, width: int = 24) -> None:
        super().__init__(
            Conv(3, width, 3, 2), Conv(width, 2 * width, 3, 2), Conv(2 * width, 3 * width, 3, 2), Split(3 * width),
            Conv(3 * width, 4 * width, 3, 2), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
            nn.Linear(36 * width, 96), nn.SiLU(), nn.Linear(96, count), nn.Sigmoid(),
        )  # fmt: skip


def network(kind: str) -> nn.Module:
    """Return an untrained teacher."""
    torch.manual_seed(0)
    return {
        "detection": Detector, "segmentation": UNet, "keypoints": lambda: Numbers(6), "regression": lambda: Numbers(4),
    }[kind]()  # fmt: skip


def loss_of(kind: str, module: nn.Module, x: Tensor, labels: list[object]) -> Tensor:
    """Return the loss of a batch."""
    if isinstance(module, Detector):
        return module.loss(x, [each for each in labels if isinstance(each, Objects)])
    given = module(x)
    if kind == "segmentation":
        masks = torch.stack([torch.from_numpy(each.pixels) for each in labels if isinstance(each, Mask)])
        return F.cross_entropy(given, masks.long())
    rows = [each.points[:, :2].ravel() / SIDE if isinstance(each, Points) else each for each in labels]
    return 20 * F.smooth_l1_loss(given, torch.tensor(np.array(rows), dtype=torch.float32), beta=0.05)


def train(kind: str, data: Data, epochs: int, module: nn.Module | None = None) -> nn.Module:
    """Train a teacher, or the `module` given, on all training images."""
    module = network(kind) if module is None else module
    images = torch.from_numpy(data.inputs(np.asarray(data.train.images[:])))
    labels = list(data.train.annotations) if data.train.annotations is not None else list(data.train.targets)  # type: ignore[arg-type]
    steps = epochs * -(-len(images) // 16)
    optimiser = torch.optim.AdamW(module.parameters(), 3e-3, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images)).split(16):
            loss = loss_of(kind, module, images[chosen], [labels[place] for place in chosen.tolist()])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimiser.step()
            rate.step()
            total += float(loss.detach()) * len(chosen)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(images):.4f}", flush=True)
    return module.eval()


def export(module: nn.Module, path: Path, *, free: bool = False) -> None:
    """Write a teacher; `free` leaves height and width free, too."""
    axes = {0: "batch", 2: "height", 3: "width"} if free else {0: "batch"}
    torch.onnx.export(
        module, (torch.zeros(2, 3, SIDE, SIDE),), path, input_names=["images"], output_names=["output0"],
        dynamic_axes={"images": axes, "output0": {0: "batch"}}, opset_version=17, dynamo=False,
    )  # fmt: skip


def make(kind: str, spec: Path, path: Path, epochs: int) -> None:
    """Train and write a teacher."""
    data = load_data(str(spec), input_shape=(3, SIDE, SIDE), classes=None, may_be_values=True)
    module = train(kind, data, epochs)
    torch.save(module.state_dict(), path.with_suffix(".pt"))
    export(module, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("detection", "segmentation", "keypoints", "regression"))
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    make(given.kind, given.data, given.folder / f"{given.kind}.onnx", given.epochs)
