"""Small teachers and data, for runs that take a second or two."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

__all__ = ["CLASSES", "image_folder", "images_npz", "teacher_file"]

CLASSES = 4


def teacher_file(
    path: Path, *, batch: int | str = "N", head: str = "gemm", outputs: int = 1, flatten_to: list[int] | None = None
) -> Path:
    """Write a small network of three convolutions without BatchNorm for 3x12x12 images."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        return numpy_helper.from_array((random.standard_normal(shape) / fan_in**0.5).astype(np.float32), name)

    nodes, weights, source, channels = [], [], "input", 3
    for index, width in enumerate((16, 16, 24)):
        weights += [weight(f"conv{index}.weight", width, channels, 3, 3), weight(f"conv{index}.bias", width)]
        names = [source, f"conv{index}.weight", f"conv{index}.bias"]
        nodes.append(helper.make_node("Conv", names, [f"c{index}"], pads=[1, 1, 1, 1], name=f"conv{index}"))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        source, channels = f"r{index}", width
    given = []
    if head == "map":
        weights.append(weight("head.weight", 2, channels, 1, 1))
        nodes.append(helper.make_node("Conv", [source, "head.weight"], ["y"], name="head"))
        given.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2, 12, 12]))
    else:
        weights.append(weight("fc.weight", CLASSES, channels))
        nodes.append(helper.make_node("GlobalAveragePool", [source], ["pooled"]))
        if flatten_to is None:
            nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
        else:
            weights.append(numpy_helper.from_array(np.array(flatten_to, np.int64), "flat_shape"))
            nodes.append(helper.make_node("Reshape", ["pooled", "flat_shape"], ["flat"]))
        nodes.append(helper.make_node("Gemm", ["flat", "fc.weight"], ["logits"], transB=1, name="fc"))
        if head == "softmax":
            nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        final = "probabilities" if head == "softmax" else "logits"
        given.append(helper.make_tensor_value_info(final, TensorProto.FLOAT, [batch, CLASSES]))
    if outputs == 2:
        given.append(helper.make_tensor_value_info("r1", TensorProto.FLOAT, [batch, 16, 12, 12]))
    taken = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 12, 12])]
    graph = helper.make_graph(nodes, "teacher", taken, given, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def images_npz(path: Path, count: int = 80, *, labels: bool = True) -> Path:
    random = np.random.default_rng(1)
    kinds = np.arange(count) % CLASSES
    images = (random.integers(0, 120, (count, 12, 12, 3)) + 30 * kinds[:, None, None, None]).astype(np.uint8)
    arrays = {"x": images, "y": kinds} if labels else {"x": images}
    np.savez(path, **arrays)
    return path


def image_folder(path: Path, count: int = 60) -> Path:
    path.mkdir()
    random = np.random.default_rng(2)
    for index in range(count):
        Image.fromarray(random.integers(0, 255, (12, 12, 3)).astype(np.uint8)).save(path / f"{index:03d}.png")
    return path
