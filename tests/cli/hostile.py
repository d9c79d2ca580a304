"""Models whose every name holds what a terminal, a log or a CI runner might obey."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["write_model"]


def write_model(path: Path, name: str = "net") -> Path:
    """Write two convolutions on (N, 3, 8, 8); nodes, weights, values and the graph carry `name`."""
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.standard_normal((3, 3, 3, 3)).astype(np.float32), f"{name}{number}.weight")
        for number in (1, 2)
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", f"{name}1.weight"], [f"{name}t"], name=f"{name}c1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"{name}t"], ["t2"], name=name),
            helper.make_node("Conv", ["t2", f"{name}2.weight"], [f"{name}y"], name=f"{name}c2", pads=[1, 1, 1, 1]),
        ],
        name,
        [helper.make_tensor_value_info("x", 1, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info(f"{name}y", 1, ["N", 3, 8, 8])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
