"""Equalisation through gates, x times Sigmoid(x), as swish has them: one more operator for each.

A stem that takes pixels in 0..255 may give some channels in +-100 and others in +-0.3. One scale for all of them leaves
the latter nothing, and behind a depthwise convolution each counts as much as the others. No factor passes a swish, but

    s x * Sigmoid(s x / s) = s swish(x)

so with what goes into the Sigmoid divided by them again, in float, value and product have channels of even range. That
costs an elementwise operator and a Sigmoid in float, so it is done only where rounding would drown what layers behind
see: where a gate's noise (`noise.py`) falls by a good part of the signal.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.labels import LabelArray
from n2n_edge.graph.shape_run import Array
from n2n_edge.quantize.integer_ops import new_constant
from n2n_edge.quantize.noise import Reader, find_readers, least_noise
from n2n_edge.quantize.scaling import Floats, Gate, Scalable, multiply, scalable

__all__ = ["EqualisedGates", "equalised_gates", "find_gates"]

_OPENERS = ("Sigmoid", "HardSigmoid")
_WORTH = 0.01
"""Noise, as a share of the signal of what reads a gate, that it has to take off to be worth two operators in float."""


@dataclass(frozen=True)
class EqualisedGates:
    """A network with gates that were equalised, the values changed by it, and the nodes that are to stay float."""

    model: ir.Model
    changed: frozenset[str]
    float_nodes: frozenset[str]


def find_gates(model: ir.Model) -> dict[str, Gate]:
    """Return the gates of a graph, by the names of their products."""
    found = {}
    for node in model.graph:
        opener = node if node.op_type in _OPENERS and node.domain == "" else None
        source = None if opener is None else opener.inputs[0]
        readers = [] if opener is None else [use.node for use in opener.outputs[0].uses()]
        if opener is None or source is None or len(readers) != 1 or opener.outputs[0].is_graph_output():
            continue
        product = readers[0]
        if product.op_type == "Mul" and source in product.inputs and product.name:
            found[str(product.name)] = Gate(source, opener, product)
    return found


def equalised_gates(model: ir.Model, batches: Iterable[Mapping[str, Array]]) -> EqualisedGates:
    """Return a copy of `model`, a float graph, in which the gates that lose most have channels of even range.

    What it computes stays the same. `batches` are inputs by name, ``(N, C, H, W)`` each. BatchNormalizations are folded
    first; channels behind and before gates are equalised as `equalise` does, too.

    Raises:
        InputError: ONNX Runtime can't run the model on a batch.

    >>> even = equalised_gates(model, [{"input": images}])
    """
    model = fold_batchnorm(model)
    batches = list(batches)
    gates = find_gates(model)
    parts = scalable(model, gates)
    noise = _noise(parts, find_readers(model, parts, batches) if gates else (), None)
    chosen = {name: gate for name, gate in gates.items() if noise[_label_rows(parts, gate)].max(initial=0) > _WORTH}
    while chosen:
        parts = scalable(model, chosen)
        readers = find_readers(model, parts, batches)
        factors = least_noise(readers, parts.free)
        gains = _noise(parts, readers, None) - _noise(parts, readers, np.log(factors))
        worth = {name: gate for name, gate in chosen.items() if gains[_label_rows(parts, gate)].max() > _WORTH}
        if len(worth) == len(chosen):
            return _multiplied(model, parts, factors)
        chosen = worth
    return EqualisedGates(model, frozenset(), frozenset())


def _label_rows(parts: Scalable, gate: Gate) -> LabelArray:
    return parts.values[str(gate.source.name)].ravel()


def _noise(parts: Scalable, readers: Sequence[Reader], factors: Floats | None) -> Floats:
    """Return for each label the noise of all that reads it, as shares of signals; `factors` are logarithms."""
    total = np.zeros(len(parts.free))
    factors = total.copy() if factors is None else factors
    for reader in readers:
        own = np.unique(reader.labels[parts.free[reader.labels]])
        total[own] += reader.noise(factors) if len(own) else 0.0
    return total


def _multiplied(model: ir.Model, parts: Scalable, factors: Floats) -> EqualisedGates:
    """Multiply channels, in place, and divide what goes into the Sigmoids of gates."""
    multiply(model, parts, factors)
    kept = [_divided(model, gate, factors, parts) for gate in parts.gates.values()]
    moved = parts.free & (factors != 1)
    changed = frozenset(name for name, row in parts.values.items() if moved[row].any())
    return EqualisedGates(model, changed, frozenset(name for names in kept for name in names))


def _divided(model: ir.Model, gate: Gate, factors: Floats, parts: Scalable) -> tuple[str, ...]:
    """Divide, in place, what goes into a Sigmoid by the factors of its gate; return the nodes that stay float."""
    row = parts.values[str(gate.source.name)]
    inverse = (1 / np.where(parts.free, factors, 1.0)[row]).astype(np.float32)
    if (inverse == 1).all():
        return ()
    name = f"{gate.sigmoid.outputs[0].name}.undone"
    divisor = new_constant(model.graph, f"{name}.factors", inverse)
    node = ir.Node("", "Mul", [gate.source, divisor], name=name)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = name, gate.source.shape, gate.source.type
    model.graph.insert_before(gate.sigmoid, node)
    gate.sigmoid.replace_input_with(0, node.outputs[0])
    return name, str(gate.sigmoid.name)
