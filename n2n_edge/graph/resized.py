"""Networks of a fixed input size at another one: sizes that are written into the graph follow it.

Convolutions, pooling and resizing by scales take any size; what is fixed in a file is mostly the targets of Reshape (of
channel shuffles, and of heads that flatten their maps), sizes of Resize, and pooling of whole maps.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.infer import Walk
from n2n_edge.graph.input_shape import input_layout
from n2n_edge.graph.shape_run import Array, input_sizes
from n2n_edge.graph.shapes import Shape

__all__ = ["resized"]

_TARGETS = {"Reshape": 1, "Resize": 3, "Expand": 1}
"""Which input of an operator holds the sizes of its output."""


def resized(model: ir.Model, size: tuple[int, int]) -> ir.Model:
    """Return a copy of `model` whose first input is `size`, (height, width), its weights as they are.

    Raises:
        InputError: a size that is fixed within isn't known to follow the input's. That the copy calculates the same
            of a smaller image is for the caller to try.

    >>> from n2n_edge.graph.load import load_model
    >>> smaller = resized(load_model(example_teacher), (8, 8))
    >>> list(smaller.graph.inputs[0].shape)[2:]
    [8, 8]
    """
    model = model.clone()
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    given = model.graph.inputs[0]
    before = input_sizes(model, 1)
    axes = (1, 2) if input_layout(model) == "nhwc" else (2, 3)
    declared, sizes = list(given.shape or ()), list(before[str(given.name)])
    if len(sizes) != 4:
        raise InputError(f"input '{given.name}' of the model is no image; its size can't be changed")
    for axis, wanted in zip(axes, size, strict=True):
        declared[axis], sizes[axis] = wanted, wanted
    old = Walk(model, before)
    given.shape = ir.Shape(declared)
    new = Walk(model, {**before, str(given.name): tuple(sizes)})
    for place, node in enumerate(model.graph):
        old.visit(node)
        _follow(model, node, place, old, new)
        new.visit(node)
    outputs = {id(value) for value in model.graph.outputs}
    for node in model.graph:
        for value in node.outputs:
            known = new.found.shapes.get(str(value.name))
            if id(value) in outputs and value.shape is not None and known is not None:
                value.shape = _declared(list(value.shape), known)
            elif id(value) not in outputs:
                value.shape = None
    return model


def _declared(sizes: Sequence[int | ir.SymbolicDim], known: Shape) -> ir.Shape:
    """Return the shape of an output: sizes that have names keep them."""
    if len(sizes) != len(known):
        return ir.Shape(known)
    pairs = zip(sizes, known, strict=True)
    return ir.Shape([now if isinstance(size, int) else size for size, now in pairs])


def _follow(model: ir.Model, node: ir.Node, place: int, old: Walk, new: Walk) -> None:
    """Change, in place, what `node` has of sizes that were those of the former input."""
    source = node.inputs[0] if node.inputs else None
    name = "" if source is None else str(source.name)
    shapes = old.found.shapes.get(name), new.found.shapes.get(name)
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]):
        return
    if shapes[0] == shapes[1] and node.op_type != "Expand":
        return
    if node.op_type in ("AveragePool", "MaxPool"):
        _pool_whole(node, shapes[0], shapes[1])
        return
    if node.op_type == "ConvTranspose" and _ints(node, "output_shape"):
        wanted = np.array(_ints(node, "output_shape"), np.int64)
        scaled = _rescaled(wanted, shapes[0][-len(wanted) :], shapes[1][-len(wanted) :])
        if scaled is None:
            raise _fixed(node)
        node.attributes["output_shape"] = ir.AttrInt64s("output_shape", scaled.tolist())
        return
    index = _TARGETS.get(node.op_type)
    sizes = None if index is None or len(node.inputs) <= index else node.inputs[index]
    if index is None or sizes is None:
        return
    given, now = old.value(str(sizes.name)), new.value(str(sizes.name))
    output = old.found.shapes.get(str(node.outputs[0].name), ())
    if given is None or now is None or not given.size or given.ndim != 1:
        return
    target = None
    if node.op_type == "Resize":
        target = _rescaled(given, shapes[0][-len(given) :], shapes[1][-len(given) :])
    elif len(output) == len(given):
        follow = _reshaped if node.op_type == "Reshape" else _expanded
        target = follow(given, output, shapes[0], shapes[1], _scaled_sizes(old, new))
    if target is None:
        raise _fixed(node)
    if (target != now).any():
        _set(model, (node, index), target, now, place, new)


def _set(model: ir.Model, use: tuple[ir.Node, int], target: Array, now: Array, place: int, new: Walk) -> None:
    """Let a node read `target` instead of `now`; of sizes that are put together only the parts that differ change."""
    node, index = use
    sizes = node.inputs[index]
    assert sizes is not None
    joined = sizes.producer()
    if joined is None or joined.op_type != "Concat":
        constant = ir.Value(name=f"{sizes.name}.resized.{place}", const_value=ir.Tensor(target.astype(np.int64)))
        model.graph.register_initializer(constant)
        node.replace_input_with(index, constant)
        new.hold(str(constant.name), target)
        return
    start = 0
    for part, value in enumerate(joined.inputs):
        known = None if value is None else new.value(str(value.name))
        if known is None:
            raise _fixed(node)
        end = start + known.size
        if (target[start:end] != known).any():
            _set(model, (joined, part), target[start:end], known, place, new)
        start = end
    new.visit(joined)


def _fixed(node: ir.Node) -> InputError:
    return InputError(
        f"'{printable(str(node.name or node.outputs[0].name))}' ({node.op_type}) has sizes that are for the input that "
        "the model was exported for; export it for the other size, or with free sizes"
    )


def _pool_whole(node: ir.Node, old: Shape, new: Shape) -> None:
    """Let pooling that takes the whole map take the whole of it again."""
    kernel = node.attributes.get("kernel_shape")
    if kernel is not None and tuple(kernel.as_ints()) == old[2:] and not any(_ints(node, "pads")):
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", new[2:])


def _ints(node: ir.Node, name: str) -> Sequence[int]:
    attribute = node.attributes.get(name)
    return () if attribute is None else attribute.as_ints()


def _scaled_sizes(old: Walk, new: Walk) -> dict[int, int]:
    """Return, by length, what has become of the sides of maps; lengths that became several things are left out."""
    found: dict[int, set[int]] = {}
    for name, shape in new.found.shapes.items():
        before = old.found.shapes.get(name, ())
        if len(shape) == len(before) == 4:
            for first, second in zip(before, shape, strict=True):
                if first != second:
                    found.setdefault(first, set()).add(second)
    return {length: sizes.pop() for length, sizes in found.items() if len(sizes) == 1}


def _reshaped(target: Array, output: Shape, old: Shape, new: Shape, sides: Mapping[int, int]) -> Array | None:
    """Return the target of a Reshape for an input of shape `new`, which made `output` of one of shape `old`.

    Axes of input and output are told apart in runs of as many elements each; a run that has become shorter is one axis
    of the output, or the same axes, or sides of maps that are known.
    """
    found: list[int] = []
    at, to = 0, 0
    while at < len(old) and to < len(output):
        start, first, taken, made = at, to, old[at], output[to]
        at, to = at + 1, to + 1
        while taken != made:
            if taken < made and at < len(old):
                taken, at = taken * old[at], at + 1
            elif made < taken and to < len(output):
                made, to = made * output[to], to + 1
            else:
                return None
        run = _run(old[start:at], new[start:at], output[first:to], sides)
        if run is None:
            return None
        found += run
    if any(size != 1 for size in (*new[at:], *output[to:])):
        return None
    found += output[to:]
    pairs = list(zip(target.tolist(), output, found, strict=True))
    if any(given not in (-1, 0, size) for given, size, _ in pairs):
        return None
    return np.array([given if given in (-1, 0) else size for given, _, size in pairs], np.int64)


def _run(old: Shape, new: Shape, output: Shape, sides: Mapping[int, int]) -> list[int] | None:
    """Return the axes that a run of axes becomes."""
    if old == new:
        return list(output)
    if len(output) == 1:
        return [prod(new)]
    if sum(size != 1 for size in output) == 1:  # one axis, with others of one beside it
        return [size if size == 1 else prod(new) for size in output]
    if old == output:
        return list(new)
    scaled = [sides.get(size, size) for size in output]
    return scaled if prod(scaled) == prod(new) else None


def _expanded(target: Array, output: Shape, old: Shape, new: Shape, sides: Mapping[int, int]) -> Array | None:
    """Return the target of an Expand: axes that are repeated are sides of maps where there are such sides."""
    missing = len(target) - len(new)
    axes = [1] * missing + list(new)
    return np.array([
        sides.get(wanted, wanted) if axis == 1 else min(wanted, axis)
        for wanted, axis in zip(target.tolist(), axes, strict=True)
    ], np.int64)  # fmt: skip


def _rescaled(target: Array, old: Shape, new: Shape) -> Array | None:
    """Return the sizes of a Resize for an input of another shape, None where they aren't whole."""
    found = []
    for wanted, before, now in zip(target.tolist(), old, new, strict=True):
        size, rest = divmod(wanted * now, before)
        if rest:
            return None
        found.append(size)
    return np.array(found, np.int64)
