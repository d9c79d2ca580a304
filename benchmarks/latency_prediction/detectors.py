"""The detectors of ncnn's benchmark suite, with the layers of `benchmark/*.param` of Tencent/ncnn.

YOLOv4-tiny follows darknet's description of it, and has the file's multiply-accumulates and weights. What follows the
last convolutions (decoding boxes, non-maximum suppression: ncnn's `DetectionOutput` layers) is one operator of ncnn's.
"""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from n2n_edge.calibration.builder import Net, shape

__all__ = [
    "DETECTORS",
    "blazeface",
    "fastestdet",
    "mobilenet_ssd",
    "mobilenet_yolo",
    "mobilenetv2_yolov3",
    "nanodet_m",
    "squeezenet_ssd",
    "yolo_fastest_1_1",
    "yolov4_tiny",
]

VOC_CLASSES = 20
COCO_CLASSES = 80


def mobilenet_ssd() -> ir.Model:
    """MobileNet-SSD of chuanqi305: 300x300, VOC."""
    net = Net("mobilenet_ssd", 3, 300, 300)
    maps = list(_mobilenet_v1(net))
    for squeezed, out in [(256, 512), (128, 256), (128, 256), (64, 128)]:
        maps.append(net.conv(net.conv(maps[-1], squeezed, 1), out, 3, stride=2))
    return net.model(net.detections(*_ssd_heads(net, maps, boxes=[3, 6, 6, 6, 6, 6], kernel=1)))


def squeezenet_ssd() -> ir.Model:
    """SqueezeNet-SSD: 300x300, VOC."""
    net = Net("squeezenet_ssd", 3, 300, 300)
    x = net.conv(net.input, 64, 3, stride=2, pads=(0, 0, 0, 0))
    maps = []
    for fires in ([(16, 64)] * 2, [(32, 128)] * 2, [(48, 192)] * 2 + [(64, 256)] * 2, [(96, 384)], [(96, 384)]):
        x = net.pool(x, 3, 2, ceil=True)
        for squeezed, expanded in fires:
            x = net.conv(x, squeezed, 1)
            x = net.concat(net.conv(x, expanded, 1), net.conv(x, expanded, 3))
        maps.append(x)
    del maps[0]
    for squeezed, out in [(128, 256), (64, 128)]:
        maps.append(net.conv(net.conv(maps[-1], squeezed, 1), out, 3, stride=2))
    # this BatchNorm follows a concatenation that others read too: it is in no convolution
    maps[0] = net.op("BatchNormalization", maps[0], *(net.weights(shape(maps[0])[1]) for _ in range(4)))
    return net.model(net.detections(*_ssd_heads(net, maps, boxes=[4, 6, 6, 6, 6, 4], kernel=3)))


def mobilenet_yolo() -> ir.Model:
    """MobileNet-YOLO of eric612: 416x416, VOC, five anchors at each of two scales."""
    net = Net("mobilenet_yolo", 3, 416, 416)
    fine, coarse = _mobilenet_v1(net)
    coarse = net.conv(net.depthwise(coarse, 3), 1024, 1)
    fine = net.add(fine, net.deconv(coarse, 512, 4, 2, groups=512))
    fine = net.conv(net.depthwise(fine, 3), 1024, 1)
    out = 5 * (5 + VOC_CLASSES)
    return net.model(net.detections(*(net.conv(x, out, 1, act=None) for x in (coarse, fine))))


def mobilenetv2_yolov3() -> ir.Model:
    """MobileNetV2-YOLOv3: 352x352, VOC, three anchors at each of two scales."""
    net = Net("mobilenetv2_yolov3", 3, 352, 352)
    x = net.depthwise(net.conv(net.input, 32, 3, stride=2), 3)
    x = net.conv(x, 16, 1, act=None)
    for out, stride, repeats in [(24, 2, 2), (32, 2, 3), (64, 2, 4), (96, 1, 3)]:
        for i in range(repeats):
            x = _bottleneck(net, x, 6 * shape(x)[1], out, stride if i == 0 else 1, "relu")
    fine = net.conv(x, 576, 1)
    x = net.conv(net.depthwise(fine, 3, 2), 160, 1, act=None)
    for out in (160, 160, 320):
        x = _bottleneck(net, x, 960, out, 1, "relu")
    coarse = net.conv(net.depthwise(net.conv(x, 1280, 1), 3), 576, 1)
    enlarged = net.pool(_spread(net, coarse, 2), 2, 1, pads=(1, 1, 1, 1))
    fine = net.add(enlarged, net.conv(net.depthwise(fine, 3), 576, 1))
    fine = net.conv(net.depthwise(fine, 3), 576, 1)
    out = 3 * (5 + VOC_CLASSES)
    return net.model(net.detections(*(net.conv(x, out, 1, act=None) for x in (coarse, fine))))


