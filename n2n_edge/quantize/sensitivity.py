"""What each layer loses by being quantized alone, measured once, and the layers that go back to float by it.

With a graph of a hundred layers, as many quantized files would be a hundred runs of the whole network. Here the float
network is run once, layer by layer, and from each layer on once more with that layer quantized: half the work, and no
quantizer runs but once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.file_version import in_version
from n2n_edge.graph.layers import layers_by_name
from n2n_edge.graph.learned import with_learned_outputs
from n2n_edge.graph.op import op_of
from n2n_edge.graph.shape_run import Array
from n2n_edge.graph.shapes import is_constant
from n2n_edge.quantize.integer_ops import constant_of
from n2n_edge.quantize.qdq import LEAST_OPSET
from n2n_edge.quantize.stages import Batch, Stages, node_reading, pair_of, rounded_constant, settings_of

__all__ = [
    "Compare",
    "FloatChoice",
    "LayerSensitivity",
    "Sensitivity",
    "measure_sensitivity",
    "output_error",
    "to_float",
]

Compare = Callable[[Sequence[Array], Sequence[Array]], float]
"""How far outputs (second) are from the float network's (first) for the same images, ``(N, ...)`` each; 0 is none."""

_BY_THEMSELVES = ("sum", "product", "other", "concat")


@dataclass(frozen=True)
class LayerSensitivity:
    """What is lost with one layer quantized alone: `error` as `Compare` says, mean over images.

    `nodes` are the layer's nodes that are quantized; a sum or product of branches is a layer of its own.
    """

    layer: str
    nodes: tuple[str, ...]
    error: float


@dataclass(frozen=True)
class Sensitivity:
    """The sensitivity of every quantized layer, in the graph's order."""

    layers: tuple[LayerSensitivity, ...]

    @property
    def worst_first(self) -> tuple[LayerSensitivity, ...]:
        """The layers by falling error; of equal ones the first in the graph comes first."""
        return tuple(sorted(self.layers, key=lambda item: -item.error))


@dataclass(frozen=True)
class FloatChoice:
    """The layers that go back to float, worst first, with their nodes, and the drop that is then left.

    `met` says whether that is within the limit; `tried` are the drops by the number of layers in float.
    """

    layers: tuple[str, ...]
    nodes: frozenset[str]
    drop: float
    met: bool
    tried: Mapping[int, float]


def output_error(reference: Sequence[Array], outputs: Sequence[Array]) -> float:
    """Return the squared error of float outputs as a share of the reference's squares, mean over outputs."""
    shares = []
    for wanted, given in zip(reference, outputs, strict=True):
        if np.issubdtype(wanted.dtype, np.floating):
            expected = wanted.astype(np.float64)
            error = float(np.square(given.astype(np.float64) - expected).mean())
            shares.append(error / max(float(np.square(expected).mean()), float(np.finfo(np.float32).tiny)))
    return float(np.mean(shares)) if shares else 0.0


def measure_sensitivity(
    reference: ir.Model,
    quantized: ir.Model,
    batches: Iterable[Mapping[str, Array]],
    compare: Compare = output_error,
    *,
    threads: int = 1,
) -> Sensitivity:
    """Return what each layer loses that `quantized` has in int8 and `reference`, its float twin, in float.

    `quantized` is a QDQ model, in training form or folded, whose nodes are called as those of `reference`; layer by
    layer its scales and rounded weights are put into the float model. `batches` are inputs by name,
    ``(N, C, H, W)`` each; some dozen images are enough to tell layers apart. What is compared are the learned outputs.

    Raises:
        InputError: ONNX Runtime can't run a part of the model.

    >>> sensitivity = measure_sensitivity(model, quantized, [{"input": images}])
    >>> sensitivity.worst_first[0].layer
    'conv1'
    """
    older = reference.opset_imports.get("", LEAST_OPSET) < LEAST_OPSET
    model = with_learned_outputs(in_version(reference, LEAST_OPSET, None) if older else reference)
    twins = {str(node.name): node for node in quantized.graph if node.name}
    stages = Stages(model, batches, optimised=True, threads=threads)
    layers = _layers(model, twins)
    expected = stages.run(stages.nodes, stages.outputs)
    found = []
    for name, indices in layers.items():
        start = indices[0]
        stages.advance(start)
        continued, extra = _continuation(stages, start, frozenset(indices), twins)
        seen = stages.run(continued, stages.outputs, extra=extra)
        nodes = tuple(str(stages.nodes[index].name) for index in indices)
        found.append(LayerSensitivity(name, nodes, _mean(compare, stages.outputs, expected, seen)))
    return Sensitivity(tuple(found))


