"""Costs of a base graph at many widths at once, worked out from its labels without building a graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.costs import Amounts, CostPlan, Figures
from n2n_edge.graph.groups import importance_order
from n2n_edge.graph.labels import LabelArray
from n2n_edge.graph.load import size_of
from n2n_edge.graph.op import counted_op
from n2n_edge.graph.shapes import Shape, shapes_of, types_of
from n2n_edge.graph.teacher import BaseGraph

__all__ = ["WidthCosts"]

Widths = NDArray[np.int64]

_ALWAYS = -1
"""Rank of a label that no width drops."""


@dataclass(frozen=True)
class _Axis:
    """The length of one axis: what always stays, and per group how many positions each width keeps.

    `shared` are positions that stay as long as any of several groups keeps one unit: (group, rank) pairs.
    """

    fixed: int
    tables: tuple[tuple[int, NDArray[np.int64]], ...]
    shared: tuple[tuple[tuple[int, int], ...], ...]

    def length(self, widths: Widths) -> NDArray[np.int64]:
        total = np.full(len(widths), self.fixed, np.int64)
        for group, table in self.tables:
            total += table[widths[:, group]]
        for position in self.shared:
            total += np.any([widths[:, group] > rank for group, rank in position], axis=0)
        return total


class WidthCosts:
    """Costs of one base graph as a function of its groups' widths: those of `build()`.

    But for constants that a cut adds or doubles, such as the new sizes of a Split whose old ones several nodes shared:
    a few bytes each, of the file and of the memory bound.

    >>> at = WidthCosts(teacher.base_graph(frozenset()))
    >>> at.costs(np.array([[16, 16, 32], [8, 16, 24]])).macs     # widths in the order of the base graph's groups
    """

    def __init__(self, base: BaseGraph, form: ir.Model | None = None) -> None:
        """Analyse `base`; `form` is what its graph is turned into before it ships, as by quantization.

        That has to keep the names of the nodes that calculate, and may put conversions around them.
        """
        self.groups = base.groups
        model = base.model if form is None else form
        origins = {} if form is None else _origins(base.model, form)
        self.plan = CostPlan(model, {} if form is None else types_of(form).kinds)
        self._ranks = self._rank_labels(base)
        known: dict[bytes, int] = {}
        self._axes: list[_Axis] = []
        varying: dict[tuple[str, int], int] = {}
        for key, row in self._rows(base):
            content = row.tobytes()
            if content not in known:
                known[content] = len(self._axes)
                self._axes.append(self._axis(row))
            varying[key] = known[content]
        shapes = shapes_of(base.model)
        if form is not None:
            shapes, varying = _carried_over(form, origins, shapes, varying)
        self._lay_out(shapes, varying)
        full = self.costs(np.array([[group.width for group in base.groups]], np.int64))
        self._other_bytes = size_of(model) - float(full.constant_bytes[0])

    def costs(self, widths: Widths) -> Amounts:
        """Return the costs at `widths`, `(N, groups)` in the order of `groups`."""
        lengths = np.ones((len(self._axes) + 1, len(widths)))  # the last one stands for what doesn't vary
        for index, axis in enumerate(self._axes):
            lengths[index] = axis.length(widths)
        elements = self._fixed_elements[:, None] * lengths[self._element_axes].prod(axis=1)
        return self.plan.at(elements, self._fixed_lengths[:, None] * lengths[self._length_axes])

    def size_bytes(self, found: Amounts) -> Figures:
        """Return the bytes of the files, `(N,)`."""
        total: Figures = found.constant_bytes + self._other_bytes
        return total

    def _lay_out(self, shapes: Mapping[str, Shape], varying: Mapping[tuple[str, int], int]) -> None:
        """Note for every value what doesn't vary of its size, and which axes do."""
        still = len(self._axes)
        elements, element_axes = [], []
        for name in self.plan.values:
            shape = shapes.get(name)
            moving = [] if shape is None else [i for i in range(len(shape)) if (name, i) in varying]
            rest = [size for i, size in enumerate(shape or ()) if i not in moving]
            elements.append(0.0 if shape is None else float(prod(rest)))
            element_axes.append([varying[name, i] for i in moving])
        most = max((len(axes) for axes in element_axes), default=0)
        self._fixed_elements = np.array(elements)
        self._element_axes = np.array([[*axes, *[still] * (most + 1 - len(axes))] for axes in element_axes], np.int64)
        lengths, length_axes = [], []
        for name, axis in self.plan.axes:
            shape = shapes.get(name, ())
            position = axis % len(shape) if shape else axis
            length_axes.append(varying.get((name, position), still))
            lengths.append(float(shape[position]) if shape and length_axes[-1] == still else float(bool(shape)))
        self._fixed_lengths = np.array(lengths)
        self._length_axes = np.array(length_axes, np.int64)

    @staticmethod
    def _rank_labels(base: BaseGraph) -> NDArray[np.int64]:
        """Return (labels, 2): the group of each label and its rank there, or `_ALWAYS`."""
        ranks = np.full((base.labels.count, 2), _ALWAYS, np.int64)
        for index, group in enumerate(base.groups):
            if group.shrinkable:
                units = np.array(group.units)[importance_order(group, base.importance)]
                ranks[units, 0], ranks[units, 1] = index, np.arange(len(units))
        return ranks

    def _rows(self, base: BaseGraph) -> list[tuple[tuple[str, int], LabelArray]]:
        """Return, for every axis that may get shorter, the labels of its positions: `(positions, labels of each)`."""
        rows: list[tuple[tuple[str, int], LabelArray]] = []
        for key, row in base.labels.dims.items():
            first = row if row.ndim == 1 else row[0]  # blocks of a grouped convolution stay equally long
            rows.append((key, first[:, None]))
        for name, array in base.labels.values.items():
            for axis, size in enumerate(array.shape):
                if size > 1:
                    rows.append(((name, axis), np.moveaxis(array, axis, 0).reshape(size, -1)))
        return [(key, np.ascontiguousarray(row)) for key, row in rows if (self._ranks[row, 0] != _ALWAYS).any()]

    def _axis(self, row: LabelArray) -> _Axis:
        groups, ranks = self._ranks[row, 0], self._ranks[row, 1]
        fixed = (groups == _ALWAYS).any(axis=1)
        single = ~fixed & (groups == groups[:, :1]).all(axis=1)
        tables = []
        for group in np.unique(groups[single, 0]).tolist():
            members = single & (groups[:, 0] == group)
            counts = np.bincount(ranks[members].min(axis=1), minlength=self.groups[group].width)
            tables.append((group, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)))
        shared = []
        for position in np.flatnonzero(~fixed & ~single).tolist():
            pairs = zip(groups[position].tolist(), ranks[position].tolist(), strict=True)
            lowest: dict[int, int] = {}
            for group, rank in pairs:
                lowest[group] = min(rank, lowest.get(group, rank))
            shared.append(tuple(lowest.items()))
        return _Axis(int(fixed.sum()), tuple(tables), tuple(shared))


