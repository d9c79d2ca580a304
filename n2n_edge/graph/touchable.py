"""How much of a teacher an architecture can take away, and what keeps the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_edge.graph.groups import ChannelGroup
from n2n_edge.graph.labels import Labels
from n2n_edge.graph.layers import Layer

__all__ = ["Touchable", "find_touchable"]


@dataclass(frozen=True)
class Touchable:
    """How much of a teacher's layers can go: shares, 0 to 1.

    An element of a weight counts where its layer can be removed or one of the channels that it belongs to can be
    dropped; bias and norm of a layer count like its weight. `reasons` says for every layer of which nothing can go what
    keeps it as it is.
    """

    params_share: float
    macs_share: float
    reasons: Mapping[str, str]


def find_touchable(labels: Labels, layers: Sequence[Layer], groups: Sequence[ChannelGroup]) -> Touchable:
    """Return what of `layers` can go."""
    movable = np.zeros(labels.count, bool)
    movable[[unit for group in groups if group.shrinkable for unit in group.units]] = True
    shares = [1.0 if layer.removable else _share(layer.weight, labels, movable) for layer in layers]
    frozen = {name: group.reason for group in reversed(groups) if group.reason for name in group.layers}
    return Touchable(
        _weighted(shares, [layer.params for layer in layers]),
        _weighted(shares, [layer.macs for layer in layers]),
        {
            layer.name: frozen.get(layer.name, layer.reason)
            for layer, share in zip(layers, shares, strict=True)
            if not share
        },
    )


def _share(weight: str, labels: Labels, movable: NDArray[np.bool_]) -> float:
    """Return the share of the elements of `weight` that belong to at least one channel in `movable`."""
    shape = labels.shapes.get(weight, ())
    total = int(np.prod(shape))
    return 1 - _fixed(weight, shape, labels, movable) / total if total else 0.0


def _fixed(name: str, shape: tuple[int, ...], labels: Labels, movable: NDArray[np.bool_]) -> int:
    """Return how many elements belong to no channel in `movable`; block by block where the blocks' channels differ."""
    dims = {axis: labels.dims[name, axis] for axis in range(len(shape)) if (name, axis) in labels.dims}
    rows: dict[int, NDArray[np.bool_]] = {axis: np.logical_not(movable[labelled]) for axis, labelled in dims.items()}
    blocks = max((len(row) for row in rows.values() if row.ndim > 1), default=1)
    count = 0
    for block in range(blocks):
        product = 1
        for axis, size in enumerate(shape):
            row = rows.get(axis)
            if axis == 0 and blocks > 1:
                size //= blocks
                row = row if row is None else row[block * size : (block + 1) * size]
            elif row is not None and row.ndim > 1:
                row = row[block]
            product *= size if row is None else int(row.sum())
        count += product
    return count


def _weighted(shares: Sequence[float], whole: Sequence[int]) -> float:
    total = sum(whole)
    return sum(share * part for share, part in zip(shares, whole, strict=True)) / total if total else 0.0
