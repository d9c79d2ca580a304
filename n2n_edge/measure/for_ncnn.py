"""Rewrites of an ONNX file that change nothing and that ncnn needs."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["rewrite_steps"]

_SPATIAL = (2, 3)


def rewrite_steps(path: Path) -> bool:
    """Take every other pixel by a pooling of one pixel, where a file of images does by a slice with steps.

    ncnn's crops have none, and a detector's Focus or the shortcut of a ResNet takes such slices. Pooling with a window
    of one and a stride of s gives ``x[..., ::s]``: one of n pixels in s, rounded up. Tell whether anything was changed;
    the file is then written anew.
    """
    proto = onnx.load(path)
    graph = proto.graph
    known = {each.name: each for each in graph.initializer}
    known |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        steps = _steps(node, known)
        if steps is None:
            nodes.append(node)
            continue
        whole, ones = f"{node.output[0]}/whole", f"{node.output[0]}/steps"
        count = len(_values(known, node.input[4]))
        graph.initializer.append(numpy_helper.from_array(np.ones(count, np.int64), ones))
        nodes.append(helper.make_node("Slice", [*node.input[:4], ones], [whole], name=f"{node.name}/whole"))
        nodes.append(helper.make_node("MaxPool", [whole], [node.output[0]], kernel_shape=[1, 1], strides=steps))
    if len(nodes) == len(graph.node):
        return False
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(proto, path)
    return True


def _values(known: dict[str, onnx.TensorProto], name: str) -> list[int]:
    """Return the values of a constant."""
    return [int(value) for value in numpy_helper.to_array(known[name]).ravel()]


def _steps(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> list[int] | None:
    """Return the strides, vertically and horizontally, of a slice that takes steps over pixels; None for any other."""
    if node.op_type != "Slice" or node.domain not in ("", "ai.onnx") or len(node.input) < 5:
        return None
    if not all(name in known for name in node.input[3:5]):
        return None
    axes, steps = (_values(known, name) for name in node.input[3:5])
    by_axis = {axis: step for axis, step in zip(axes, steps, strict=True) if step != 1}
    if not by_axis or any(axis not in _SPATIAL or step < 1 for axis, step in by_axis.items()):
        return None
    return [by_axis.get(axis, 1) for axis in _SPATIAL]
