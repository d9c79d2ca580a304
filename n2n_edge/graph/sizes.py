"""Sizes that are calculated from the batch, made constant where every batch allows it, so that they tell no channels.

`interpolate(x, size=y.shape[-2:])` becomes a Resize of the last axes alone, or by scales, or to sizes whose batch and
channels are those of what is resized; Reshape and Expand leave the batch as it is.
"""

from fractions import Fraction

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.load import add_initializer
from n2n_edge.graph.operands import is_computed, is_fixed, opset_of, repeats_for_batch, slice_plan
from n2n_edge.graph.shape_run import Array
from n2n_edge.graph.shapes import Shape, Trace

__all__ = ["free_sizes", "has_own_sizes"]

_KEPT_AXES = 2
"""Batch and channels: the axes whose size `has_own_sizes` takes from what is resized."""


def free_sizes(model: ir.Model, one: Trace, two: Trace) -> None:
    """Give, in place, every Reshape, Expand and Resize with sizes from the batch constants that serve all batches."""
    for node in list(model.graph):
        index = {"Reshape": 1, "Expand": 1, "Resize": 3}.get(node.op_type)
        if index is None or not is_computed(node, index):
            continue
        source, sizes = node.inputs[0], node.inputs[index]
        assert source is not None
        assert sizes is not None
        name = str(sizes.name)
        if name not in one.values or name not in two.values:
            continue
        first, second = one.values[name], two.values[name]
        shapes = one.shapes[str(source.name)], two.shapes[str(source.name)]
        match node.op_type:
            case "Reshape":
                _set(model, node, 1, _reshape_target(first, second, shapes[0]))
            case "Expand":
                target = _expand_target(first, second, *shapes)
                _set(model, node, 1, target)
                if target is None and is_fixed(source):
                    _repeat_for_batch(model, node, first, second, shapes[0])
            case _:
                _resize(model, node, first, second, *shapes)


def has_own_sizes(node: ir.Node) -> bool:
    """Tell whether a Resize takes the size of its first two axes from what it resizes, and constants for the others."""
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    joined = sizes.producer() if sizes is not None else None
    if joined is None or joined.op_type != "Concat" or is_computed(joined, 1) or len(joined.inputs) != 2:
        return False
    taken = joined.inputs[0].producer() if joined.inputs[0] is not None else None
    if taken is None or taken.op_type != "Slice" or slice_plan(taken, (_KEPT_AXES + 1,)) != {0: range(_KEPT_AXES)}:
        return False
    shape = taken.inputs[0].producer() if taken.inputs[0] is not None else None
    return shape is not None and shape.op_type == "Shape" and shape.inputs[0] is node.inputs[0]


def _reshape_target(first: Array, second: Array, source: Shape) -> Array | None:
    """Return a Reshape target for every batch from those for a batch of one and of two; None where none serves both."""
    varying = np.flatnonzero(first != second)
    if len(varying) != 1:
        return None
    place = int(varying[0])
    if -1 not in first:
        return np.where(np.arange(len(first)) == place, -1, first).astype(np.int64)
    if place == 0 and first[0] == source[0]:  # 0 copies the axis of the input
        return np.where(np.arange(len(first)) == 0, 0, first).astype(np.int64)
    return None


def _expand_target(first: Array, second: Array, one: Shape, two: Shape) -> Array | None:
    """Return an Expand target with ones, which leave an axis as it is, where what is expanded has the batch already."""
    target = first.astype(np.int64).copy()
    for place in np.flatnonzero(first != second).tolist():
        axis = place - len(first) + len(one)
        if axis < 0 or (one[axis], two[axis]) != (first[place], second[place]):
            return None
        target[place] = 1
    return target


