"""Labels: which channel each element of a value or weight belongs to, and which channels must live or die together.

A value's *label array* broadcasts to its shape; axes along which the label doesn't vary have length one. Label 0 means
that an element belongs to no channel. Labels that must stay together are united (union-find over numpy arrays).
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.shapes import Shape

__all__ = ["NO_LABEL", "DimKey", "LabelArray", "Labels", "compress"]

LabelArray = NDArray[np.int64]

DimKey = tuple[str, int]
"""One axis of one weight, ``(initializer name, axis)``, or one side of a Pad, ``("pad:<value>", 0 or 1)``.

The row of labels of an axis that stands for other channels in every block of a grouped convolution is 2-D, one row a
block."""

NO_LABEL = 0


class Labels:
    """The state of one propagation: a label array per value, a label row per weight axis, unions and frozen labels."""

    def __init__(self, seed: Mapping[DimKey, LabelArray] | None = None, size: int = 1) -> None:
        """`seed` gives known label rows (of an earlier analysis with `size` labels) in place of fresh ones."""
        self.values: dict[str, LabelArray] = {}
        self.shapes: dict[str, Shape] = {}
        self.dims: dict[DimKey, LabelArray] = {}
        self._count = max(size, 1)
        self._parent: LabelArray = np.arange(self._count, dtype=np.int64)  # longer than `count`: it grows in leaps
        self._seed = dict(seed or {})
        self._frozen: list[tuple[LabelArray, str]] = []
        self._pinned: dict[str, str] = {}
        self.padded: dict[str, int] = {}
        self.partitions: list[tuple[LabelArray, int]] = []

    @property
    def count(self) -> int:
        """Number of labels handed out so far, label 0 included."""
        return self._count

    def fresh(self, key: DimKey, count: int) -> LabelArray:
        """Return the row of labels that `key` owns: the seed's, those of an earlier use, or new ones."""
        if key in self.dims:
            return self.dims[key]
        known = self._seed.get(key)
        if known is not None and len(known) == count:
            self.dims[key] = known
            return known
        row = np.arange(self._count, self._count + count, dtype=np.int64)
        self._count += count
        if self._count > len(self._parent):
            self._parent = np.concatenate([self._parent, np.arange(len(self._parent), 2 * self._count, dtype=np.int64)])
        self.dims[key] = row
        return row

    def assign(self, key: DimKey, row: LabelArray) -> None:
        """Say that the elements of weight axis `key` belong to the labels in `row` (tied where it is used twice)."""
        if key in self.dims:
            self.tie(self.dims[key], row, f"weight '{key[0]}' is read in different ways")
        else:
            self.dims[key] = row

    def pin(self, name: str, reason: str) -> None:
        """Forbid slicing the constant `name`: something reads it that can't tell channels."""
        self._pinned.setdefault(name, reason)

    def find(self, labels: LabelArray) -> LabelArray:
        """Return the representative of each label."""
        roots = self._parent[labels]
        while True:
            higher = self._parent[roots]
            if np.array_equal(higher, roots):
                return roots
            self._parent[labels] = higher
            roots = higher

    def unite(self, first: LabelArray, second: LabelArray) -> None:
        """Tie labels pairwise (arrays broadcast); what meets label 0 is left for the caller to freeze."""
        first, second = (array.ravel() for array in np.broadcast_arrays(first, second))
        both = (first != NO_LABEL) & (second != NO_LABEL)
        first, second = first[both], second[both]
        while True:
            first, second = self.find(first), self.find(second)
            differ = first != second
            if not differ.any():
                return
            first, second = first[differ], second[differ]
            np.minimum.at(self._parent, np.maximum(first, second), np.minimum(first, second))

    def tie(self, first: LabelArray, second: LabelArray, reason: str) -> None:
        """Unite labels pairwise; a label that meets an element without one is frozen for `reason`."""
        self.unite(first, second)
        first, second = np.broadcast_arrays(first, second)
        self.freeze(first[second == NO_LABEL], reason)
        self.freeze(second[first == NO_LABEL], reason)

    def freeze(self, labels: LabelArray, reason: str) -> None:
        """Forbid dropping any of `labels`, remembering why."""
        labels = labels[labels != NO_LABEL]
        if labels.size:
            self._frozen.append((np.unique(labels), reason))

    def all_frozen(self, labels: LabelArray) -> bool:
        """Tell whether none of `labels` can be dropped, as far as is known yet."""
        frozen = self.frozen()
        return all(root in frozen for root in np.unique(self.find(np.array(labels))).tolist() if root != NO_LABEL)

    def frozen(self) -> dict[int, str]:
        """Return the reason of every frozen representative (the first one given)."""
        pinned = [(row, self._pinned[name]) for (name, _), row in self.dims.items() if name in self._pinned]
        reasons: dict[int, str] = {}
        for labels, reason in [*self._frozen, *pinned]:
            for root in np.unique(self.find(np.array(labels))).tolist():
                if root != NO_LABEL:
                    reasons.setdefault(root, reason)
        return reasons

    def of(self, value: ir.Value | None) -> LabelArray:
        """Return the label array of `value`; all 0 for constants and for what carries no channel."""
        if value is None:
            return np.zeros((), np.int64)
        known = self.values.get(str(value.name))
        if known is not None:
            return known
        return np.zeros((1,) * len(self.shapes[str(value.name)]), np.int64)

    def shape(self, value: ir.Value) -> Shape:
        """Return the shape of `value` for a batch of one."""
        return self.shapes[str(value.name)]

    def set(self, value: ir.Value, labels: LabelArray) -> None:
        """Note the label array of `value`, made as small as broadcasting allows."""
        self.values[str(value.name)] = compress(labels)

    def row(self, value: ir.Value, axis: int) -> LabelArray:
        """Return the labels of `value` along `axis` as a full-length row, tied along every other axis."""
        labels = self.of(value)
        axis %= labels.ndim
        moved = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        if moved.shape[1] > 1:
            self.tie_rows(moved, f"they share '{value.name}' with elements that have no channel")
        return np.broadcast_to(moved.max(axis=1), (self.shape(value)[axis],))

    def tie_rows(self, table: LabelArray, reason: str) -> None:
        """Unite all labels in each row of a 2-D `table`; where a row has elements without one, freeze for `reason`."""
        some = table.max(axis=1, keepdims=True)
        self.tie(some, table, reason)

    def balance(self, row: LabelArray, groups: int, reason: str) -> None:
        """Note that `row` is read or given in so many equal blocks, which must stay equal (see `tie_balanced`).

        Where the row has elements without a label, all of it is frozen for `reason`.
        """
        if (row == NO_LABEL).any():
            self.freeze(row, reason)
        else:
            self.partitions.append((row, groups))

    def varying(self, value: ir.Value, *, beside: Iterable[int] = ()) -> list[int]:
        """Return the axes along which labels vary, those of `beside` left out."""
        labels = self.of(value)
        skipped = {axis % labels.ndim for axis in beside}
        return [axis for axis, size in enumerate(labels.shape) if size > 1 and axis not in skipped]

    def make_rectangular(self, labels: LabelArray) -> bool:
        """Tie labels until they vary along one axis only, the one that leaves most units; tell whether any was tied."""
        roots = compress(self.find(np.array(labels)))
        axes = [axis for axis, size in enumerate(roots.shape) if size > 1]
        if len(axes) < 2:
            return False
        tables = [np.moveaxis(roots, axis, 0).reshape(roots.shape[axis], -1) for axis in axes]
        best = max(tables, key=self._units_after_tying)
        self.tie_rows(best, "they share a value with elements that have no channel")
        return not np.array_equal(self.find(np.array(best)), best)

    def _units_after_tying(self, table: LabelArray) -> int:
        before = self._parent.copy()
        self.unite(table.max(axis=1, keepdims=True), table)
        units = len(np.unique(self.find(table.max(axis=1))))
        self._parent = before
        return units


def compress(labels: LabelArray) -> LabelArray:
    """Return `labels` with every axis along which it doesn't vary cut to length one."""
    for axis, size in enumerate(labels.shape):
        if size > 1:
            first = labels.take([0], axis=axis)
            if (labels == first).all():
                labels = first
    return labels
