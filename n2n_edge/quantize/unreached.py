"""Upper bounds of activations that calibration images never reach, taken off: Relu6 becomes Relu.

Factors don't pass a bound (`scaling.py`), so networks with Relu6, as MobileNets have, can't be equalised through them.
Nagel et al. (ICCV 2019, section 5.1.1) take Relu for Relu6 throughout. Here only bounds go that no image comes to: on
these the network computes what it did, on others it may not, so this is for the user, or validation images, to decide.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.load import drop_unused_initializers
from n2n_edge.graph.operands import opset_of
from n2n_edge.graph.shape_run import Array, run_graph_each
from n2n_edge.quantize.integer_ops import constant_of

__all__ = ["without_unreached_bounds"]

_INPUTS_SINCE = 11


def without_unreached_bounds(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], *, margin: float = 1.0
) -> tuple[ir.Model, tuple[str, ...]]:
    """Return a copy of `model` with a Relu for every Clip from 0 to a bound that no image reaches, and their names.

    `batches` are inputs by name, ``(N, C, H, W)`` each; with a `margin` of 0.9 nothing may come to nine tenths of the
    bound. On these images the copy computes what `model` does, on others it may give more than the bound.

    Raises:
        InputError: ONNX Runtime can't run the model on a batch.
    """
    model = model.clone()
    bounds = {node: bound for node in model.graph if (bound := _bound(node)) is not None}
    names = {str(node.inputs[0].name) for node in bounds if node.inputs[0] is not None}
    largest = dict.fromkeys(names, -np.inf)
    given = {str(value.name) for value in model.graph.inputs}
    for seen in run_graph_each(model, batches, names - given) if bounds else ():
        for name, array in seen.items():
            largest[name] = max(largest[name], float(array.max(initial=-np.inf)))
    gone = []
    for node, bound in bounds.items():
        source, output = node.inputs[0], node.outputs[0]
        reached = largest.get(str(source.name), np.inf) if source is not None else np.inf
        if not -np.inf < reached < margin * bound:
            continue
        gone.append(str(node.name))
        relu = ir.Node("", "Relu", [source], name=node.name)
        result = relu.outputs[0]
        result.shape, result.type = output.shape, output.type
        model.graph.insert_before(node, relu)
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        result.name = output.name
    drop_unused_initializers(model)
    return model, tuple(gone)


def _bound(node: ir.Node) -> float | None:
    """Return the upper bound of a Clip from 0 on; None of any other node."""
    if node.op_type != "Clip":
        return None
    if opset_of(node) < _INPUTS_SINCE:
        low, high = node.attributes.get_float("min", -np.inf), node.attributes.get_float("max", np.inf)
    else:
        least, most = constant_of(node, 1), constant_of(node, 2)
        low, high = (-np.inf if least is None else float(least)), (np.inf if most is None else float(most))
    return high if low == 0 and high is not None and np.isfinite(high) else None
