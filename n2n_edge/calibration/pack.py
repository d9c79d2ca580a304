"""The models that a device is calibrated with: small networks of every kind, built in code."""

from collections.abc import Callable, Iterator

import onnx_ir as ir

from n2n_edge.calibration.builder import Net, shape

__all__ = ["calibration_pack"]

_Value = ir.Value


def calibration_pack() -> Iterator[tuple[str, ir.Model]]:
    """Yield names and models: 0.6 to 1,300 million multiply-accumulates each, at inputs of 14 to 256 pixels.

    Each mixes the classes of kernels in another proportion, with channels from 8 to 512, as real networks do: plain
    and residual convolutions, bottlenecks, depthwise-separable and inverted residual blocks with and without gates,
    shuffles, branches that are concatenated, large kernels, decoders, attention and fully connected layers.
    """
    for index, (name, make) in enumerate(_PACK.items()):
        yield name, make(index)


def _plain(size: int, widths: tuple[int, ...], deep: int, kernel: int = 3) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("plain", 3, size, size, seed)
        x = net.input
        for stage, width in enumerate(widths):
            for layer in range(deep):
                x = net.conv(x, width, kernel, stride=2 if layer == 0 and stage else 1)
        return _classified(net, x, 10)

    return make


def _vgg(size: int, widths: tuple[int, ...], deep: int, hidden: int) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("vgg", 3, size, size, seed)
        x = net.input
        for width in widths:
            for _ in range(deep):
                x = net.conv(x, width, 3)
            x = net.pool(x, 2, 2)
        return net.model(net.linear(net.linear(x, hidden, "relu"), 100))

    return make


def _residual(size: int, widths: tuple[int, ...], deep: int, stem: int = 3) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("residual", 3, size, size, seed)
        x = net.conv(net.input, widths[0], stem, stride=2 if stem > 3 else 1)
        if stem > 3:
            x = net.pool(x, 3, 2, pads=(1, 1, 1, 1))
        for width in widths:
            for _ in range(deep):
                stride = 2 if shape(x)[1] != width else 1
                y = net.conv(net.conv(x, width, 3, stride), width, 3, act=None)
                x = net.add(y, x if stride == 1 else net.conv(x, width, 1, stride, act=None), "relu")
        return _classified(net, x, 10)

    return make


def _bottleneck(size: int, widths: tuple[int, ...], deep: int) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("bottleneck", 3, size, size, seed)
        x = net.pool(net.conv(net.input, widths[0], 7, stride=2), 3, 2, pads=(1, 1, 1, 1))
        for stage, width in enumerate(widths):
            for layer in range(deep):
                stride = 2 if stage and layer == 0 else 1
                y = net.conv(net.conv(net.conv(x, width, 1), width, 3, stride), 4 * width, 1, act=None)
                x = net.add(y, x if layer else net.conv(x, 4 * width, 1, stride, act=None), "relu")
        return _classified(net, x, 100)

    return make


def _separable(size: int, widths: tuple[int, ...], act: str = "relu", kernel: int = 3) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("separable", 3, size, size, seed)
        x = net.conv(net.input, widths[0], 3, stride=2, act=act)
        for width in widths[1:]:
            stride = 2 if width > shape(x)[1] and shape(x)[2] > 4 else 1
            x = net.conv(net.depthwise(x, kernel, stride, act), width, 1, act=act)
        return _classified(net, x, 100)

    return make