def to_float(
    sensitivity: Sensitivity, drop_with: Callable[[frozenset[str]], float], max_drop: float, *, most: int | None = None
) -> FloatChoice:
    """Return the fewest layers, worst first, that have to go back to float for the drop to hold.

    `drop_with` gives the drop of the network with these nodes in float (names, as `QuantizationPlan.float_nodes`); it
    is asked for 0, 1, 2, 4, ... layers, and between the last two of these by bisection, so about twice the logarithm of
    the layers' number. At most `most` layers go back; if even these don't hold the limit, the best that was tried is
    returned, as not met.
    """
    order = sensitivity.worst_first[:most]
    tried: dict[int, float] = {}

    def drop(number: int) -> float:
        if number not in tried:
            tried[number] = drop_with(frozenset(node for layer in order[:number] for node in layer.nodes))
        return tried[number]

    low, high = -1, 0
    for step in count():
        if drop(high) <= max_drop or high == len(order):
            break
        low, high = high, min(2**step, len(order))
    if drop(high) <= max_drop:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if drop(middle) <= max_drop else (middle, high)
    else:
        high = min(tried, key=lambda number: (tried[number], number))
    chosen = order[:high]
    return FloatChoice(
        tuple(layer.layer for layer in chosen),
        frozenset(node for layer in chosen for node in layer.nodes),
        drop(high),
        drop(high) <= max_drop,
        dict(sorted(tried.items())),
    )


def _layers(model: ir.Model, twins: Mapping[str, ir.Node]) -> dict[str, list[int]]:
    """Return the positions of the quantized nodes of each layer, in the graph's order.

    What only moves data or picks the largest loses nothing by itself, so a layer has a weighted op, joins or computes.
    """
    names = layers_by_name(model)
    found: dict[str, list[int]] = {}
    for index, node in enumerate(model.graph):
        twin = twins.get(str(node.name))
        if twin is None or not any(pair_of(value) is not None for value in twin.inputs):
            continue
        row = op_of(node)
        by_itself = row.weight is not None or row.join in _BY_THEMSELVES or row.kernel in ("elementwise", "pooling")
        layer = names.get(str(node.name))
        if layer is not None or (by_itself and not row.compares and row.form == "" and node.op_type != "MaxPool"):
            found.setdefault(layer or str(node.name), []).append(index)
    return found


def _continuation(
    stages: Stages, start: int, chosen: frozenset[int], twins: Mapping[str, ir.Node]
) -> tuple[list[ir.Node], dict[str, Array]]:
    """Return the nodes from `start` on, those of one layer reading what their quantized twins do, and constants."""
    nodes: list[ir.Node] = []
    extra: dict[str, Array] = {}
    for index, node in enumerate(stages.nodes[start:], start):
        if index not in chosen:
            nodes.append(node)
            continue
        twin = twins[str(node.name)]
        inputs: list[ir.Value | None] = list(node.inputs)
        for place, value in enumerate(twin.inputs):
            if value is None:
                continue
            own = inputs[place] if place < len(inputs) else None
            name = f"{node.outputs[0].name}.quantized.{place}"
            constant = constant_of(twin, place)
            rounded = constant if constant is not None else rounded_constant(pair_of(value))
            if own is not None and not is_constant(own):
                pair = pair_of(value)
                if pair is not None:
                    added, inputs[place] = _pair_around(own, name, pair, extra)
                    nodes += added
            elif rounded is not None:
                extra[name] = rounded
                inputs += [None] * (place + 1 - len(inputs))
                inputs[place] = ir.Value(name=name)
        nodes.append(node_reading(node, inputs))
    return nodes, extra


def _pair_around(value: ir.Value, name: str, pair: ir.Node, extra: dict[str, Array]) -> tuple[list[ir.Node], ir.Value]:
    """Return QuantizeLinear and DequantizeLinear of an activation with the settings of `pair`, and what they give."""
    scale, zero, axis = settings_of(pair)
    settings = [ir.Value(name=f"{name}.scale"), ir.Value(name=f"{name}.zero")]
    extra |= {f"{name}.scale": scale, f"{name}.zero": zero}
    attributes = [ir.AttrInt64("axis", axis)] if scale.size > 1 else []
    source = ir.Value(name=value.name)  # not the graph's own, which would note a reader
    first = ir.Node("", "QuantizeLinear", [source, *settings], attributes, outputs=[ir.Value(name=f"{name}.integer")])
    last = ir.Node(
        "", "DequantizeLinear", [first.outputs[0], *settings], attributes, outputs=[ir.Value(name=f"{name}.float")]
    )
    return [first, last], last.outputs[0]


def _mean(compare: Compare, names: Sequence[str], expected: Sequence[Batch], seen: Sequence[Batch]) -> float:
    """Return the mean of a comparison over batches, each as its images count."""
    total, images = 0.0, 0
    for wanted, given in zip(expected, seen, strict=True):
        number = len(wanted[names[0]]) if wanted[names[0]].ndim else 1
        total += number * compare([wanted[name] for name in names], [given[name] for name in names])
        images += number
    return total / max(images, 1)
