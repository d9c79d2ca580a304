"""Put what follows from constants and shapes alone in the place of the nodes that calculate it."""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.trace import Trace
from n2n_edge.graph.witness import Array

__all__ = ["fold_static", "put_constant"]


def fold_static(model: ir.Model, one: Trace, two: Trace, only: Collection[str] | None = None) -> None:
    """Turn, in place, values that are the same in both traces into initializers; `only` limits it to these names."""
    for node in list(model.graph):
        old = node.outputs[0]
        name = str(old.name)
        if len(node.outputs) != 1 or name not in one.values or old.is_graph_output():
            continue
        if (only is None or name in only) and np.array_equal(one.values[name], two.values[name]):
            put_constant(model, old, one.values[name])
            model.graph.remove(node, safe=True)


def put_constant(model: ir.Model, value: ir.Value, array: Array) -> None:
    """Let everything that reads `value` read a new initializer that holds `array`."""
    constant = ir.Value(name=f"{value.name}.folded", const_value=ir.Tensor(array))
    model.graph.register_initializer(constant)
    ir.convenience.replace_all_uses_with(value, constant)