def _inverted(size: int, widths: tuple[int, ...], deep: int, act: str, gated: bool) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("inverted", 3, size, size, seed)
        x = net.conv(net.input, widths[0], 3, stride=2, act=act)
        for width in widths:
            for layer in range(deep):
                inner = net.depthwise(net.conv(x, 4 * shape(x)[1], 1, act=act), 3, 1 if layer else 2, act)
                if gated:
                    gate = net.conv(net.global_pool(inner), max(8, shape(inner)[1] // 4), 1)
                    inner = net.mul(inner, net.conv(gate, shape(inner)[1], 1, act="hsigmoid"))
                y = net.conv(inner, width, 1, act=None)
                x = net.add(y, x) if shape(x) == shape(y) else y
        return _classified(net, net.conv(x, 6 * widths[-1], 1, act=act), 100)

    return make


def _shuffled(size: int, widths: tuple[int, ...], deep: int) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("shuffled", 3, size, size, seed)
        x = net.pool(net.conv(net.input, widths[0], 3, stride=2), 3, 2, pads=(1, 1, 1, 1))
        for width in widths:
            x = net.conv(net.depthwise(x, 3, 2, act=None), width, 1)
            for _ in range(deep):
                left, right = net.split(x, width // 2, width // 2)
                right = net.conv(net.depthwise(net.conv(right, width // 2, 1), 3, act=None), width // 2, 1)
                x = net.shuffle(net.concat(left, right), 2)
        return _classified(net, x, 100)

    return make


def _fire(size: int, widths: tuple[int, ...]) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("fire", 3, size, size, seed)
        x = net.conv(net.input, 48, 3, stride=2)
        for width in widths:
            x = net.pool(x, 3, 2)
            for _ in range(2):
                squeezed = net.conv(x, width // 4, 1)
                x = net.concat(net.conv(squeezed, width, 1), net.conv(squeezed, width, 3))
        return _classified(net, x, 100)

    return make


def _grouped(size: int, widths: tuple[int, ...], groups: int) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("grouped", 3, size, size, seed)
        x = net.conv(net.input, widths[0], 3, stride=2)
        for width in widths:
            x = net.conv(net.conv(x, width, 1), width, 3, stride=2, groups=groups)
            x = net.add(net.conv(net.conv(x, width, 3, groups=groups), width, 1, act=None), x, "relu")
        return _classified(net, x, 10)

    return make


def _decoder(size: int, widths: tuple[int, ...]) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("decoder", 3, size, size, seed)
        x, skips = net.conv(net.input, widths[0], 3, act="leaky"), []
        for width in widths[1:]:
            skips.append(x)
            x = net.conv(net.conv(x, width, 3, stride=2, act="leaky"), width, 3, act="leaky")
        for skip in reversed(skips):
            x = net.concat(net.upsample(net.conv(x, shape(skip)[1], 1, act="leaky"), 2), skip)
            x = net.conv(x, shape(skip)[1], 3, act="leaky")
        return net.model(net.conv(x, 4, 1, act="sigmoid"))

    return make


def _attention(size: int, patch: int, width: int, deep: int) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("attention", 3, size, size, seed)
        x = net.conv(net.input, width, patch, stride=patch, act=None, pads=(0, 0, 0, 0))
        tokens = shape(x)[2] * shape(x)[3]
        x = net.transpose(net.reshape(x, 1, width, tokens), 0, 2, 1)
        for _ in range(deep):
            query, key, value = (net.plus_constant(net.matmul(x, width)) for _ in range(3))
            scores = net.op("Softmax", net.matmul(query, net.transpose(key, 0, 2, 1)), attributes={"axis": -1})
            x = net.add(x, net.matmul(net.matmul(scores, value), width))
            hidden = net.activation(net.plus_constant(net.matmul(x, 4 * width)), "relu")
            x = net.add(x, net.plus_constant(net.matmul(hidden, width)))
        return net.model(net.linear(x, 10))

    return make


def _dense(widths: tuple[int, ...]) -> Callable[[int], ir.Model]:
    def make(seed: int) -> ir.Model:
        net = Net("dense", 1, 28, 28, seed)
        x = net.input
        for width in widths:
            x = net.linear(x, width, "relu")
        return net.model(net.linear(x, 10))

    return make


def _classified(net: Net, x: _Value, classes: int) -> ir.Model:
    return net.model(net.linear(net.global_pool(x), classes))


_PACK: dict[str, Callable[[int], ir.Model]] = {
    "plain-16": _plain(32, (16, 32, 64), 3),
    "plain-64": _plain(28, (64, 128), 2),
    "plain-wide": _plain(14, (128, 256, 512), 1),
    "plain-large": _plain(112, (8, 16, 24), 2),
    "plain-5x5": _plain(48, (16, 32), 2, kernel=5),
    "vgg": _vgg(32, (32, 64, 128), 2, 256),
    "vgg-large": _vgg(64, (24, 48, 96, 192), 1, 512),
    "residual-16": _residual(32, (16, 32, 64), 3),
    "residual-24": _residual(32, (24, 48, 96), 2),
    "residual-deep": _residual(24, (12, 24, 48), 6),
    "residual-224": _residual(160, (32, 64, 128), 1, stem=7),
    "bottleneck": _bottleneck(128, (16, 32, 64, 128), 2),
    "bottleneck-deep": _bottleneck(96, (32, 64, 96), 3),
    "separable-96": _separable(96, (8, 16, 32, 32, 64, 64, 128, 128, 128, 256)),
    "separable-128": _separable(128, (16, 32, 64, 64, 128, 128, 256, 256, 256, 512, 512)),
    "separable-wide": _separable(64, (32, 64, 128, 128, 256, 256, 512, 512)),
    "separable-5x5": _separable(112, (16, 24, 48, 48, 96, 96, 192), kernel=5),
    "separable-relu6": _separable(192, (16, 24, 48, 48, 96, 96, 192, 192), act="relu6"),
    "inverted-96": _inverted(96, (16, 24, 32, 64), 2, "relu6", False),
    "inverted-160": _inverted(160, (16, 24, 40, 80), 2, "relu6", False),
    "inverted-deep": _inverted(128, (12, 16, 24, 48, 96), 3, "relu", False),
    "inverted-hswish": _inverted(128, (16, 24, 40, 80), 2, "hswish", True),
    "inverted-swish": _inverted(112, (16, 24, 40, 64), 2, "swish", True),
    "inverted-gated": _inverted(96, (16, 24, 48), 2, "relu", True),
    "shuffled": _shuffled(160, (48, 96, 192), 3),
    "shuffled-small": _shuffled(96, (32, 64, 128), 4),
    "fire": _fire(112, (48, 96, 144)),
    "fire-large": _fire(192, (32, 64, 128)),
    "grouped": _grouped(64, (48, 96, 192), 4),
    "grouped-wide": _grouped(48, (64, 128), 8),
    "decoder": _decoder(64, (8, 16, 32, 64)),
    "decoder-large": _decoder(128, (8, 16, 24)),
    "attention": _attention(64, 8, 96, 2),
    "attention-wide": _attention(96, 8, 128, 2),
    "vgg-128": _vgg(128, (32, 64, 128), 2, 64),
    "plain-224": _plain(224, (16, 32, 64, 128), 2),
    "residual-wide": _residual(224, (64, 128, 256), 1, stem=7),
    "residual-cifar": _residual(32, (64, 128, 256), 2),
    "bottleneck-224": _bottleneck(224, (48, 96, 192, 384), 2),
    "separable-224": _separable(224, (32, 64, 128, 128, 256, 256, 512, 512, 512, 512)),
    "inverted-224": _inverted(224, (32, 24, 32, 64, 96), 3, "relu6", False),
    "inverted-gated-224": _inverted(224, (24, 32, 48, 96), 3, "swish", True),
    "shuffled-224": _shuffled(224, (116, 232, 464), 4),
    "fire-224": _fire(224, (64, 128, 192, 256)),
    "grouped-224": _grouped(192, (64, 128, 256), 16),
    "decoder-256": _decoder(256, (16, 32, 48, 64)),
    "dense": _dense((512, 256, 128)),
    "dense-wide": _dense((2048, 1024)),
}
