"""Classifiers of public latency tables, rebuilt from their papers and published definitions: shapes are right.

`CLASSIFIERS` are the networks of ncnn's benchmark (Tencent/ncnn, ``benchmark/*.param``), `mlperf_network` gives those
of MLPerf's edge rows (TensorFlow's MobileNets, EfficientNet-Lite, ResNet-50 v1.5) and `nasbench201` those of
NAS-Bench-201 (Dong and Yang 2020). BatchNorms are folded into convolutions.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Literal

import onnx_ir as ir

from n2n_edge.calibration.builder import Net, shape

__all__ = [
    "CLASSIFIERS", "alexnet", "efficientnet_b0", "efficientnet_lite", "mlperf_network", "mobilenet", "mobilenet_v1",
    "mobilenet_v2", "mobilenet_v2_ncnn", "mobilenet_v3", "mobilenet_v3_ncnn", "nasbench201", "proxylessnasnet",
    "resnet18", "resnet50", "shufflenet", "shufflenet_v2", "squeezenet", "vgg16", "vision_transformer",
]  # fmt: skip

_TENSORFLOW_CLASSES = 1001
"""ImageNet's thousand and a background."""


def alexnet() -> ir.Model:
    """AlexNet with grouped convolutions, at 227."""
    net = Net("alexnet", 3, 227, 227)
    x = net.conv(net.input, 96, 11, stride=4, pads=(0, 0, 0, 0))
    x = net.pool(net.op("LRN", x, attributes={"size": 5}), 3, 2)
    x = net.conv(x, 256, 5, groups=2)
    x = net.pool(net.op("LRN", x, attributes={"size": 5}), 3, 2)
    for channels, groups in ((384, 1), (384, 2), (256, 2)):
        x = net.conv(x, channels, 3, groups=groups)
    x = net.pool(x, 3, 2)
    for width in (4096, 4096):
        x = net.linear(x, width, "relu")
    return net.model(net.op("Softmax", net.linear(x, 1000)))


def vgg16() -> ir.Model:
    """VGG-16, at 224."""
    net = Net("vgg16", 3, 224, 224)
    x = net.input
    for channels, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            x = net.conv(x, channels, 3)
        x = net.pool(x, 2, 2)
    for width in (4096, 4096):
        x = net.linear(x, width, "relu")
    return net.model(net.op("Softmax", net.linear(x, 1000)))


def squeezenet() -> ir.Model:
    """SqueezeNet v1.1, at 227; as published its last convolution pads its 1 x 1 kernel."""
    net = Net("squeezenet", 3, 227, 227)
    x = net.conv(net.input, 64, 3, stride=2, pads=(0, 0, 0, 0))
    for fires in (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256))):
        x = net.pool(x, 3, 2, ceil=True)
        for squeezed, expanded in fires:
            x = net.conv(x, squeezed, 1)
            x = net.concat(net.conv(x, expanded, 1), net.conv(x, expanded, 3))
    x = net.global_pool(net.conv(x, 1000, 1, pads=(1, 1, 1, 1)))
    return net.model(net.op("Softmax", x, attributes={"axis": 1}))


def resnet18() -> ir.Model:
    """ResNet-18, with a projection in the first block of every stage, at 224."""
    return _resnet("resnet18", 224, (2, 2, 2, 2), lambda channels, stride: ((channels, 3, stride), (channels, 3, 1)))


def resnet50(resolution: int = 224, strided: int = 0) -> ir.Model:
    """ResNet-50; of a block's three convolutions the one at `strided` strides: 0 in the paper and ncnn, 1 in v1.5."""

    def convolutions(channels: int, stride: int) -> "_Convolutions":
        strides = [1, 1, 1]
        strides[strided] = stride
        return tuple(zip((channels, channels, 4 * channels), (1, 3, 1), strides, strict=True))

    return _resnet("resnet50", resolution, (3, 4, 6, 3), convolutions)


_Convolutions = tuple[tuple[int, int, int], ...]
"""Channels, kernel and stride of each."""


