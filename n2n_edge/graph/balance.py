"""Balance of grouped convolutions: every block of their channels loses equally many, whichever they are.

A grouped convolution reads its input channels, and gives its output channels, in equal consecutive blocks. Tying the
k-th channels of all blocks is enough, but where channels are shuffled between two such convolutions those ties run
together until one unit is left. All that is needed is that a unit holds equally many channels of every block. For two
convolutions with a shuffle between them such units always exist: the table of how many channels go from block to block
has equal row and column sums, so it is a sum of permutation matrices (Birkhoff 1946; Koenig's theorem on regular
bipartite graphs), and each permutation is one unit.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from n2n_edge.graph.labels import NO_LABEL, LabelArray, Labels

__all__ = ["tie_balanced"]

_STEPS_TRIED = 1_000
_LEVELS_TRIED = 6
"""Bounds of the search for one unit; past them, what is left becomes one unit."""

_Kind = tuple[int, ...]
"""How many channels a class of tied labels has in each block of each partition, less what it has in all of them."""


@dataclass
class _Bounds:
    """How far the search for one unit may go."""

    level: int
    steps: int


class _Need(NamedTuple):
    """The blocks of one partition within a `_Kind`."""

    start: int
    end: int


def tie_balanced(labels: Labels) -> bool:
    """Tie labels until every class of them takes equally many channels from all blocks; tell whether any was tied."""
    rows = [labels.find(np.array(row)).reshape(groups, -1) for row, groups in labels.partitions]
    return sum(_balance(labels, component) for component in _components(rows)) > 0


def _components(rows: Sequence[LabelArray]) -> list[list[LabelArray]]:
    """Gather the partitions that share labels."""
    home: dict[int, int] = {}
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index, row in enumerate(rows):
        for label in np.unique(row).tolist():
            if label != NO_LABEL:
                parent[root(index)] = root(home.setdefault(label, index))
    gathered: dict[int, list[LabelArray]] = {}
    for index, row in enumerate(rows):
        gathered.setdefault(root(index), []).append(row)
    return list(gathered.values())


def _balance(labels: Labels, partitions: Sequence[LabelArray]) -> bool:
    classes, counts, needs = _count(partitions)
    waiting: dict[_Kind, list[int]] = {}
    for label, kind in zip(classes, map(tuple, counts.tolist()), strict=True):
        if any(kind):
            waiting.setdefault(kind, []).append(label)
    tied = bool(waiting)
    while waiting:
        kinds = _complete(waiting, needs)
        if kinds is None:
            rest = np.array([label for members in waiting.values() for label in members])
            labels.unite(rest[:1], rest)
            break
        times = min(len(waiting[kind]) // count for kind, count in kinds.items())
        for _ in range(times):
            unit = np.array([waiting[kind].pop(0) for kind, count in kinds.items() for _ in range(count)])
            labels.unite(unit[:1], unit)
        waiting = {kind: members for kind, members in waiting.items() if members}
    return tied


def _count(partitions: Sequence[LabelArray]) -> tuple[list[int], NDArray[np.int64], list[_Need]]:
    """Return all labels in order of appearance, a row of counts for each, and which counts belong together."""
    order = dict.fromkeys(label for row in partitions for label in row.ravel().tolist())
    order.pop(NO_LABEL, None)
    place = {label: index for index, label in enumerate(order)}
    counts = np.zeros((len(place), sum(len(row) for row in partitions)), np.int64)
    needs = []
    start = 0
    for row in partitions:
        end = start + len(row)
        for block, members in enumerate(row):
            for label in members.tolist():
                if label != NO_LABEL:
                    counts[place[label], start + block] += 1
        counts[:, start:end] -= counts[:, start:end].min(axis=1, keepdims=True)
        needs.append(_Need(start, end))
        start = end
    return list(place), counts, needs


def _complete(waiting: dict[_Kind, list[int]], needs: Sequence[_Need]) -> Counter[_Kind] | None:
    """Return kinds, with how many of each, that take equally many from every block; None where none were found.

    Small units are looked for first: `level` is how many channels of one block a unit may take.
    """
    first = next(iter(waiting))
    for level in range(max(first), max(first) + _LEVELS_TRIED):
        found = _completed(first, waiting, needs, _Bounds(level, _STEPS_TRIED))
        if found is not None:
            return found
    return None


def _completed(
    first: _Kind, waiting: dict[_Kind, list[int]], needs: Sequence[_Need], bounds: _Bounds
) -> Counter[_Kind] | None:
    """Return `first` with kinds that complete it, by backtracking within `bounds`."""
    trail = [first]
    total = np.array(first)
    untried: list[Iterator[_Kind]] = []
    while True:
        need = next((need for need in needs if np.ptp(total[need.start : need.end])), None)
        chosen = Counter(trail)
        if need is None:
            return chosen
        bounds.steps -= 1
        fits = bounds.steps >= 0 and total.max() <= bounds.level
        untried.append(iter(_fitting(chosen, total, waiting, needs, need) if fits else ()))
        while (kind := next(untried[-1], None)) is None:
            untried.pop()
            if not untried:
                return None
            total = total - np.array(trail.pop())
        trail.append(kind)
        total = total + np.array(kind)


def _fitting(
    chosen: Counter[_Kind],
    total: NDArray[np.int64],
    waiting: dict[_Kind, list[int]],
    needs: Sequence[_Need],
    need: _Need,
) -> list[_Kind]:
    """Return the kinds that fill the emptiest block of `need`, those that leave the fewest gaps first."""
    lowest = need.start + int(np.argmin(total[need.start : need.end]))
    fitting = [kind for kind in waiting if kind[lowest] and chosen[kind] < len(waiting[kind])]
    fitting.sort(key=lambda kind: (_spread(total + np.array(kind), needs), -len(waiting[kind])))
    return fitting


def _spread(total: NDArray[np.int64], needs: Sequence[_Need]) -> int:
    """Return how many channels are missing until every block has as many as the fullest of its partition."""
    return sum(int((total[need.start : need.end].max() - total[need.start : need.end]).sum()) for need in needs)
