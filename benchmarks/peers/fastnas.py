"""What FastNAS of nvidia-modelopt would cut of a CIFAR ResNet, as an architecture of this package's own.

FastNAS tries every group of channels alone at several widths, without training, and takes the narrowest that lose no
more than a common threshold, found by bisection for a limit on FLOPs. It has none on latency, so its limit is lowered
until the budget is met. Which channels go is left to the order that all ways here share.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from n2n_edge.data.dataset import Data
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.training.augmentation import normalise

__all__ = ["fastnas_architecture"]

_IMAGES, _BATCH = 1000, 250
_RATIOS = tuple(eighth / 8 for eighth in range(1, 9))
_STEPS = 20


def fastnas_architecture(
    teacher: Teacher, data: Data, multiple: int, cost: Callable[[ir.Model], float], limit: float
) -> Architecture:
    """Return the first architecture, from wide to narrow limits on FLOPs, whose `cost` is within `limit`.

    Raises:
        ValueError: no limit on FLOPs meets it.
    """
    images = normalise(torch.from_numpy(data.validation.images[:_IMAGES]), data.preprocessing)
    assert data.validation.labels is not None
    labels = torch.from_numpy(data.validation.labels[:_IMAGES])
    network = _network(teacher)
    with tempfile.TemporaryDirectory() as folder:
        for step in range(_STEPS - 1, 0, -1):
            pruned = _pruned(network, images, labels, multiple, step / _STEPS, Path(folder) / "sensitivity.pth")
            if pruned is None:
                break
            found = _architecture(teacher, pruned)
            if cost(build(teacher, found)) <= limit:
                return found
    raise ValueError(f"no limit on FLOPs meets the budget of {limit:.3g}")


def _pruned(
    network: nn.Module, images: Tensor, labels: Tensor, multiple: int, share: float, known: Path
) -> nn.Module | None:
    """Return the network at a share of its FLOPs, None where it can't be had; `known` keeps what was tried."""
    import modelopt.torch.prune as mtp

    def score(module: nn.Module) -> float:
        with torch.inference_mode():
            told = torch.cat([module.eval()(part) for part in images.split(_BATCH)])
        return float((told.argmax(dim=1) == labels).float().mean())

    convolutions = {"channels_ratio": _RATIOS, "kernel_size": (), "channel_divisor": multiple}
    norms = {"features_ratio": _RATIOS, "feature_divisor": multiple}
    mode = [("fastnas", {"nn.Conv2d": {"*": convolutions}, "nn.BatchNorm2d": {"*": norms}})]
    search = {"data_loader": [(images[:_BATCH],)], "score_func": score, "checkpoint": str(known)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found: nn.Module = mtp.prune(
                copy.deepcopy(network), mode, {"flops": f"{100 * share}%"}, images[:1], search
            )[0]
        except ValueError as error:
            if "satisfied" not in str(error):
                raise
            return None
    return found


def _architecture(teacher: Teacher, pruned: nn.Module) -> Architecture:
    """Return the teacher with every group as wide as a layer of it in the pruned module."""
    widths = {}
    for name, layer in pruned.named_modules():
        labels = teacher.labels.dims.get((f"{name}.weight", 0))
        if isinstance(layer, nn.Conv2d) and labels is not None:
            widths[frozenset(teacher.labels.find(labels).tolist())] = layer.out_channels
    architecture = teacher.full
    for group in teacher.groups:
        width = widths.get(frozenset(group.units))
        if group.shrinkable and width is not None and width < group.width:
            architecture = architecture.resize(group.name, width)
    return architecture


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.padding = (width - before) // 2
        self.stride = stride

    def forward(self, values: Tensor) -> Tensor:
        """Add what the two convolutions make of `values` to them."""
        own = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(values)))))
        if self.padding:
            values = F.pad(values[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(own + values)


class _ResNet(nn.Module):
    """A CIFAR ResNet with unlearned shortcuts (He et al., CVPR 2016, section 4.2), named as the teachers' weights."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages = [
            nn.Sequential(*(_Block(before if i == 0 else width, width, stride if i == 0 else 1) for i in range(blocks)))
            for before, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        ]
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(N, 10)`` logits."""
        values = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(images))))))
        logits: Tensor = self.linear(values.mean(dim=(2, 3)))
        return logits


def _network(teacher: Teacher) -> nn.Module:
    """Return the teacher as a torch module: modelopt can't trace what is converted from ONNX."""
    weights = {name: value.const_value for name, value in teacher.model.graph.initializers.items()}
    network = _ResNet(1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layer1.")))
    state = network.state_dict()
    for name in state:
        value = weights.get(name)
        if value is not None:
            state[name] = torch.from_numpy(value.numpy().copy())
        elif not name.endswith("num_batches_tracked"):
            raise ValueError(f"the teacher has no {name}")
    network.load_state_dict(state)
    return network.eval()
