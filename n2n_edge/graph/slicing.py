"""Slicing of a labelled graph: channels are cut from weights, and constants that speak of shapes derived again."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.labels import LabelArray, Labels
from n2n_edge.graph.load import drop_unused_initializers
from n2n_edge.graph.op import op_of
from n2n_edge.graph.operands import constant_ints, opset_of, pad_amounts, slice_plan, split_sizes

__all__ = [
    "drop_channels", "mend_groups", "mend_pad", "mend_resize", "mend_selection", "mend_split", "mend_target",
    "survivors",
]  # fmt: skip

_Alive = NDArray[np.bool_]


def drop_channels(model: ir.Model, labels: Labels, dropped: Iterable[int]) -> ir.Model:
    """Return a copy of `model` without the channels whose label is in `dropped`; the rest keep order and weights."""
    alive: _Alive = np.ones(labels.count, bool)
    alive[list(dropped)] = False
    model = model.clone()
    if alive.all():
        return model
    for node in model.graph:
        rederive = op_of(node).rederive
        if rederive is not None:
            rederive(model, node, labels, alive)
    drop_unused_initializers(model)
    _slice_weights(model, labels, alive)
    for value in [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]:
        _note_shape(value, labels, alive)
    return model


def _slice_weights(model: ir.Model, labels: Labels, alive: _Alive) -> None:
    cuts: dict[str, list[tuple[int, _Alive]]] = {}
    for (name, axis), row in labels.dims.items():
        keep = alive[row]
        if not keep.all():
            cuts.setdefault(name, []).append((axis, keep))
    for name, axes in cuts.items():
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None:
            continue
        weight = value.const_value.numpy()
        for axis, keep in sorted(axes, key=lambda cut: -cut[1].ndim):  # blocks as long as they are whole
            weight = weight.compress(keep, axis=axis) if keep.ndim == 1 else _compress_blocks(weight, keep, axis)
        value.const_value = ir.Tensor(np.ascontiguousarray(weight), dtype=value.const_value.dtype, name=name)
        value.shape = value.const_value.shape


def _compress_blocks(weight: NDArray[Any], keep: _Alive, axis: int) -> NDArray[Any]:
    """Cut, in each block of output channels, the input channels that this block reads."""
    blocks = np.split(weight, len(keep))
    return np.concatenate([block.compress(kept, axis=axis) for block, kept in zip(blocks, keep, strict=True)])


def _note_shape(value: ir.Value, labels: Labels, alive: _Alive) -> None:
    if value.shape is None:
        return
    kept = _kept(value, labels, alive)
    if kept:
        value.shape = ir.Shape([int(kept[i].sum()) if i in kept else size for i, size in enumerate(value.shape)])


def _kept(value: ir.Value, labels: Labels, alive: _Alive) -> dict[int, _Alive]:
    """Return, for every axis of `value` that gets shorter, which positions stay; of a fixed value, by its axes."""
    name = str(value.name)
    if name in labels.values:
        return survivors(labels.values[name], alive)
    rank = len(labels.shapes.get(name, ()))
    rows = {axis: alive[row] for axis in range(rank) if (row := labels.dims.get((name, axis))) is not None}
    return {axis: keep for axis, keep in rows.items() if keep.ndim == 1 and not keep.all()}


def survivors(array: LabelArray, alive: _Alive) -> dict[int, _Alive]:
    """Return, for every axis along which labels vary, which positions stay; nothing where all do."""
    standing = alive[array]
    if standing.all():
        return {}
    return {
        axis: np.asarray(standing.any(axis=tuple(i for i in range(array.ndim) if i != axis)), bool)
        for axis, size in enumerate(array.shape)
        if size > 1
    }


def _kept_along(value: ir.Value | None, axis: int, labels: Labels, alive: _Alive) -> _Alive:
    """Return which positions of `value` along `axis` stay (full length)."""
    assert value is not None
    size = labels.shapes[str(value.name)][axis]
    array = labels.values.get(str(value.name))
    if array is None:
        return np.ones(size, bool)
    return survivors(array, alive).get(axis, np.ones(size, bool))


def mend_groups(model: ir.Model, node: ir.Node, labels: Labels, alive: _Alive) -> None:
    """Let a depthwise convolution have as many groups as channels stay."""
    groups = node.attributes.get_int("group", 1)
    source = node.inputs[0]
    assert source is not None
    if groups is None or groups == 1 or groups != labels.shapes[str(source.name)][1]:
        return
    kept = int(_kept_along(source, 1, labels, alive).sum())
    node.attributes["group"] = ir.AttrInt64("group", kept)


def mend_target(model: ir.Model, node: ir.Node, labels: Labels, alive: _Alive) -> None:
    """Give a Reshape or Expand the sizes of what stays."""
    target = constant_ints(node, 1)
    if target is None:
        return
    offset = len(labels.shapes[str(node.outputs[0].name)]) - len(target)
    sizes = list(target)
    for axis, keep in _kept(node.outputs[0], labels, alive).items():
        if axis >= offset and sizes[axis - offset] > 1:
            sizes[axis - offset] = int(keep.sum())
    if tuple(sizes) != target:
        _replace(model, node, 1, sizes)


def mend_split(model: ir.Model, node: ir.Node, labels: Labels, alive: _Alive) -> None:
    """Give a Split the sizes of what stays of its parts."""
    source = node.inputs[0]
    assert source is not None
    rank = len(labels.shapes[str(source.name)])
    axis = (node.attributes.get_int("axis", 0) or 0) % rank
    keep = _kept_along(source, axis, labels, alive)
    if keep.all():
        return
    bounds = np.cumsum([0, *split_sizes(node, len(keep))])
    sizes = [int(keep[start:end].sum()) for start, end in pairwise(bounds)]
    if "split" in node.attributes or opset_of(node) < 13:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
    else:
        node.attributes.pop("num_outputs", None)
        _replace(model, node, 1, sizes)


def mend_selection(model: ir.Model, node: ir.Node, labels: Labels, alive: _Alive) -> None:
    """Slice and Gather along a labelled axis become a Gather of the positions that stay."""
    source = node.inputs[0]
    assert source is not None
    shape = labels.shapes[str(source.name)]
    if node.op_type == "Slice":
        plan = {axis: list(taken) for axis, taken in (slice_plan(node, shape) or {}).items()}
    else:
        indices = constant_ints(node, 1)
        plan = {} if indices is None else {(node.attributes.get_int("axis", 0) or 0) % len(shape): list(indices)}
    for axis, taken in plan.items():
        keep = _kept_along(source, axis, labels, alive)
        if keep.all():
            continue
        place = np.cumsum(keep) - 1
        kept = [int(place[position]) for position in taken if keep[position]]
        if node.op_type == "Gather":
            _replace(model, node, 1, kept if _rank(node.inputs[1]) else kept[0])
        else:
            _slice_to(model, node, len(shape), axis, kept)


def _slice_to(model: ir.Model, node: ir.Node, rank: int, axis: int, kept: list[int]) -> None:
    """Give a Slice new bounds along `axis`; where the survivors aren't evenly spaced, gather them first."""
    steps = {b - a for a, b in pairwise(kept)} or {1}
    if len(steps) == 1 and next(iter(steps)) > 0 and "starts" not in node.attributes:
        _set_bound(model, node, rank, axis, kept[0], kept[-1] + 1, next(iter(steps)))
        return
    source = node.inputs[0]
    assert source is not None
    indices = _constant(model, f"{node.outputs[0].name}.kept", kept)
    gathered = ir.Node("", "Gather", [source, indices], [ir.AttrInt64("axis", axis)], name=f"{node.name}.kept")
    gathered.outputs[0].name = f"{node.outputs[0].name}.gathered"
    if source.shape is not None:
        sizes = list(source.shape)
        sizes[axis] = len(kept)
        gathered.outputs[0].shape = ir.Shape(sizes)
    gathered.outputs[0].type = source.type
    model.graph.insert_before(node, gathered)
    node.replace_input_with(0, gathered.outputs[0])
    if "starts" in node.attributes:
        axes = list(node.attributes.get_ints("axes") or range(rank))
        starts, ends = list(node.attributes.get_ints("starts") or ()), list(node.attributes.get_ints("ends") or ())
        position = [item % rank for item in axes].index(axis)
        starts[position], ends[position] = 0, len(kept)
        node.attributes["starts"] = ir.AttrInt64s("starts", starts)
        node.attributes["ends"] = ir.AttrInt64s("ends", ends)
    else:
        _set_bound(model, node, rank, axis, 0, len(kept), 1)