def _resnet(
    name: str, resolution: int, repeats: tuple[int, ...], convolutions: Callable[[int, int], _Convolutions]
) -> ir.Model:
    net = Net(name, 3, resolution, resolution)
    x = net.pool(net.conv(net.input, 64, 7, stride=2), 3, 2, ceil=True)
    for stage, count in enumerate(repeats):
        for block in range(count):
            stride = 2 if stage and not block else 1
            *before, (out, kernel, step) = convolutions(64 * 2**stage, stride)
            shortcut = x if block else net.conv(x, out, 1, stride, act=None)
            for channels, size, move in before:
                x = net.conv(x, channels, size, move)
            x = net.add(shortcut, net.conv(x, out, kernel, step, act=None), act="relu")
    return _classify(net, x)


def shufflenet() -> ir.Model:
    """ShuffleNet v1 with three groups, at 224; the first block neither groups nor shuffles its narrow input."""
    net = Net("shufflenet", 3, 224, 224)
    x = net.pool(net.conv(net.input, 24, 3, stride=2), 3, 2, ceil=True)
    for out, repeats in ((240, 4), (480, 8), (960, 4)):
        for block in range(repeats):
            channels, stride = shape(x)[1], 1 if block else 2
            branch = out if block else out - channels
            grouped = 3 if channels > 24 else 1
            y = net.conv(x, branch // 4, 1, groups=grouped)
            y = net.shuffle(y, grouped) if grouped > 1 else y
            y = net.conv(net.depthwise(y, 3, stride, act=None), branch, 1, act=None, groups=3)
            joined = net.add(x, y) if block else net.concat(net.pool(x, 3, 2, "AveragePool", ceil=True), y)
            x = net.activation(joined, "relu")
    return _classify(net, x)


def shufflenet_v2() -> ir.Model:
    """ShuffleNet v2 1.0, at 224."""
    net = Net("shufflenet_v2", 3, 224, 224)
    x = net.pool(net.conv(net.input, 24, 3, stride=2), 3, 2, ceil=True)
    for half, repeats in ((58, 4), (116, 8), (232, 4)):
        for block in range(repeats):
            if block:
                kept, y = net.split(x, half, half)
            else:
                kept, y = net.conv(net.depthwise(x, 3, 2, act=None), half, 1), x
            y = net.depthwise(net.conv(y, half, 1), 3, 1 if block else 2, act=None)
            x = net.shuffle(net.concat(kept, net.conv(y, half, 1)), 2)
    return _classify(net, net.conv(x, 1024, 1))


def proxylessnasnet() -> ir.Model:
    """ProxylessNAS for mobiles, at 224."""
    net = Net("proxylessnasnet", 3, 224, 224)
    x = net.depthwise(net.conv(net.input, 32, 3, stride=2), 3)
    x = net.conv(x, 32, 1, act=None)
    for out, stride, blocks in (
        (32, 2, ((48, 5), (96, 3))),
        (40, 2, ((96, 7), (120, 3), (120, 5), (120, 5))),
        (80, 2, ((240, 7), (240, 5), (240, 5), (240, 5))),
        (96, 1, ((480, 5), (288, 5), (288, 5), (288, 5))),
        (192, 2, ((576, 7), (1152, 7), (576, 7), (576, 7))),
        (320, 1, ((1152, 7),)),
    ):
        for block, (expanded, kernel) in enumerate(blocks):
            x = _inverted_residual(net, x, expanded, out, kernel, 1 if block else stride, "relu")
    return _classify(net, net.conv(x, 1280, 1))


def mobilenet() -> ir.Model:
    """MobileNet v1 1.0 with plain ReLUs, at 224."""
    return _mobilenet_v1("mobilenet", 1.0, 224, "relu", 1000)


def mobilenet_v1(width: float = 1.0, resolution: int = 224) -> ir.Model:
    """MobileNet v1 of TensorFlow."""
    return _mobilenet_v1("mobilenet_v1", width, resolution, "relu6", _TENSORFLOW_CLASSES)


def _mobilenet_v1(name: str, width: float, resolution: int, act: str, classes: int) -> ir.Model:
    net = Net(name, 3, resolution, resolution)
    x = net.conv(net.input, _scaled(32, width), 3, stride=2, act=act)
    for out, strides in ((64, (1,)), (128, (2, 1)), (256, (2, 1)), (512, (2, 1, 1, 1, 1, 1)), (1024, (2, 1))):
        for stride in strides:
            x = net.conv(net.depthwise(x, 3, stride, act=act), _scaled(out, width), 1, act=act)
    return _classify(net, x, classes)


_Stage = tuple[int, int, int, int, int]
"""Expansion, channels out, repeats, kernel and the stride of the first block."""

_MOBILENET_V2: tuple[_Stage, ...] = (
    (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 32, 3, 3, 2), (6, 64, 4, 3, 2), (6, 96, 3, 3, 1), (6, 160, 3, 3, 2),
    (6, 320, 1, 3, 1),
)  # fmt: skip
_EFFICIENTNET: tuple[_Stage, ...] = (
    (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1), (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)  # fmt: skip


def mobilenet_v2_ncnn() -> ir.Model:
    """MobileNet v2 1.0 of ncnn, at 224: plain ReLUs, and the first block too has a convolution that expands."""
    net = Net("mobilenet_v2", 3, 224, 224)
    x = net.conv(net.conv(net.input, 32, 3, stride=2), 32, 1)
    for stage in _MOBILENET_V2:
        x = _inverted_residuals(net, x, stage, "relu")
    return _classify(net, net.conv(x, 1280, 1))


def mobilenet_v2(width: float = 1.0, resolution: int = 224) -> ir.Model:
    """MobileNet v2 of TensorFlow; a width below 1 leaves the last convolution as it is."""
    net = Net("mobilenet_v2", 3, resolution, resolution)
    x = net.conv(net.input, _scaled(32, width), 3, stride=2, act="relu6")
    for expansion, out, repeats, kernel, stride in _MOBILENET_V2:
        x = _inverted_residuals(net, x, (expansion, _scaled(out, width), repeats, kernel, stride), "relu6")
    return _classify(net, net.conv(x, _scaled(1280, max(width, 1.0)), 1, act="relu6"), _TENSORFLOW_CLASSES)


def efficientnet_b0() -> ir.Model:
    """EfficientNet-B0, at 224."""
    net = Net("efficientnet_b0", 3, 224, 224)
    x = net.conv(net.input, 32, 3, stride=2, act="swish")
    for expansion, out, repeats, kernel, stride in _EFFICIENTNET:
        for block in range(repeats):
            channels = shape(x)[1]
            y = _expand(net, x, expansion * channels, "swish")
            y = net.depthwise(y, kernel, 1 if block else stride, act="swish")
            x = _project(net, x, _squeeze_excite(net, y, channels // 4, "swish", "sigmoid"), out)
    return _classify(net, net.conv(x, 1280, 1, act="swish"))


def efficientnet_lite(index: int, resolution: int = 224) -> ir.Model:
    """EfficientNet-Lite 0 to 4: no gates, ReLU6; stem, head and the depth of the outer stages are never scaled."""
    width, tenths = ((1.0, 10), (1.0, 11), (1.1, 12), (1.2, 14), (1.4, 18))[index]
    net = Net(f"efficientnet_lite{index}", 3, resolution, resolution)
    x = net.conv(net.input, 32, 3, stride=2, act="relu6")
    for expansion, out, repeats, kernel, stride in _EFFICIENTNET:
        count = -(-repeats * tenths // 10) if repeats > 1 else 1
        x = _inverted_residuals(net, x, (expansion, _scaled(out, width), count, kernel, stride), "relu6")
    return _classify(net, net.conv(x, 1280, 1, act="relu6"))


_Gated = tuple[float, int, int, int, str, int]
"""Expansion, channels out, kernel, stride, activation and by how much the gate squeezes (0: no gate)."""

_MOBILENET_V3: dict[str, tuple[_Gated, ...]] = {
    "large": (
        (1, 16, 3, 1, "relu", 0), (4, 24, 3, 2, "relu", 0), (3, 24, 3, 1, "relu", 0),
        (3, 40, 5, 2, "relu", 4), (3, 40, 5, 1, "relu", 4), (3, 40, 5, 1, "relu", 4),
        (6, 80, 3, 2, "hswish", 0), (2.5, 80, 3, 1, "hswish", 0), (2.3, 80, 3, 1, "hswish", 0),
        (2.3, 80, 3, 1, "hswish", 0), (6, 112, 3, 1, "hswish", 4), (6, 112, 3, 1, "hswish", 4),
        (6, 160, 5, 2, "hswish", 4), (6, 160, 5, 1, "hswish", 4), (6, 160, 5, 1, "hswish", 4),
    ),
    "small": (
        (1, 16, 3, 2, "relu", 4), (72 / 16, 24, 3, 2, "relu", 0), (88 / 24, 24, 3, 1, "relu", 0),
        (4, 40, 5, 2, "hswish", 4), (6, 40, 5, 1, "hswish", 4), (6, 40, 5, 1, "hswish", 4),
        (3, 48, 5, 1, "hswish", 4), (3, 48, 5, 1, "hswish", 4),
        (6, 96, 5, 2, "hswish", 4), (6, 96, 5, 1, "hswish", 4), (6, 96, 5, 1, "hswish", 4),
    ),
}  # fmt: skip


def mobilenet_v3_ncnn() -> ir.Model:
    """MobileNet v3 large of ncnn, at 224: gates come before the activations, and the last stride a block later."""
    net = Net("mobilenet_v3", 3, 224, 224)
    x = net.conv(net.input, 16, 3, stride=2, act="hswish")
    tail: tuple[_Gated, ...] = ((6, 160, 5, 1, "hswish", 4), (4.2, 160, 5, 2, "hswish", 4), (6, 160, 5, 1, "hswish", 4))
    for expansion, out, kernel, stride, act, squeeze in _MOBILENET_V3["large"][:12] + tail:
        y = _expand(net, x, round(expansion * shape(x)[1]), act)
        y = net.depthwise(y, kernel, stride, act=None)
        if squeeze:
            y = _squeeze_excite(net, y, shape(y)[1] // squeeze, "relu", "hsigmoid")
        x = _project(net, x, net.activation(y, act), out)
    x = net.activation(net.global_pool(net.conv(x, 960, 1, act="hswish")), "hswish")
    return net.model(net.op("Softmax", net.linear(net.linear(x, 1280, "hswish"), 1000)))


def mobilenet_v3(
    size: Literal["small", "large"], width: float = 1.0, resolution: int = 224, minimalistic: bool = False
) -> ir.Model:
    """MobileNet v3 of TensorFlow; the minimalistic one has no gates, no h-swish and kernels of three only."""
    net = Net(f"mobilenet_v3_{size}", 3, resolution, resolution)
    last = "relu" if minimalistic else "hswish"
    x = net.conv(net.input, _scaled(16, width), 3, stride=2, act=last)
    for expansion, out, kernel, stride, act, squeeze in _MOBILENET_V3[size]:
        nonlinearity = "relu" if minimalistic else act
        y = _expand(net, x, _scaled(expansion * shape(x)[1], 1.0), nonlinearity)
        y = net.depthwise(y, 3 if minimalistic else kernel, stride, act=nonlinearity)
        if squeeze and not minimalistic:
            y = _squeeze_excite(net, y, _scaled(shape(y)[1] / squeeze, 1.0), "relu", "hsigmoid")
        x = _project(net, x, y, _scaled(out, width))
    x = net.global_pool(net.conv(x, _scaled(6 * shape(x)[1], 1.0), 1, act=last))
    x = net.conv(x, _scaled({"small": 1024, "large": 1280}[size], max(width, 1.0)), 1, act=last)
    return net.model(net.op("Softmax", net.linear(x, _TENSORFLOW_CLASSES)))


def vision_transformer() -> ir.Model:
    """ViT-B/32, at 384: 145 tokens of 768; the scale of the attention is folded into the weights of its queries."""
    patches, width, heads = 144, 768, 12
    tokens = patches + 1
    net = Net("vision_transformer", 3, 384, 384)
    x = net.conv(net.input, width, 32, stride=32, act=None, pads=(0, 0, 0, 0))
    x = net.transpose(net.reshape(x, 1, width, patches), 0, 2, 1)
    x = net.add(net.concat(net.weights(1, 1, width), x, axis=1), net.weights(1, tokens, width))

    def linear(x: ir.Value, out: int) -> ir.Value:
        return net.plus_constant(net.matmul(x, out))

    def norm(x: ir.Value) -> ir.Value:
        return net.op("LayerNormalization", x, net.weights(width), net.weights(width), attributes={"axis": -1})

    def apart(x: ir.Value, *order: int) -> ir.Value:
        return net.transpose(net.reshape(linear(x, width), 1, tokens, heads, width // heads), *order)

    for _ in range(12):
        y = norm(x)
        queries, keys, values = apart(y, 0, 2, 1, 3), apart(y, 0, 2, 3, 1), apart(y, 0, 2, 1, 3)
        y = net.matmul(net.op("Softmax", net.matmul(queries, keys)), values)
        y = net.reshape(net.transpose(y, 0, 2, 1, 3), 1, tokens, width)
        x = net.add(x, linear(y, width))
        x = net.add(x, linear(net.activation(linear(norm(x), 4 * width), "gelu"), width))
    first, _ = net.split(norm(x), 1, patches, axis=1)
    return net.model(net.op("Softmax", net.linear(first, 1000)))


_Edges = list[tuple[str, int]]
"""Operator and source of each."""


def nasbench201(arch: str, zeros: Literal["folded", "computed"] = "folded") -> ir.Model:
    """NAS-Bench-201's network for CIFAR-10: three stages of five cells.

    In `arch`, "|A~0|+|B~0|C~1|+|D~0|E~1|F~2|", each group is a node that sums operators of nodes before it. Operators
    whose output reaches nothing are left out. Those that read a node of zeros alone are left out too if zeros are
    "folded", and read the cell's input instead if "computed", as by a runtime that does not fold convolutions.
    Raises ValueError if the network does not depend on its input.
    """
    edges = _live_edges(arch, zeros)
    net = Net("nasbench201", 3, 32, 32)
    x = net.conv(net.input, 16, 3, act=None)
    for stage, channels in enumerate((16, 32, 64)):
        if stage:
            y = net.conv(net.activation(x, "relu"), channels, 3, stride=2, act=None)
            y = net.conv(net.activation(y, "relu"), channels, 3, act=None)
            x = net.add(net.conv(net.pool(x, 2, 2, "AveragePool"), channels, 1, act=None, bias=False), y)
        for _ in range(5):
            x = _cell(net, x, edges)
    # The last BatchNorm follows a sum, so that there is no convolution to fold it into.
    x = net.op("BatchNormalization", x, *(net.weights(64) for _ in range(4)))
    return net.model(net.linear(net.global_pool(net.activation(x, "relu")), 10))


def _live_edges(arch: str, zeros: Literal["folded", "computed"]) -> dict[int, _Edges]:
    """Return the edges that are executed, by the node that sums them."""
    edges: dict[int, _Edges] = {}
    nonzero = {0}
    for node, text in enumerate(arch.split("+"), start=1):
        split = [edge.split("~") for edge in text.strip("|").split("|")]
        edges[node] = [(op, int(source)) for op, source in split if op != "none"]
        if any(source in nonzero for _, source in edges[node]):
            nonzero.add(node)
    if 3 not in nonzero:
        raise ValueError(f"the network of {arch!r} does not depend on its input: its cells give zeros only")
    if zeros == "folded":
        edges = {node: [edge for edge in found if edge[1] in nonzero] for node, found in edges.items()}
    needed = {3}
    for node in reversed(edges):
        needed.update(source for _, source in edges[node] if node in needed)
    return {node: found for node, found in edges.items() if node in needed}


def _cell(net: Net, x: ir.Value, edges: dict[int, _Edges]) -> ir.Value:
    values = {0: x}
    for node, incoming in edges.items():
        terms = [_operator(net, values[source], op) for op, source in incoming]
        values[node] = reduce(net.add, terms) if terms else x
    return values[3]


def _operator(net: Net, x: ir.Value, op: str) -> ir.Value:
    match op:
        case "skip_connect":
            return x
        case "avg_pool_3x3":
            return net.pool(x, 3, 1, "AveragePool", pads=(1, 1, 1, 1))
        case "nor_conv_1x1" | "nor_conv_3x3":
            return net.conv(net.activation(x, "relu"), shape(x)[1], 3 if op == "nor_conv_3x3" else 1, act=None)
    raise ValueError(f"no operator of NAS-Bench-201 is named {op!r}")


CLASSIFIERS: dict[str, Callable[[], ir.Model]] = {
    "alexnet": alexnet,
    "efficientnet_b0": efficientnet_b0,
    "mobilenet": mobilenet,
    "mobilenet_v2": mobilenet_v2_ncnn,
    "mobilenet_v3": mobilenet_v3_ncnn,
    "proxylessnasnet": proxylessnasnet,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "shufflenet": shufflenet,
    "shufflenet_v2": shufflenet_v2,
    "squeezenet": squeezenet,
    "vgg16": vgg16,
    "vision_transformer": vision_transformer,
}
"""By the names that ncnn's benchmark prints; those ending in ``_int8`` have the same shapes."""

_MLPERF: dict[str, Callable[[float, int], ir.Model]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": partial(mobilenet_v3, "small"),
    "mobilenet_v3_large": partial(mobilenet_v3, "large"),
    "mobilenet_v3_small_minimalistic": partial(mobilenet_v3, "small", minimalistic=True),
    "mobilenet_v3_large_minimalistic": partial(mobilenet_v3, "large", minimalistic=True),
}


def mlperf_network(family: str, width: float, resolution: int) -> ir.Model:
    """Return a network of MLPerf's edge rows; EfficientNet-Lite and ResNet-50 come in one width each.

    Raises ValueError for an unknown family.
    """
    if family in _MLPERF:
        return _MLPERF[family](width, resolution)
    if family.startswith("efficientnet_lite"):
        return efficientnet_lite(int(family.removeprefix("efficientnet_lite")), resolution)
    if family == "resnet50":
        return resnet50(resolution, strided=1)
    raise ValueError(f"no family of networks is named {family!r}")


def _scaled(channels: float, width: float) -> int:
    """Return `width` times `channels` in eights, at least 8 and never less than nine tenths of it."""
    target = channels * width
    rounded = max(8, int(target + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * target else rounded


def _inverted_residuals(net: Net, x: ir.Value, stage: _Stage, act: str) -> ir.Value:
    expansion, out, repeats, kernel, stride = stage
    for block in range(repeats):
        x = _inverted_residual(net, x, expansion * shape(x)[1], out, kernel, 1 if block else stride, act)
    return x


def _inverted_residual(net: Net, x: ir.Value, expanded: int, out: int, kernel: int, stride: int, act: str) -> ir.Value:
    y = net.depthwise(_expand(net, x, expanded, act), kernel, stride, act=act)
    return _project(net, x, y, out)


def _expand(net: Net, x: ir.Value, expanded: int, act: str) -> ir.Value:
    return x if expanded == shape(x)[1] else net.conv(x, expanded, 1, act=act)


def _project(net: Net, x: ir.Value, y: ir.Value, out: int) -> ir.Value:
    """Add the convolution that ends a block which began at `x`, and their sum where shapes allow it."""
    y = net.conv(y, out, 1, act=None)
    return net.add(x, y) if shape(x) == shape(y) else y


def _squeeze_excite(net: Net, x: ir.Value, squeezed: int, act: str, gate: str) -> ir.Value:
    y = net.conv(net.global_pool(x), squeezed, 1, act=act)
    return net.mul(x, net.conv(y, shape(x)[1], 1, act=gate))


def _classify(net: Net, x: ir.Value, classes: int = 1000) -> ir.Model:
    return net.model(net.op("Softmax", net.linear(net.global_pool(x), classes)))
