"""The teachers of the article's kind: VGG and ResNets of any depth and width, for images of 28 or 32 pixels."""

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["ResNet", "vgg"]

_VGG = {13: (2, 2, 2, 2, 2), 19: (2, 2, 4, 4, 4)}
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def vgg(depth: int, channels: int, classes: int) -> nn.Sequential:
    """Return VGG-13 or -19 with BatchNorm and one linear layer (9.4 and 20 million params)."""
    modules: list[nn.Module] = []
    inputs = channels
    for stage, count in enumerate(_VGG[depth]):
        outputs = min(512, 64 * 2**stage)
        for _ in range(count):
            modules += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        if stage < 4:
            modules.append(nn.MaxPool2d(2))
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.beside: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.beside = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.inside(x) + self.beside(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A residual network for small images: stages of basic blocks, each but the first at half the size."""

    def __init__(self, channels: int, classes: int, blocks: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        modules: list[nn.Module] = [
            nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        inputs = widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            for place in range(count):
                modules.append(_Block(inputs, width, 2 if stage and not place else 1))
                inputs = width
        self.features = nn.Sequential(*modules)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))

    @classmethod
    def standard(cls, depth: int, classes: int) -> "ResNet":
        """Return ResNet-18 or -34 for 32 pixels (11 and 21 million params)."""
        return cls(3, classes, _BLOCKS[depth], (64, 128, 256, 512))

    def forward(self, x: Tensor) -> Tensor:
        """Give scores of classes."""
        return self.head(self.features(x))  # type: ignore[no-any-return]
