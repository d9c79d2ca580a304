"""Label rules of ops that only move data: the op is applied to the label array itself."""

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.fixed import assign_fixed, label_fixed, pin_fixed
from n2n_edge.graph.labels import LabelArray, Labels
from n2n_edge.graph.operands import axes_of, constant_ints, is_computed, is_fixed, pad_amounts, slice_plan, split_sizes
from n2n_edge.graph.sizes import has_own_sizes

__all__ = [
    "concat", "depth_to_space", "expand", "gather", "pad", "reshape", "resize", "shape", "slice_", "space_to_depth",
    "split", "squeeze", "tile", "transpose", "unsqueeze",
]  # fmt: skip


def reshape(node: ir.Node, labels: Labels) -> None:
    """Reshape and Flatten."""
    source = _source(node)
    array = labels.of(source)
    if node.op_type == "Reshape" and is_computed(node, 1):
        _not_understood(node, labels)
    elif array.any():
        full = np.broadcast_to(array, labels.shape(source))
        labels.set(node.outputs[0], full.reshape(labels.shape(node.outputs[0])))


def transpose(node: ir.Node, labels: Labels) -> None:
    """Transpose."""
    source = _source(node)
    array = labels.of(source)
    order = node.attributes.get_ints("perm") or tuple(range(array.ndim))[::-1]
    labels.set(node.outputs[0], array.transpose(order))


def squeeze(node: ir.Node, labels: Labels) -> None:
    """Squeeze."""
    _same_elements(node, labels)


def unsqueeze(node: ir.Node, labels: Labels) -> None:
    """Unsqueeze."""
    _same_elements(node, labels)


_MOST_ROWS = 2**24


def concat(node: ir.Node, labels: Labels) -> None:
    """Concat: rows one after the other along the axis; label arrays broadcast along the others.

    Constant parts are channels like others: of the rows beside them, or with labels of their own.
    """
    rank = len(labels.shape(node.outputs[0]))
    axis = (node.attributes.get_int("axis", 0) or 0) % rank
    values = [value for value in node.inputs if value is not None]
    computed = [value for value in values if not is_fixed(value)]
    others = sorted({other for value in computed for other in labels.varying(value, beside=[axis])})
    labelled = any(labels.of(value).any() for value in computed)
    if labels.shape(node.outputs[0])[axis] > _MOST_ROWS:
        for value in values:
            labels.freeze(labels.of(value), f"Concat '{node.name}' has over {_MOST_ROWS:,} rows")
        labels.set(node.outputs[0], np.zeros([1] * rank, np.int64))
        return
    if not labelled or len(others) > 1:
        for value in values:
            pin_fixed(value, f"Concat '{node.name}' reads a weight of theirs", labels)
    arrays = []
    for value in values:
        array = labels.of(value)
        if is_fixed(value) and labelled and not others:
            row = label_fixed(value, axis, labels)
            array = _along(axis, rank, row)
        if array.shape[axis] != labels.shape(value)[axis]:
            sizes = list(array.shape)
            sizes[axis] = labels.shape(value)[axis]
            array = np.broadcast_to(array, sizes)
        arrays.append(array)
    sizes = [max(array.shape[i] for array in arrays) for i in range(rank)]
    full = [
        np.broadcast_to(array, [array.shape[i] if i == axis else size for i, size in enumerate(sizes)])
        for array in arrays
    ]
    for other in others:  # parts are joined along one axis while channels lie along another: they meet
        reason = f"Concat '{node.name}' joins them with values that have no channels"
        beside = np.concatenate(
            [part for part, value in zip(full, values, strict=True) if value in computed], axis=axis
        )
        labels.tie_rows(np.moveaxis(beside, other, 0).reshape(beside.shape[other], -1), reason)
    if len(others) == 1:
        row = np.moveaxis(beside, others[0], 0).reshape(beside.shape[others[0]], -1).max(axis=1)
        for index, value in enumerate(values):
            if is_fixed(value):
                assign_fixed(value, others[0], row, labels)
                full[index] = np.broadcast_to(_along(others[0], rank, row), full[index].shape)
    elif others:
        labels.freeze(np.concatenate([part.ravel() for part in full]), f"Concat '{node.name}' joins two labelled axes")
    labels.set(node.outputs[0], np.concatenate(full, axis=axis))