def _set_bound(model: ir.Model, node: ir.Node, rank: int, axis: int, start: int, end: int, step: int) -> None:
    starts, ends = list(constant_ints(node, 1) or ()), list(constant_ints(node, 2) or ())
    axes = list(constant_ints(node, 3) or range(len(starts)))
    steps = list(constant_ints(node, 4) or [1] * len(starts))
    position = [item % rank for item in axes].index(axis)
    other_step = steps[position] != step
    starts[position], ends[position], steps[position] = start, end, step
    for index, values in enumerate((starts, ends, axes, steps) if other_step else (starts, ends), start=1):
        _replace(model, node, index, values)


def mend_pad(model: ir.Model, node: ir.Node, labels: Labels, alive: _Alive) -> None:
    """Let a Pad add as many channels as stay of those that it adds."""
    source = node.inputs[0]
    assert source is not None
    rank = len(labels.shapes[str(source.name)])
    table = pad_amounts(node, rank)
    key = f"pad:{node.outputs[0].name}"
    if table is None or (key, 0) not in labels.dims:
        return
    axis = labels.padded[str(node.outputs[0].name)]
    amounts = [list(pair) for pair in table]
    amounts[axis] = [int(alive[labels.dims[(key, side)]].sum()) for side in (0, 1)]
    pads = [pair[0] for pair in amounts] + [pair[1] for pair in amounts]
    if "pads" in node.attributes:
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        return
    _replace(model, node, 1, pads)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        _replace(model, node, 3, list(range(rank)))


