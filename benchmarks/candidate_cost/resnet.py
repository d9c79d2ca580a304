"""A CIFAR ResNet with padded shortcuts (He et al. 2016, section 4.2, option A) as a torch module."""

import torch
from torch import nn
from torch.nn import functional

__all__ = ["CifarResNet"]


class CifarResNet(nn.Module):
    """ResNet-``6n+2`` for ``(N, 3, 32, 32)``; ResNet-56 has n = 9 blocks a stage."""

    def __init__(self, blocks_a_stage: int = 9, classes: int = 10, base: int = 16) -> None:
        super().__init__()
        self.stem = _conv_norm(3, base, 1)
        widths = [(base, base), (base, 2 * base), (2 * base, 4 * base)]
        self.blocks = nn.Sequential(
            *(
                _Block(before if first else after, after, 2 if first and before != after else 1)
                for before, after in widths
                for first in [True] + [False] * (blocks_a_stage - 1)
            )
        )
        self.head = nn.Linear(4 * base, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(N, classes)``."""
        x = self.blocks(functional.relu(self.stem(x)))
        return self.head(x.mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _conv_norm(before, after, stride), _conv_norm(after, after, 1)
        self.stride, self.padding = stride, (after - before) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(functional.relu(self.first(x)))
        if self.padding:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(x + y)


def _conv_norm(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after))
