"""The architecture of the example's teacher: a small residual CNN for 16x16 grey digits."""

from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["BasicBlock", "DigitsResNet", "NetworkShape"]


@dataclass(frozen=True)
class NetworkShape:
    """Channels of each stage and residual blocks per stage; every stage after the first halves the resolution."""

    widths: tuple[int, ...] = (24, 48, 80)
    blocks: int = 2
    classes: int = 10


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where width or resolution changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, channels_in, H, W)`` to ``(N, channels_out, H / stride, W / stride)``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + self.shortcut(x))
        return out


class DigitsResNet(nn.Module):
    """Convolutional stem, stages of `BasicBlock`, global average pooling, one linear layer."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, shape.widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.widths[0])
        self.relu = nn.ReLU()
        stages = []
        channels = shape.widths[0]
        for index, width in enumerate(shape.widths):
            first = BasicBlock(channels, width, stride=1 if index == 0 else 2)
            rest = [BasicBlock(width, width, stride=1) for _ in range(shape.blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            channels = width
        self.layers = nn.ModuleList(stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``(N, 1, 16, 16)`` to logits ``(N, classes)``."""
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in self.layers:
            x = stage(x)
        logits: Tensor = self.fc(self.flatten(self.pool(x)))
        return logits