def split(node: ir.Node, labels: Labels) -> None:
    """Split."""
    source = _source(node)
    array = labels.of(source)
    axis = node.attributes.get_int("axis", 0)
    assert axis is not None
    axis %= array.ndim
    if is_computed(node, 1):
        _not_understood(node, labels)
        return
    if array.shape[axis] == 1:
        for output in node.outputs:
            labels.set(output, array)
        return
    start = 0
    for output, size in zip(node.outputs, split_sizes(node, labels.shape(source)[axis]), strict=True):
        labels.set(output, array.take(range(start, start + size), axis=axis))
        start += size


def slice_(node: ir.Node, labels: Labels) -> None:
    """Slice with constant bounds."""
    source = _source(node)
    array = labels.of(source)
    plan = slice_plan(node, labels.shape(source))
    if plan is None:
        _not_understood(node, labels)
        return
    for axis, positions in plan.items():
        if array.shape[axis] > 1:
            array = array.take(list(positions), axis=axis)
    labels.set(node.outputs[0], array)


def gather(node: ir.Node, labels: Labels) -> None:
    """Gather with constant indices."""
    source = _source(node)
    array = labels.of(source)
    axis = node.attributes.get_int("axis", 0)
    assert axis is not None
    axis %= array.ndim
    indices = constant_ints(node, 1)
    if indices is None or node.inputs[1] is None:
        _not_understood(node, labels)
        return
    rank = len(labels.shape(node.inputs[1]))
    if array.shape[axis] > 1 and rank > 1:
        labels.freeze(array, f"Gather '{node.name}' turns them into {rank} axes")
        return
    if array.shape[axis] == 1:
        moved = array.reshape((*array.shape[:axis], *(1,) * rank, *array.shape[axis + 1 :]))
    else:
        moved = array.take(indices[0] if rank == 0 else indices, axis=axis)
    labels.set(node.outputs[0], moved)


def pad(node: ir.Node, labels: Labels) -> None:
    """Pad: new channels get labels of their own, to be tied to whatever they are added to."""
    source = _source(node)
    array = labels.of(source)
    amounts = pad_amounts(node, array.ndim)
    if amounts is None:
        _not_understood(node, labels)
        return
    padded = [axis for axis, pair in enumerate(amounts) if any(pair) and array.shape[axis] > 1]
    if not padded:
        labels.set(node.outputs[0], array)
        return
    (axis, *more) = padded
    before, after = amounts[axis]
    if more or min(before, after) < 0 or not _pads_with_constant(node):
        labels.freeze(array, f"Pad '{node.name}' gives the channel axis other values than a constant")
        return
    labels.padded[str(node.outputs[0].name)] = axis
    key = f"pad:{node.outputs[0].name}"
    parts = [
        _along(axis, array.ndim, labels.fresh((key, 0), before)),
        array,
        _along(axis, array.ndim, labels.fresh((key, 1), after)),
    ]
    sizes = [[part.shape[i] if i == axis else size for i, size in enumerate(array.shape)] for part in parts]
    joined = [np.broadcast_to(part, size) for part, size in zip(parts, sizes, strict=True)]
    labels.set(node.outputs[0], np.concatenate(joined, axis=axis))


def shape(node: ir.Node, labels: Labels) -> None:
    """Shape: who asks for the batch alone doesn't mind how many channels there are, nor a Resize that keeps them."""
    readers = [use.node for use in node.outputs[0].uses()]
    of_batch = node.attributes.get_int("start", 0) == 0 and node.attributes.get_int("end", 0) == 1
    if not of_batch and not all(_takes_the_first(reader) or _serves_resizes(reader) for reader in readers):
        labels.freeze(labels.of(_source(node)), f"Shape '{node.name}' tells their number")


def _takes_the_first(node: ir.Node) -> bool:
    if node.op_type == "Gather":
        return constant_ints(node, 1) == (0,)
    return node.op_type == "Slice" and slice_plan(node, (4,)) == {0: range(1)}


