"""Regions of a network: the few runs of layers that each calculate in one precision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.layers import Layer

__all__ = ["Region", "find_regions", "nodes_outside"]

_MOST = 4
"""Regions at most: a search of some dozen candidates can tell sixteen combinations apart, and a border of two regions
costs a pair of conversions."""

_WITHIN = 0.4
"""How far a border may lie from an even division, in parts of one region."""


@dataclass(frozen=True)
class Region:
    """A run of layers in execution order, by the names of its first and last one, and the nodes that follow them."""

    name: str
    layers: tuple[str, ...]
    nodes: frozenset[str]


def find_regions(model: ir.Model, layers: Sequence[Layer]) -> tuple[Region, ...]:
    """Return the regions of a normalised model in execution order: at most four, of about equal params and MACs.

    Borders are where the fewest values cross, since each has to be converted there; between residual blocks it is one.
    A head's output layers, behind which nothing is weighted, and what follows them are in no region: they stay in
    float, since a coarse step there goes straight into scores and boxes.
    """
    order = {name: index for index, layer in enumerate(layers) for name in layer.nodes}
    at = _positions(model, order)
    heads = _heads(model, order)
    body = [index for index, layer in enumerate(layers) if not heads.intersection(layer.nodes)]
    if not body:
        return ()
    params, macs = sum(layer.params for layer in layers) or 1, sum(layer.macs for layer in layers) or 1
    weights = np.array([layers[index].params / params + layers[index].macs / macs for index in body])
    crossing = _crossing(model, at)
    borders = _borders(np.cumsum(weights) / max(float(weights.sum()), 1e-12), crossing[body])
    regions = []
    for start, end in zip([0, *borders], [*borders, len(body)], strict=True):
        members = [layers[index].name for index in body[start:end]]
        first = body[start] if start else 0
        last = body[end] - 1 if end < len(body) else len(layers)
        nodes = frozenset(name for name, index in at.items() if name not in heads and first <= index <= last)
        name = members[0] if len(members) == 1 else f"{members[0]}..{members[-1]}"
        regions.append(Region(name, tuple(members), nodes))
    return tuple(regions)


def nodes_outside(model: ir.Model, regions: Sequence[Region]) -> frozenset[str]:
    """Return the names of the nodes of a candidate that are in none of `regions`, of which some may have gone.

    What a cut has added is where its input comes from, and gets a name if it has none.
    """
    inside = frozenset[str]().union(*(region.nodes for region in regions))
    added: set[str] = set()
    outside: set[str] = set()
    for node in model.graph:
        if not node.name:
            node.name = f"{node.op_type}/{node.outputs[0].name}"
            before = (value.producer() for value in node.inputs if value is not None)
            if any(each is not None and each.name in inside | added for each in before):
                added.add(node.name)
        if node.name not in inside and node.name not in added:
            outside.add(node.name)
    return frozenset(outside)


def _positions(model: ir.Model, order: Mapping[str, int]) -> dict[str, int]:
    """Return for every node the index of the last layer that it depends on, or is part of; nought before the first."""
    found: dict[str, int] = {}
    for node in model.graph:
        before = [producer for value in node.inputs if value is not None and (producer := value.producer())]
        own = order.get(str(node.name), 0)
        found[str(node.name)] = max([own, *(found.get(str(each.name), 0) for each in before)])
    return found


def _heads(model: ir.Model, order: Mapping[str, int]) -> set[str]:
    """Return the nodes of output layers, behind which no further layer begins, and all that follow them."""
    nodes = list(model.graph)
    ahead: dict[str, set[int]] = {}  # which layer a node may lead to: two different ones say that there is another
    for node in reversed(nodes):
        reached: set[int] = set()
        for value in node.outputs:
            for use in value.uses():
                name = str(use.node.name)
                reached |= ahead.get(name, set()) | ({order[name]} if name in order else set())
        ahead[str(node.name)] = set(sorted(reached)[-2:])
    heads: set[str] = set()
    for node in nodes:
        name = str(node.name)
        before = [producer for value in node.inputs if value is not None and (producer := value.producer())]
        follows = any(str(each.name) in heads for each in before)
        if follows or (name in order and ahead[name] <= {order[name]}):
            heads.add(name)
    return heads


def _crossing(model: ir.Model, at: Mapping[str, int]) -> NDArray[np.int64]:
    """Return for every layer how many values cross from it, and what is before it, to what comes after."""
    change = np.zeros(max(at.values(), default=0) + 2, np.int64)
    for node in model.graph:
        own = at[str(node.name)]
        for value in node.outputs:
            last = max((at.get(str(use.node.name), own) for use in value.uses()), default=own)
            change[own] += 1
            change[last] -= 1
    crossing: NDArray[np.int64] = np.cumsum(change)[:-1]
    return crossing


def _borders(shares: NDArray[np.float64], crossing: NDArray[np.int64]) -> list[int]:
    """Return where regions begin but the first: near an even division, where least crosses."""
    borders: list[int] = []
    for part in range(1, _MOST):
        distances = np.abs(shares[:-1] - part / _MOST)
        near = [i for i in np.flatnonzero(distances <= _WITHIN / _MOST).tolist() if i + 1 not in borders]
        if near:
            borders.append(1 + min(near, key=lambda i: (crossing[i], distances[i])))
    return sorted(borders)
