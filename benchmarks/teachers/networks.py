"""Small networks for 32 px photographs in the forms that boards are given: inverted residuals, plain convolutions."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

__all__ = ["NETWORKS", "InvertedResidual", "mobile_network", "plain_network"]

Activation = Callable[[], nn.Module]


class Gate(nn.Module):
    """Squeeze and excitation: every channel times a factor that the means of all channels decide."""

    def __init__(self, channels: int, inner: int, gate: Activation) -> None:
        super().__init__()
        self.factors = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors(x)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution and its BatchNorm."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter depthwise, perhaps gate, project by 1x1; added to its input where both are alike."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        kernel: int,
        stride: int,
        act: Activation,
        gate: Activation | None,
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = [*conv(inputs, inner, 1), act()] if expansion > 1 else []
        layers += [*conv(inner, inner, kernel, stride, inner), act()]
        if gate is not None:
            layers.append(Gate(inner, max(8, inner // 8), gate))
        self.layers = nn.Sequential(*layers, *conv(inner, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def mobile_network(
    rows: Sequence[tuple[int, int, int, int, int]],
    act: Activation,
    gate: Activation | None = None,
    last: int = 192,
    classes: int = 10,
) -> nn.Module:
    """Return a network of stages `rows`: expansion, channels, blocks, stride of the first, kernel size."""
    channels = 16
    layers: list[nn.Module] = [*conv(3, channels, 3), act()]
    for expansion, outputs, blocks, stride, kernel in rows:
        for block in range(blocks):
            layers.append(InvertedResidual(channels, outputs, expansion, kernel, 1 if block else stride, act, gate))
            channels = outputs
    layers += [*conv(channels, last, 1), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes)]
    return nn.Sequential(*layers)


def plain_network(stages: Sequence[tuple[int, int]], classes: int = 10) -> nn.Module:
    """Return 3x3 convolutions one after the other, `stages` of width and number, each halved in size at its end."""
    channels, layers = 3, list[nn.Module]()
    for width, count in stages:
        for _ in range(count):
            layers += [*conv(channels, width, 3), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "mobilenet-v2": lambda: mobile_network(
        [(1, 16, 1, 2, 3), (4, 24, 2, 1, 3), (4, 40, 3, 2, 3), (4, 64, 2, 1, 3)], nn.ReLU6
    ),
    "mobilenet-v3": lambda: mobile_network(
        [(1, 16, 1, 2, 3), (4, 24, 2, 1, 3), (4, 40, 3, 2, 5), (4, 64, 2, 1, 5)], nn.Hardswish, nn.Hardsigmoid
    ),
    "efficientnet": lambda: mobile_network(
        [(1, 16, 1, 2, 3), (4, 24, 2, 1, 3), (4, 40, 2, 2, 5), (4, 48, 2, 1, 3), (4, 64, 1, 1, 5)],
        nn.SiLU,
        nn.Sigmoid,
    ),
    "vgg": lambda: plain_network([(32, 2), (64, 3), (128, 3)]),
}
"""What MobileNetV2 (Sandler et al. 2018), V3 (Howard et al. 2019), EfficientNet (Tan and Le 2019) and VGG (Simonyan
and Zisserman 2015) are made of."""