def yolov4_tiny() -> ir.Model:
    """YOLOv4-tiny of AlexeyAB: 416x416, COCO."""
    net = Net("yolov4-tiny", 3, 416, 416)
    x = net.conv(net.conv(net.input, 32, 3, 2, "leaky"), 64, 3, 2, "leaky")
    for channels in (64, 128, 256):
        whole = net.conv(x, channels, 3, act="leaky")
        first = net.conv(_second_half(net, whole), channels // 2, 3, act="leaky")
        second = net.conv(first, channels // 2, 3, act="leaky")
        fine = net.conv(net.concat(second, first), channels, 1, act="leaky")
        x = net.pool(net.concat(whole, fine), 2, 2)
    coarse = net.conv(net.conv(x, 512, 3, act="leaky"), 256, 1, act="leaky")
    out = 3 * (5 + COCO_CLASSES)
    at_coarse = net.conv(net.conv(coarse, 512, 3, act="leaky"), out, 1, act=None)
    enlarged = net.upsample(net.conv(coarse, 128, 1, act="leaky"), 2)
    at_fine = net.conv(net.conv(net.concat(enlarged, fine), 256, 3, act="leaky"), out, 1, act=None)
    return net.model(net.detections(at_coarse, at_fine))


def yolo_fastest_1_1() -> ir.Model:
    """Yolo-Fastest 1.1 of dog-qiuqiu: 320x320, COCO."""
    net = Net("yolo-fastest-1.1", 3, 320, 320)
    x = fine = net.conv(net.input, 8, 3, 2, "leaky")
    for expanded, out, stride, repeats in [
        (8, 4, 1, 2), (24, 8, 2, 1), (32, 8, 1, 2), (32, 8, 2, 1), (48, 8, 1, 2), (48, 16, 1, 1), (96, 16, 1, 4),
        (96, 24, 2, 1), (136, 24, 1, 4), (136, 48, 2, 1), (224, 48, 1, 5),
    ]:  # fmt: skip
        if stride == 2:
            fine = x
        for _ in range(repeats):
            x = _bottleneck(net, x, expanded, out, stride, "leaky")
    pooled = [net.pool(x, kernel, 1, pads=[kernel // 2] * 4) for kernel in (9, 5, 3)]
    coarse = net.conv(net.concat(*pooled, x), 96, 1, act="leaky")
    fine = net.concat(net.upsample(coarse, 2), fine)
    outputs = []
    for y in (coarse, fine):
        for _ in range(2):
            y = net.conv(net.depthwise(y, 5, act="leaky"), shape(y)[1], 1, act=None)
        outputs.append(net.conv(y, 3 * (5 + COCO_CLASSES), 1, act=None))
    return net.model(net.detections(*outputs))


def nanodet_m() -> ir.Model:
    """NanoDet-m of RangiLyu: 320x320, COCO; ShuffleNetV2 1.0x, a path aggregation of sums, three heads."""
    net = Net("nanodet_m", 3, 320, 320)
    x = net.pool(net.conv(net.input, 24, 3, 2, "leaky"), 3, 2, pads=(1, 1, 1, 1))
    maps = []
    for out, repeats in [(116, 3), (232, 7), (464, 3)]:
        x = net.shuffle(_shuffle_down(net, x, out, "leaky"), 2)
        for _ in range(repeats):
            x = net.shuffle(_shuffle_keep(net, x, "leaky"), 2)
        maps.append(x)
    fine, middle, coarse = (net.conv(x, 96, 1, act=None) for x in maps)
    middle = net.add(middle, net.upsample(coarse, 2, "linear"))
    fine = net.add(fine, net.upsample(middle, 2, "linear"))
    middle = net.add(middle, _halve(net, fine))
    coarse = net.add(coarse, _halve(net, middle))
    scores, boxes = [], []
    for x in (fine, middle, coarse):
        for _ in range(2):
            x = net.conv(net.depthwise(x, 3, act="leaky"), 96, 1, act="leaky")
        classes, distances = net.split(net.conv(x, COCO_CLASSES + 32, 1, act=None), COCO_CLASSES, 32)
        scores.append(_by_position(net, net.activation(classes, "sigmoid")))
        boxes.append(_by_position(net, distances))
    return net.model(*scores, *boxes)


def fastestdet() -> ir.Model:
    """FastestDet of dog-qiuqiu: 352x352, COCO; one scale, three decoupled heads."""
    net = Net("FastestDet", 3, 352, 352)
    x = net.pool(net.conv(net.input, 24, 3, 2), 3, 2, pads=(1, 1, 1, 1))
    maps = []
    for out, repeats in [(48, 3), (96, 7), (192, 3)]:
        x = _shuffle_down(net, x, out, "relu")
        for _ in range(repeats):
            x = _shuffle_keep(net, net.shuffle(x, out // 2), "relu")
        maps.append(x)
    fine, middle, coarse = maps
    pooled = net.pool(fine, 3, 2, "AveragePool", (1, 1, 1, 1))
    x = net.conv(net.concat(pooled, middle, net.upsample(coarse, 2)), 96, 1)
    branches = []
    for depth in (1, 2, 3):
        y = x
        for _ in range(depth):
            y = net.depthwise(y, 5)
        branches.append(y)
    x = net.conv(net.add(x, net.conv(net.concat(*branches), 96, 1, act=None), "relu"), 96, 1)
    there = net.conv(net.depthwise(x, 5), 1, 1, act="sigmoid")
    box = net.conv(net.depthwise(x, 5), 4, 1, act=None)
    classes = net.conv(net.depthwise(x, 5), COCO_CLASSES, 1, act=None)
    return net.model(net.concat(there, box, net.op("Softmax", classes, attributes={"axis": 1})))


def blazeface() -> ir.Model:
    """BlazeFace's feature extractor: 128x128, as far as the benchmark's file goes (no heads)."""
    net = Net("blazeface", 3, 128, 128)
    x = net.conv(_pad(net, net.input, (0, 0, 1, 1), (0, 0, 2, 2)), 24, 5, 2, pads=(0, 0, 0, 0))
    for out, stride in [
        (24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2), (56, 1), (64, 1), (72, 1), (80, 1), (88, 1), (96, 2),
        (96, 1), (96, 1), (96, 1), (96, 1),
    ]:  # fmt: skip
        skip, wide = x, x
        if stride == 2:
            skip, wide = net.pool(x, 2, 2), _pad(net, x, (0, 0, 0, 0), (0, 0, 2, 2))
        y = net.depthwise(wide, 3, stride, act=None, pads=(0, 0, 0, 0) if stride == 2 else None)
        y = net.conv(y, out, 1, act=None)
        if out != shape(x)[1]:
            skip = _pad(net, skip, (0, 0, 0, 0), (0, out - shape(x)[1], 0, 0))
        x = net.add(y, skip, "relu")
    return net.model(x)


DETECTORS: dict[str, Callable[[], ir.Model]] = {
    "mobilenet_ssd": mobilenet_ssd,
    "squeezenet_ssd": squeezenet_ssd,
    "mobilenet_yolo": mobilenet_yolo,
    "mobilenetv2_yolov3": mobilenetv2_yolov3,
    "yolov4-tiny": yolov4_tiny,
    "yolo-fastest-1.1": yolo_fastest_1_1,
    "nanodet_m": nanodet_m,
    "FastestDet": fastestdet,
    "blazeface": blazeface,
}


def _mobilenet_v1(net: Net) -> tuple[ir.Value, ir.Value]:
    """Add MobileNet v1 and return what it gives at strides 16 and 32."""
    fine = net.conv(net.input, 32, 3, stride=2)
    for out, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]:
        fine = net.conv(net.depthwise(fine, 3, stride), out, 1)
    x = net.conv(net.depthwise(fine, 3, 2), 1024, 1)
    return fine, net.conv(net.depthwise(x, 3), 1024, 1)


def _bottleneck(net: Net, x: ir.Value, expanded: int, out: int, stride: int, act: str) -> ir.Value:
    """Add MobileNetV2's inverted residual."""
    y = net.conv(net.depthwise(net.conv(x, expanded, 1, act=act), 3, stride, act), out, 1, act=None)
    return net.add(y, x) if shape(y) == shape(x) else y


def _shuffle_down(net: Net, x: ir.Value, out: int, act: str) -> ir.Value:
    """Add the first unit of a ShuffleNetV2 stage, which halves the map, up to its concatenation."""
    half = out // 2
    near = net.conv(net.depthwise(x, 3, 2, act=None), half, 1, act=act)
    far = net.conv(net.depthwise(net.conv(x, half, 1, act=act), 3, 2, act=None), half, 1, act=act)
    return net.concat(near, far)


def _shuffle_keep(net: Net, x: ir.Value, act: str) -> ir.Value:
    """Add another unit of a ShuffleNetV2 stage, from its split up to its concatenation."""
    half = shape(x)[1] // 2
    near, far = net.split(x, half, half)
    far = net.conv(net.depthwise(net.conv(far, half, 1, act=act), 3, act=None), half, 1, act=act)
    return net.concat(near, far)


def _ssd_heads(net: Net, maps: Sequence[ir.Value], boxes: Sequence[int], kernel: int) -> tuple[ir.Value, ...]:
    """Add SSD's heads over `maps`: locations (1, 4 P), confidences (1, 21 P) and prior boxes (1, 2, 4 P).

    The priors depend on nothing but the maps' sizes: each map's are a constant expanded, which weighs nothing and
    writes as much memory as ncnn's `PriorBox`.
    """
    classes = 1 + VOC_CLASSES
    found: dict[str, list[ir.Value]] = {"locations": [], "confidences": [], "priors": []}
    for x, count in zip(maps, boxes, strict=True):
        for name, each in [("locations", 4), ("confidences", classes)]:
            y = net.transpose(net.conv(x, each * count, kernel, act=None), 0, 2, 3, 1)
            found[name].append(net.reshape(y, 1, prod(shape(y))))
        found["priors"].append(_expand(net, 1, 2, 4 * count * prod(shape(x)[2:])))
    confidences = net.concat(*found["confidences"])
    scores = net.op("Softmax", net.reshape(confidences, 1, shape(confidences)[1] // classes, classes))
    return (
        net.concat(*found["locations"]),
        net.reshape(scores, *shape(confidences)),
        net.concat(*found["priors"], axis=2),
    )


def _by_position(net: Net, x: ir.Value) -> ir.Value:
    """Add the change of (1, C, H, W) to (1, H W, C)."""
    channels, height, width = shape(x)[1:]
    return net.transpose(net.reshape(x, 1, channels, height * width), 0, 2, 1)


def _expand(net: Net, *sizes: int) -> ir.Value:
    """Add a constant of one value, expanded."""
    return net._add("Expand", [net.weights(), net._integers(sizes)], sizes)


def _halve(net: Net, x: ir.Value) -> ir.Value:
    """Add a linear interpolation to half of both spatial axes."""
    channels, height, width = shape(x)[1:]
    scales = net._initializer(ir.tensor(np.array([1, 1, 0.5, 0.5], np.float32)))
    return net._add("Resize", [x, None, scales], (1, channels, height // 2, width // 2), {"mode": "linear"})


def _pad(net: Net, x: ir.Value, before: Sequence[int], after: Sequence[int]) -> ir.Value:
    """Add zeros before and after each axis."""
    sizes = [size + left + right for size, left, right in zip(shape(x), before, after, strict=True)]
    return net._add("Pad", [x, net._integers([*before, *after])], sizes)


def _second_half(net: Net, x: ir.Value) -> ir.Value:
    """Add a slice: the second half of the channels."""
    batch, channels, height, width = shape(x)
    bounds = [net._integers([bound]) for bound in (channels // 2, channels, 1)]
    return net._add("Slice", [x, *bounds], (batch, channels // 2, height, width))


def _spread(net: Net, x: ir.Value, stride: int) -> ir.Value:
    """Add a depthwise 1x1 transposed convolution, which puts zeros between its input's positions."""
    channels, height, width = shape(x)[1:]
    sizes = (1, channels, (height - 1) * stride + 1, (width - 1) * stride + 1)
    attributes: dict[str, object] = {"kernel_shape": [1, 1], "strides": [stride, stride], "group": channels}
    return net._add("ConvTranspose", [x, net.weights(channels, 1, 1, 1)], sizes, attributes)