def _serves_resizes(node: ir.Node) -> bool:
    """Tell whether what a Slice takes of a shape goes only to a Resize of the value that has this shape."""
    joins = [use.node for use in node.outputs[0].uses()]
    resizes = [use.node for join in joins for use in join.outputs[0].uses()]
    return bool(resizes) and all(item.op_type == "Resize" and has_own_sizes(item) for item in resizes)


def expand(node: ir.Node, labels: Labels) -> None:
    """Expand."""
    source = _source(node)
    array = labels.of(source)
    rank = len(labels.shape(node.outputs[0]))
    if is_computed(node, 1):
        _not_understood(node, labels)
        return
    labels.set(node.outputs[0], array.reshape((1,) * (rank - array.ndim) + array.shape))


def tile(node: ir.Node, labels: Labels) -> None:
    """Tile: channels pass where only other axes are repeated."""
    source = _source(node)
    array = labels.of(source)
    repeats = constant_ints(node, 1)
    if repeats is None:
        _not_understood(node, labels)
        return
    if any(size > 1 and count > 1 for size, count in zip(array.shape, repeats, strict=True)):
        labels.freeze(array, f"Tile '{node.name}' repeats the channel axis")
        return
    labels.set(node.outputs[0], array)


def resize(node: ir.Node, labels: Labels) -> None:
    """Resize and Upsample: channels pass where only the other axes change size."""
    source = _source(node)
    array = labels.of(source)
    before, after = labels.shape(source), labels.shape(node.outputs[0])
    if any(is_computed(node, index) for index in range(1, len(node.inputs))) and not has_own_sizes(node):
        _not_understood(node, labels)
        return
    for axis in labels.varying(source):
        if before[axis] != after[axis]:
            labels.freeze(array, f"{node.op_type} '{node.name}' changes the size of the channel axis")
            return
    labels.set(node.outputs[0], array)


def depth_to_space(node: ir.Node, labels: Labels) -> None:
    """DepthToSpace: the b*b input channels of an output channel are tied."""
    source = _source(node)
    row = labels.row(source, 1)
    block = node.attributes.get_int("blocksize", 1)
    assert block is not None
    column_major = node.attributes.get_string("mode", "DCR") == "DCR"
    table = row.reshape(block * block, -1).T if column_major else row.reshape(-1, block * block)
    labels.tie_rows(table, f"DepthToSpace '{node.name}' joins them with values that have no channels")
    labels.set(node.outputs[0], table.max(axis=1).reshape(1, -1, 1, 1))


def space_to_depth(node: ir.Node, labels: Labels) -> None:
    """SpaceToDepth: an input channel lives on in b*b output channels."""
    source = _source(node)
    row = labels.row(source, 1)
    block = node.attributes.get_int("blocksize", 1)
    assert block is not None
    labels.set(node.outputs[0], np.tile(row, block * block).reshape(1, -1, 1, 1))


def _source(node: ir.Node) -> ir.Value:
    source = node.inputs[0]
    assert source is not None
    return source


def _pads_with_constant(node: ir.Node) -> bool:
    return not is_computed(node, 2) and node.attributes.get_string("mode", "constant") == "constant"


def _same_elements(node: ir.Node, labels: Labels) -> None:
    """Squeeze and Unsqueeze: axes of length one come or go."""
    source = _source(node)
    array = labels.of(source)
    axes = axes_of(node)
    if node.op_type == "Squeeze":
        shape = labels.shape(source)
        gone = (
            {axis % len(shape) for axis in axes}
            if axes is not None
            else {i for i, size in enumerate(shape) if size == 1}
        )
        labels.set(node.outputs[0], array.reshape([size for i, size in enumerate(array.shape) if i not in gone]))
        return
    assert axes is not None
    rank = array.ndim + len(axes)
    new = {axis % rank for axis in axes}
    old = iter(array.shape)
    labels.set(node.outputs[0], array.reshape([1 if i in new else next(old) for i in range(rank)]))


def _along(axis: int, rank: int, row: LabelArray) -> LabelArray:
    return row.reshape([-1 if i == axis else 1 for i in range(rank)])


def _not_understood(node: ir.Node, labels: Labels) -> None:
    for value in node.inputs:
        if value is not None:
            labels.freeze(labels.of(value), f"{node.op_type} '{node.name}' has sizes or positions that aren't constant")
