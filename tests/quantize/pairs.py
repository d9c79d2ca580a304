"""QDQ models of random networks, made as `n2n-edge quantize` makes them, their ranges the least and largest figures."""

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.normalise import normalise
from n2n_edge.graph.shape_run import run_graph
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import activations, with_qdq
from tests.graph.running import Arrays
from tests.strategies import Recipe, build_cnn


def network(*blocks: str, activation: str = "Relu", seed: int = 0, opset: int = 17, head: str = "pooled") -> ir.Model:
    recipe = Recipe(
        opset=opset, seed=seed, batch_norm=True, activation=activation, channels=3, size=8, stem=6,
        blocks=tuple((block, 1, 6) for block in blocks), head=head, classes=4, free_batch=True, batch=1,
    )  # fmt: skip
    return fold_batchnorm(normalise(ir.from_proto(build_cnn(recipe))))


def paired(model: ir.Model, images: Arrays, plan: QuantizationPlan | None = None, *, cut: float = 1.0) -> ir.Model:
    """The training form of `model`; ranges reach to `cut` of what `images` show."""
    plan = plan or QuantizationPlan()
    names = set(activations(model, plan))
    seen = {**run_graph(model, images, names), **{name: array for name, array in images.items() if name in names}}
    ranges = {
        name: (cut * float(np.minimum(array, 0).min()), cut * float(np.maximum(array, 0).max()))
        for name, array in seen.items()
    }
    return with_qdq(model, ranges, plan)
