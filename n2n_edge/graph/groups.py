"""Channel groups: units of labels that live or die together, by the weights they touch, and what of layers can go."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.labels import NO_LABEL, DimKey, LabelArray, Labels
from n2n_edge.graph.layers import Layer
from n2n_edge.graph.op import op_of

__all__ = ["ChannelGroup", "Touchable", "find_groups", "find_touchable", "importance_order", "unit_importance"]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that share one width; `reason` says why it can't shrink and is empty where it can.

    `units` are the labels that a width counts, in channel order; `layers` are the layers whose weights they index;
    `dims` are the weight axes.
    """

    name: str
    width: int
    reason: str
    layers: tuple[str, ...]
    units: tuple[int, ...]
    dims: tuple[DimKey, ...]

    @property
    def shrinkable(self) -> bool:
        """Whether an architecture may give this group another width."""
        return not self.reason


def find_groups(labels: Labels, model: ir.Model, layers: Sequence[Layer]) -> tuple[ChannelGroup, ...]:
    """Return the channel groups in execution order, named ``g0``, ``g1``, ..."""
    keys = [key for key in labels.dims if not key[0].startswith(("input:", "pad:"))]
    frozen = labels.frozen()
    signature = _signatures([*(labels.dims[key] for key in keys), *_parts(labels, model)], labels.count)
    members: dict[tuple[int, str], list[int]] = {}
    for root in _in_order([labels.dims[key] for key in keys], labels.count):
        members.setdefault((int(signature[root]), frozen.get(root, "")), []).append(root)
    touched = _touched(keys, labels, [units[0] for units in members.values()])
    owners = _owners(model, layers)
    position = {layer.name: index for index, layer in enumerate(layers)}
    groups: list[ChannelGroup] = []
    for (_, reason), units in members.items():
        dims = touched[units[0]]
        ordered = sorted({owners[key[0]] for key in dims if key[0] in owners}, key=position.__getitem__)
        if not reason and len(units) == 1:
            reason = "holds a single unit"
        groups.append(ChannelGroup(f"g{len(groups)}", len(units), reason, tuple(ordered), tuple(units), tuple(dims)))
    return tuple(groups)


def unit_importance(
    labels: Labels, model: ir.Model, scores: Mapping[str, NDArray[np.floating[Any]]] | None = None
) -> NDArray[np.float64]:
    """Return how much each label matters (indexed by label): mean over its weight axes of its squared L2 norm.

    Every axis is normalised to mean one before averaging, as in group-level magnitude pruning (DepGraph, CVPR 2023,
    section 3.3), so that layers of different scale count alike. `scores` gives other figures than squares for the
    elements of weights, by name, such as squared first-order Taylor terms; labels that none of them touches keep
    their norm.
    """
    weights = model.graph.initializers
    by_norm, by_score = _Mean(labels.count), _Mean(labels.count)
    for (name, axis), row in labels.dims.items():
        value = weights.get(name)
        if value is None or value.const_value is None or not value.const_value.dtype.is_floating_point():
            continue
        shape = tuple(value.const_value.shape.numpy())
        score = (scores or {}).get(name)
        if score is not None and score.shape == shape:
            by_score.add(row, _norms(score.astype(np.float64), axis, row))
        if len(shape) > 1:
            by_norm.add(row, _norms(np.square(value.const_value.numpy().astype(np.float64)), axis, row))
    return np.where(by_score.seen > 0, by_score.value(), by_norm.value())


class _Mean:
    """The mean per label over weight axes, each of which is brought to mean one."""

    def __init__(self, count: int) -> None:
        self.total, self.seen = np.zeros(count), np.zeros(count)

    def add(self, row: LabelArray, norm: NDArray[np.float64]) -> None:
        summed = np.bincount(row.ravel(), weights=norm, minlength=len(self.total))
        present = np.bincount(row.ravel(), minlength=len(self.total)) > 0
        mean = summed[present].mean()
        if mean > 0:
            self.total += summed / mean
            self.seen += present

    def value(self) -> NDArray[np.float64]:
        return np.divide(self.total, self.seen, out=np.zeros_like(self.total), where=self.seen > 0)


def importance_order(group: ChannelGroup, importance: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the positions of the group's units, the most important first: the order in which widths keep them."""
    return np.argsort(-importance[np.array(group.units)], kind="stable")


def _norms(squares: NDArray[np.float64], axis: int, row: LabelArray) -> NDArray[np.float64]:
    """Sum `squares` per element of `row`, the labels along `axis`: one row, or one for each block of axis 0."""
    blocks = np.split(squares, len(row) if row.ndim > 1 else 1)
    other = tuple(i for i in range(squares.ndim) if i != axis)
    return np.concatenate([block.sum(axis=other) for block in blocks])


def _parts(labels: Labels, model: ir.Model) -> list[LabelArray]:
    """Return the labels of every value that holds part of the channels of another: a group must not empty it."""
    cutting = [node for node in model.graph if op_of(node).takes_part]
    return [labels.of(output) for node in cutting for output in node.outputs if str(output.name) in labels.values]


def _signatures(rows: Sequence[LabelArray], count: int) -> NDArray[np.uint64]:
    """Hash, per label, the set of `rows` that hold it."""
    codes = np.random.default_rng(0).integers(1, 2**63, size=len(rows), dtype=np.uint64)
    signature = np.zeros(count, np.uint64)
    for row, code in zip(rows, codes, strict=True):
        signature[np.unique(row)] += code
    return signature


def _in_order(rows: Sequence[LabelArray], count: int) -> list[int]:
    """Return the labels of all `rows` in the order in which they first appear."""
    new = np.ones(count, bool)
    new[NO_LABEL] = False
    order: list[int] = []
    for row in rows:
        roots, index = np.unique(row, return_index=True)
        fresh = new[roots]
        order += roots[fresh][np.argsort(index[fresh])].tolist()
        new[roots] = False
    return order


def _touched(keys: Sequence[DimKey], labels: Labels, units: Sequence[int]) -> dict[int, list[DimKey]]:
    """Return, for each of `units`, the weight axes that hold it."""
    touched: dict[int, list[DimKey]] = {unit: [] for unit in units}
    for key in keys:
        for unit in np.unique(labels.dims[key]).tolist():
            if unit in touched:
                touched[unit].append(key)
    return touched


def _owners(model: ir.Model, layers: Sequence[Layer]) -> Mapping[str, str]:
    """Map initializers to the layer whose nodes read them."""
    layer_of = {node: layer.name for layer in layers for node in layer.nodes}
    owners: dict[str, str] = {}
    for node in model.graph:
        owner = layer_of.get(str(node.name))
        if owner is None:
            continue
        for value in node.inputs:
            if value is not None and value.const_value is not None:
                owners.setdefault(str(value.name), owner)
    return owners


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


def find_touchable(
    labels: Labels, layers: Sequence[Layer], groups: Sequence[ChannelGroup], removable: Container[str]
) -> Touchable:
    """Return what of `layers` can go; the `removable` can go as they are."""
    movable = np.zeros(labels.count, bool)
    movable[[unit for group in groups if group.shrinkable for unit in group.units]] = True
    shares = [1.0 if layer.name in removable else _share(layer.weight, labels, movable) for layer in layers]
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