def _origins(base: ir.Model, form: ir.Model) -> dict[str, tuple[str, int | None]]:
    """Return, for values of `form` that `base` lacks, which value's axes they have: all of them, or one alone."""
    nodes = {str(node.name): node for node in base.graph}
    found: dict[str, tuple[str, int | None]] = {}

    def note(given: ir.Value, origin: tuple[str, int | None]) -> None:
        """Note the origin of a value and of what it is converted from."""
        value: ir.Value | None = given
        while value is not None and str(value.name) not in found:
            found[str(value.name)] = origin
            producer = value.producer()
            if producer is None or counted_op(producer.op_type, producer.domain).kernel != "conversion":
                return
            axis = producer.attributes.get_int("axis", 1)
            for scale in producer.inputs[1:]:
                if scale is not None and scale.shape is not None and len(scale.shape) == 1:
                    found.setdefault(str(scale.name), (origin[0], axis if origin[1] is None else origin[1]))
            value = producer.inputs[0]

    for node in form.graph:
        before = nodes.get(str(node.name))
        if before is None:
            given = node.inputs[0] if node.inputs else None
            if given is not None and given.const_value is None:
                note(node.outputs[0], found.get(str(given.name), (str(given.name), None)))
            continue
        for output, alike in zip(node.outputs, before.outputs, strict=False):
            note(output, (str(alike.name), None))
        for index, value in enumerate(node.inputs):
            former = before.inputs[index] if index < len(before.inputs) else None
            if value is not None:  # what the base lacks is a bias that a norm was folded into
                note(value, (str(before.outputs[0].name), 1) if former is None else (str(former.name), None))
    return found


def _carried_over(
    form: ir.Model,
    origins: Mapping[str, tuple[str, int | None]],
    shapes: Mapping[str, Shape],
    varying: Mapping[tuple[str, int], int],
) -> tuple[dict[str, Shape], dict[tuple[str, int], int]]:
    """Return the shapes of the values of `form`, and which of their axes vary."""
    sizes: dict[str, Shape] = dict(shapes)
    moving = dict(varying)
    for name, value in form.graph.initializers.items():
        sizes[name] = tuple(size for size in (value.shape or ()) if isinstance(size, int))
    for name, (source, axis) in origins.items():
        shape = shapes.get(source, ())
        axes = range(len(shape)) if axis is None else range(axis, min(axis + 1, len(shape)))
        sizes.setdefault(name, tuple(shape[i] for i in axes))
        if len(sizes[name]) == len(axes):
            moving.update({(name, to): varying[source, i] for to, i in enumerate(axes) if (source, i) in varying})
    return sizes, moving
