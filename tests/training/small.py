"""Small graphs and data for the tests of this folder."""

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.preprocessing import Preprocessing


def _conv_block(
    weights: dict[str, NDArray[np.float32]], random: np.random.RandomState, name: str, source: str, cin: int, cout: int
) -> list[onnx.NodeProto]:
    weights[f"{name}.weight"] = (random.randn(cout, cin, 3, 3) * np.sqrt(2 / (9 * cin))).astype(np.float32)
    weights[f"{name}.scale"] = np.ones(cout, np.float32)
    weights[f"{name}.shift"] = np.zeros(cout, np.float32)
    weights[f"{name}.mean"] = np.zeros(cout, np.float32)
    weights[f"{name}.var"] = np.ones(cout, np.float32)
    norm = [f"{name}.{part}" for part in ("scale", "shift", "mean", "var")]
    return [
        helper.make_node("Conv", [source, f"{name}.weight"], [f"{name}.conv"], name=f"{name}.conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", [f"{name}.conv", *norm], [f"{name}.norm"], name=f"{name}.norm"),
        helper.make_node("Relu", [f"{name}.norm"], [name], name=f"{name}.relu"),
    ]


def small_cnn(
    *, width: int = 8, channels: int = 1, size: int = 16, classes: int = 10, seed: int = 0, end: str = ""
) -> ir.Model:
    """Make a small classifier with BatchNorm and a skip connection; `end` names an op on its scores."""
    random = np.random.RandomState(seed)
    weights: dict[str, NDArray[np.float32]] = {}
    nodes = _conv_block(weights, random, "stem", "images", channels, width)
    nodes.append(helper.make_node("MaxPool", ["stem"], ["small"], kernel_shape=[2, 2], strides=[2, 2]))
    nodes += _conv_block(weights, random, "block", "small", width, width)
    nodes.append(helper.make_node("Add", ["block", "small"], ["sum"]))
    nodes += _conv_block(weights, random, "top", "sum", width, 2 * width)
    nodes.append(helper.make_node("GlobalAveragePool", ["top"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    weights["head.weight"] = (random.randn(classes, 2 * width) * 0.1).astype(np.float32)
    weights["head.bias"] = np.zeros(classes, np.float32)
    last = "scores" if end else "output"
    nodes.append(helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], [last], transB=1))
    if end:
        nodes.append(helper.make_node(end, ["scores"], ["output"]))
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", channels, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def stripes(count: int, *, seed: int, channels: int = 1, size: int = 16) -> Split:
    """Make noisy images of three classes: horizontal stripes, vertical stripes, a chessboard."""
    random = np.random.RandomState(seed)
    labels = random.randint(0, 3, count).astype(np.int64)
    rows, columns = np.indices((size, size)) // 2 % 2
    patterns = np.stack([rows, columns, rows ^ columns])
    images = patterns[labels][..., np.newaxis] * 120 + random.randint(0, 120, (count, size, size, channels))
    return Split(images.astype(np.uint8), labels)


def striped_data() -> Data:
    """Make data of the three patterns, seeded."""
    return Data(
        train=stripes(256, seed=1),
        validation=stripes(96, seed=2),
        test=stripes(96, seed=3),
        class_names=("rows", "columns", "chess"),
        preprocessing=Preprocessing((16, 16), channels=1, mean=(0.5,), std=(0.25,)),
    )


def random_data(model: ir.Model, images: int = 24) -> Data:
    """Unlabelled images of random bytes, of the size that a model takes; training, validation and test are the same."""
    shape = model.graph.inputs[0].shape
    assert shape is not None
    _, channels, height, width = (int(size) if isinstance(size, int) else 1 for size in shape)
    pixels = np.random.default_rng(0).integers(0, 256, (images, height, width, channels), dtype=np.uint8)
    split = Split(pixels, None)
    return Data(split, split, split, (), Preprocessing((height, width), channels=channels, mean=(0.5,), std=(0.3,)))
