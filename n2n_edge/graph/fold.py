"""Constant folding: what follows from constants and shapes alone replaces the nodes that calculate it.

Nothing grows by it. What an elementwise op broadcasts is stored as small as it can be; a weight that is read through
Identity, Transpose, Reshape, Cast or Split is stored once; what would still take more elements than it is calculated
from (a Tile, a Range, the transposed copy of a weight that is read as it is, too) stays calculated.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.load import add_initializer
from n2n_edge.graph.op import op_of
from n2n_edge.graph.shape_run import Array
from n2n_edge.graph.shapes import Shape, Trace

__all__ = ["fold_static", "put_constant"]

_SMALL = 8
"""Elements up to which a constant is no larger than a node that calculates it."""


_Use = tuple[ir.Node, int]
"""A node that reads a value, and at which input."""


@dataclass
class _Fold:
    """A constant array for some of the readers of a calculated value, and what it is calculated from."""

    value: ir.Value
    uses: list[_Use]
    array: Array
    cone: frozenset[ir.Node]
    sources: frozenset[ir.Value]


def fold_static(model: ir.Model, one: Trace, two: Trace, only: Collection[str] | None = None) -> None:
    """Turn, in place, values that are the same in both traces into initializers; `only` limits it to these names."""
    names = {
        name
        for name, array in one.values.items()
        if (only is None or name in only) and name in two.values and np.array_equal(array, two.values[name])
    }
    static = {
        node
        for node in model.graph
        if all(str(value.name) in names and not value.is_graph_output() for value in node.outputs if value.name)
    }
    while True:
        folds = _folds(static, one, two)
        growing = _growing(folds, one)
        if not growing:
            break
        static -= growing
    _apply(model, folds, one)
    for node in reversed(list(model.graph)):
        if node in static and not any(value.uses() for value in node.outputs):
            model.graph.remove(node, safe=True)


def put_constant(model: ir.Model, value: ir.Value, array: Array, one: Trace, two: Trace) -> None:
    """Let everything that reads `value` read a new initializer that holds `array`, as small as its readers allow."""
    for uses, smaller in _by_form(value, _uses(value), array, one, two):
        _replace(uses, add_initializer(model, f"{value.name}.folded", smaller))


def _folds(static: Collection[ir.Node], one: Trace, two: Trace) -> list[_Fold]:
    folds = []
    for node in static:
        for value in node.outputs:
            uses = [use for use in _uses(value) if use[0] not in static]
            if not uses:
                continue
            cone = _cone(node, static)
            sources = frozenset(
                source
                for item in cone
                for source in item.inputs
                if source is not None and source.const_value is not None and source.const_value.size > _SMALL
            )
            forms = _by_form(value, uses, one.values[str(value.name)], one, two)
            folds += [_Fold(value, part, array, cone, sources) for part, array in forms]
    return folds


def _cone(node: ir.Node, static: Collection[ir.Node]) -> frozenset[ir.Node]:
    """Return `node` and the nodes in `static` that it depends on."""
    cone, waiting = {node}, [node]
    while waiting:
        for value in waiting.pop().inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer in static and producer not in cone:
                cone.add(producer)
                waiting.append(producer)
    return frozenset(cone)


def _by_form(
    value: ir.Value, uses: Sequence[_Use], array: Array, one: Trace, two: Trace
) -> list[tuple[list[_Use], Array]]:
    """Gather `uses` of `value` by the form of `array` that serves them."""
    forms: dict[Shape, tuple[list[_Use], Array]] = {}
    for use in uses:
        smaller = _broadcastable(use, array, one.shapes, two.shapes)
        forms.setdefault(smaller.shape, ([], smaller))[0].append(use)
    return list(forms.values())


def _broadcastable(use: _Use, array: Array, *traced: Mapping[str, Shape]) -> Array:
    """Return `array` without its repetitions along the axes along which the reader repeats it anyway."""
    node, position = use
    if not op_of(node).broadcasts:
        return array
    others = [str(item.name) for index, item in enumerate(node.inputs) if item is not None and index != position]
    repeated = False
    for axis, size in enumerate(array.shape):
        from_end = array.ndim - axis
        widest = [
            max((_size_from_end(shapes.get(name, ()), from_end) for name in others), default=1) for shapes in traced
        ]
        results = [_size_from_end(shapes.get(str(node.outputs[0].name), ()), from_end) for shapes in traced]
        if size > 1 and widest == results:
            first = array.take([0], axis=axis)
            if (array == first).all():
                array = first
                repeated = True
    if repeated and array.size == 1 and node.op_type != "PRelu" and _keeps_rank(use, array.ndim, traced[0]):
        array = array.reshape(())  # a number, as what fills a shape is
    return np.array(array, order="C")


def _size_from_end(shape: Shape, place: int) -> int:
    return shape[-place] if place <= len(shape) else 1


def _growing(folds: Sequence[_Fold], one: Trace) -> set[ir.Node]:
    """Return the nodes whose outputs would take more elements as constants than what they are calculated from."""
    folded = {node for fold in folds for node in fold.cone}
    growing: set[ir.Node] = set()
    for together in _components(folds):
        sources = {source for fold in together for source in fold.sources}
        large = [fold for fold in together if fold.array.size > _SMALL and not _is_setting(fold.array)]
        stored = [array for array in _distinct(large) if not any(_same(array, source) for source in sources)]
        kept = [s for s in sources if any(_same(fold.array, s) for fold in large)]
        freed = [s for s in sources if s not in kept and not _stays(s, folded)]
        if sum(array.size for array in stored) > sum(s.const_value.size for s in freed if s.const_value is not None):
            same = {id(fold) for fold in large if any(_same(fold.array, source) for source in sources)}
            growing |= {node for fold in large if id(fold) not in same and (node := fold.value.producer()) is not None}
            if len(together) == 1:
                growing |= set(_growing_before(together[0], one))
    return growing


def _growing_before(fold: _Fold, one: Trace) -> Iterator[ir.Node]:
    """Yield the nodes of the chain before a fold that grows whose outputs would grow as well, being as large."""
    node = fold.value.producer()
    while node is not None and not op_of(node).broadcasts:
        inputs = [value for value in node.inputs if value is not None and value.producer() in fold.cone]
        if len(inputs) != 1 or len(inputs[0].uses()) != 1:
            return
        array, node = one.values[str(inputs[0].name)], inputs[0].producer()
        if array.size < max(fold.array.size, _SMALL + 1) or _is_setting(array) or node is None:
            return
        if len(node.outputs) != 1 or any(_same(array, source) for source in fold.sources):
            return
        yield node


def _components(folds: Sequence[_Fold]) -> list[list[_Fold]]:
    """Gather the folds that are calculated from the same weights or by the same nodes."""
    parent = list(range(len(folds)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    home: dict[object, int] = {}
    for index, fold in enumerate(folds):
        for key in (*fold.cone, *fold.sources):
            parent[root(index)] = root(home.setdefault(key, index))
    gathered: dict[int, list[_Fold]] = {}
    for index, fold in enumerate(folds):
        gathered.setdefault(root(index), []).append(fold)
    return list(gathered.values())


def _stays(source: ir.Value, folded: Collection[ir.Node]) -> bool:
    return source.is_graph_output() or any(node not in folded for node, _ in _uses(source))


def _uses(value: ir.Value) -> list[_Use]:
    return [(use.node, use.idx) for use in value.uses()]


def _is_setting(array: Array) -> bool:
    """Tell whether an array may be sizes, axes or positions, which ops have to be given as constants."""
    return array.ndim < 2 and not np.issubdtype(array.dtype, np.floating)


def _distinct(folds: Iterable[_Fold]) -> list[Array]:
    kept: dict[tuple[object, ...], Array] = {}
    for fold in folds:
        kept.setdefault((fold.array.dtype, fold.array.shape, fold.array.tobytes()), fold.array)
    return list(kept.values())


def _same(array: Array, source: ir.Value) -> bool:
    """Tell whether a constant is `source`, but for leading axes of length one."""
    tensor = source.const_value
    if tensor is None or tensor.size != array.size or tensor.dtype.numpy() != array.dtype:
        return False
    shapes = [tuple(shape) for shape in (array.shape, tensor.shape.numpy())]
    longest = max(map(len, shapes))
    if len({(1,) * (longest - len(shape)) + shape for shape in shapes}) > 1:
        return False
    return bool(np.array_equal(array.ravel(), tensor.numpy().ravel()))


def _apply(model: ir.Model, folds: Iterable[_Fold], one: Trace) -> None:
    """Let readers read initializers: a weight that holds the same, or a new one, which equal large folds share."""
    made: dict[tuple[object, ...], ir.Value] = {}
    for fold in folds:
        shared = next((source for source in fold.sources if _can_replace(model, source, fold, one)), None)
        key = (fold.sources, fold.array.dtype, fold.array.shape, fold.array.tobytes())
        if shared is None:
            shared = made.get(key)
        if shared is None:
            shared = add_initializer(model, f"{fold.value.name}.folded", fold.array)
        if fold.sources:
            made[key] = shared
        _replace(fold.uses, shared)


def _can_replace(model: ir.Model, source: ir.Value, fold: _Fold, one: Trace) -> bool:
    """Tell whether the readers of `fold` may read the weight `source` as it is."""
    if not _same(fold.array, source) or model.graph.initializers.get(str(source.name)) is not source:
        return False
    assert source.const_value is not None
    missing = fold.array.ndim - len(source.const_value.shape.numpy())
    return missing == 0 or (missing > 0 and all(_keeps_rank(use, fold.array.ndim, one.shapes) for use in fold.uses))


def _keeps_rank(use: _Use, rank: int, shapes: Mapping[str, Shape]) -> bool:
    node, position = use
    others = [str(item.name) for index, item in enumerate(node.inputs) if item is not None and index != position]
    return op_of(node).broadcasts and any(len(shapes.get(name, ())) >= rank for name in others)


def _replace(uses: Iterable[_Use], constant: ir.Value) -> None:
    for node, position in uses:
        node.replace_input_with(position, constant)