def _repeat_for_batch(model: ir.Model, node: ir.Node, first: Array, second: Array, source: Shape) -> None:
    """Let the target of an Expand name, behind the batch, only axes along which it repeats (`repeats_for_batch`)."""
    if len(source) != len(first) or np.flatnonzero(first != second).tolist() != [0]:
        return
    rest = np.array([1 if size == wanted else wanted for size, wanted in zip(source, first, strict=True)][1:], np.int64)
    stem = str(node.outputs[0].name)
    batch: ir.Value | None = None
    if repeats_for_batch(node):
        joined = node.inputs[1].producer() if node.inputs[1] is not None else None
        batch = joined.inputs[0] if joined is not None else None
        if joined is not None and joined.inputs[1] is not None and joined.inputs[1].const_value.size != len(rest):  # type: ignore[union-attr]
            batch = None
    made: list[ir.Node] = []
    if batch is None:
        bounds = [
            add_initializer(model, f"{stem}.{name}", np.array([at], np.int64)) for name, at in (("from", 0), ("to", 1))
        ]
        taken = ir.Node("", "Slice", [node.inputs[1], *bounds], name=f"{stem}.batch")
        made.append(taken)
        batch = taken.outputs[0]
    ones = add_initializer(model, f"{stem}.rest", rest)
    made.append(ir.Node("", "Concat", [batch, ones], [ir.AttrInt64("axis", 0)], name=f"{stem}.target"))
    for item, length in zip(reversed(made), (len(first), 1), strict=False):
        item.outputs[0].name = item.name
        item.outputs[0].shape, item.outputs[0].dtype = ir.Shape([length]), ir.DataType.INT64
    model.graph.insert_before(node, made)
    node.replace_input_with(1, made[-1].outputs[0])


def _resize(model: ir.Model, node: ir.Node, first: Array, second: Array, one: Shape, two: Shape) -> None:
    if not first.size or "axes" in node.attributes or len(first) != len(one):
        return
    changed = [axis for axis in range(len(one)) if (one[axis], two[axis]) != (first[axis], second[axis])]
    if any(first[axis] != second[axis] or one[axis] != two[axis] for axis in changed):
        return
    region = node.inputs[1]
    has_region = region is not None and (region.const_value is None or region.const_value.size > 0)
    stretches = node.attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    scales = [Fraction(int(first[axis]), one[axis]) for axis in range(len(one))]
    exact = all(Fraction(float(np.float32(float(scale)))) == scale for scale in scales)
    if changed and opset_of(node) >= 18 and not has_region and stretches:
        node.attributes["axes"] = ir.AttrInt64s("axes", changed)
        _set(model, node, 3, first[changed])
    elif exact and stretches:
        constant = add_initializer(
            model, f"{node.outputs[0].name}.scales", np.array([float(s) for s in scales], np.float32)
        )
        node.replace_input_with(2, constant)
        node.resize_inputs(3)
    elif not changed or min(changed) >= _KEPT_AXES:
        _take_own_sizes(model, node, first)


def _take_own_sizes(model: ir.Model, node: ir.Node, sizes: Array) -> None:
    """Let a Resize read batch and channels from the shape of what it resizes (`has_own_sizes`)."""
    stem = str(node.outputs[0].name)
    bounds = [
        add_initializer(model, f"{stem}.{name}", np.array([at], np.int64)) for name, at in (("from", 0), ("to", 2))
    ]
    rest = add_initializer(model, f"{stem}.rest", sizes[_KEPT_AXES:].astype(np.int64))
    shape = ir.Node("", "Shape", [node.inputs[0]], name=f"{node.name or stem}.shape")
    taken = ir.Node("", "Slice", [shape.outputs[0], *bounds], name=f"{node.name or stem}.taken")
    joined = ir.Node(
        "", "Concat", [taken.outputs[0], rest], [ir.AttrInt64("axis", 0)], name=f"{node.name or stem}.sizes"
    )
    lengths = (len(sizes), _KEPT_AXES, len(sizes))
    for item, length in zip((shape, taken, joined), lengths, strict=True):
        item.outputs[0].name = item.name
        item.outputs[0].shape, item.outputs[0].dtype = ir.Shape([length]), ir.DataType.INT64
    model.graph.insert_before(node, [shape, taken, joined])
    node.replace_input_with(3, joined.outputs[0])


def _set(model: ir.Model, node: ir.Node, index: int, values: Array | None) -> None:
    if values is not None:
        constant = add_initializer(model, f"{node.outputs[0].name}.shape", values.astype(np.int64))
        node.replace_input_with(index, constant)
