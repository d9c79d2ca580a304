"""Run models in ONNX Runtime and compare what they give."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime
from hypothesis import strategies as st

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.load import serialize
from n2n_edge.graph.teacher import Teacher

Arrays = dict[str, np.ndarray]


def inputs_of(model: ir.Model, batch: int = 1, seed: int = 0) -> Arrays:
    """Random inputs; a free batch axis becomes `batch`."""
    rng = np.random.default_rng(seed)
    sizes = {
        str(value.name): [size if isinstance(size, int) else batch for size in value.shape or ()]
        for value in model.graph.inputs
    }
    return {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}


def has_free_batch(model: ir.Model) -> bool:
    shape = model.graph.inputs[0].shape
    return shape is not None and not isinstance(shape[0], int)


def run(model: ir.Model, inputs: Mapping[str, np.ndarray], *, optimised: bool = True) -> list[np.ndarray]:
    """The outputs of `model` under ONNX Runtime, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))


def assert_same_outputs(expected: list[np.ndarray], actual: list[np.ndarray], relative: float = 1e-5) -> None:
    """Equal within `relative` of the largest expected figure (at least 1)."""
    assert [array.shape for array in expected] == [array.shape for array in actual]
    for want, got in zip(expected, actual, strict=True):
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        assert float(np.abs(want - got).max(initial=0)) <= relative * scale


@st.composite
def architectures(draw: st.DrawFn, teacher: Teacher) -> Architecture:
    """A random architecture of `teacher`: any removals that go together, any widths."""
    removable = [layer.name for layer in teacher.layers if layer.removable]
    wanted = draw(st.sets(st.sampled_from(removable)), label="removed") if removable else set()
    architecture = teacher.full.remove(*teacher.repaired(frozenset(wanted)))
    for group in teacher.groups:
        if group.shrinkable and draw(st.booleans()):
            architecture = architecture.resize(group.name, draw(st.integers(1, group.width), label=group.name))
    return architecture