def mend_resize(model: ir.Model, node: ir.Node, labels: Labels, alive: _Alive) -> None:
    """Give a Resize the sizes of what stays."""
    given = constant_ints(node, 3)
    array = labels.values.get(str(node.outputs[0].name))
    if given is None or array is None:
        return
    axes = [axis % array.ndim for axis in node.attributes.get_ints("axes", ()) or range(array.ndim)]
    kept = survivors(array, alive)
    sizes = [int(kept[axis].sum()) if axis in kept else size for axis, size in zip(axes, given, strict=False)]
    if sizes and sizes != list(given):
        _replace(model, node, 3, sizes)


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.const_value is None else len(value.const_value.shape)


def _replace(model: ir.Model, node: ir.Node, index: int, values: list[int] | int) -> None:
    """Give `node` a constant integer input of its own (constants may be shared between nodes)."""
    constant = _constant(model, f"{node.outputs[0].name}.{node.op_type.lower()}{index}", values)
    while len(node.inputs) <= index:
        node.resize_inputs(len(node.inputs) + 1)
    node.replace_input_with(index, constant)


def _constant(model: ir.Model, name: str, values: list[int] | int) -> ir.Value:
    known = model.graph.initializers.get(name)
    constant = known if known is not None else ir.Value(name=name)
    constant.const_value = ir.Tensor(np.array(values, np.int64), name=name)
    constant.shape, constant.dtype = constant.const_value.shape, ir.DataType.INT64
    if known is None:
        model.graph.register_initializer(constant)
    return constant
