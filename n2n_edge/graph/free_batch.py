"""Opening of the batch axis of a model that was exported for one image: training and evaluation feed many at once."""

from collections.abc import Iterator, Mapping, Sequence
from math import floor, prod

import numpy as np
import onnx_ir as ir

from n2n_edge.errors import InputError, LimitExceededError
from n2n_edge.graph.constant_channels import pad_instead_of_concat
from n2n_edge.graph.fold import fold_static
from n2n_edge.graph.infer import infer
from n2n_edge.graph.op import op_of
from n2n_edge.graph.operands import constant_ints, opset_of, pads_positions_only
from n2n_edge.graph.shape_run import Array, example_inputs, input_sizes, run_graph, run_graph_each
from n2n_edge.graph.shapes import batch_dim, constant_names, size_at_one, static_names, trace_model

__all__ = ["fix_batch", "free_batch", "takes_one_image"]

_TOLERANCE = 1e-4

_MOST_COMPARED = 3e7
"""Elements of one image that are compared within a graph, the smallest values first: of large networks not all."""


def free_batch(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> ir.Model:
    """Return `model` with a free batch axis, or as it is where its batch is free already or can't be freed.

    Ops that spell a batch of one out are made to leave it open. The result is taken only if it gives for several
    different images, of several scales and signs, what the model gives for each of them alone; within the graph, too,
    where an op could mix images and what follows might hide it, as far as there is memory. `input_shape` as for
    `example_inputs`.
    """
    inputs = model.graph.inputs
    if not inputs or any(value.shape is None or len(value.shape) < 2 or value.shape[0] != 1 for value in inputs):
        return model
    try:
        opened = _opened(model, input_shape)
        return opened if _image_by_image(model, opened, input_shape) else model
    except (InputError, LimitExceededError):  # what fails here fails again, with its message, where it is needed
        return model


def takes_one_image(model: ir.Model) -> bool:
    """Tell whether the batch of a model's first input is fixed at one."""
    given = next((value for value in model.graph.inputs if not value.is_initializer()), None)
    return given is not None and given.shape is not None and len(given.shape) > 1 and given.shape[0] == 1


def fix_batch(model: ir.Model) -> ir.Model:
    """Return a copy of `model` that takes one image at a time, as a file did whose batch was opened.

    Inputs and outputs say so; nothing else changes, so boards' converters that need static axes find them.
    """
    fixed = model.clone()
    for value in (*fixed.graph.inputs, *fixed.graph.outputs):
        if value.shape is not None:
            sizes = [size_at_one(size) for size in value.shape]
            value.shape = ir.Shape(
                [old if size is None else size for old, size in zip(value.shape, sizes, strict=True)]
            )
    return fixed


def _opened(model: ir.Model, input_shape: tuple[int, ...] | None) -> ir.Model:
    opened = model.clone()
    one = example_inputs(model, 1, input_shape)
    known = trace_model(opened, one)
    pad_instead_of_concat(opened, known, known)
    fold_static(opened, known, known, constant_names(opened))
    for value in opened.graph.inputs:
        assert value.shape is not None
        value.shape = ir.Shape([batch_dim(1), *list(value.shape)[1:]])
    for node in list(opened.graph):
        _open_node(opened, node, known.shapes)
        for value in node.outputs:
            value.shape = None
    return opened


def _image_by_image(model: ir.Model, opened: ir.Model, input_shape: tuple[int, ...] | None) -> bool:
    """Tell whether `opened` gives for a batch what `model` gives for its images one by one."""
    outputs = {str(value.name) for value in model.graph.outputs}
    compared = outputs | _compared_within(model, opened, input_shape)
    for images in _image_batches(example_inputs(model, 1, input_shape)):
        alone = list(run_graph_each(model, images, compared))
        joined = {name: np.concatenate([image[name] for image in images]) for name in images[0]}
        together = run_graph(opened, joined, compared)
        if not outputs <= together.keys() or any(not outputs <= one.keys() for one in alone):
            return False
        for name, batch in together.items():
            if all(name in one for one in alone) and not _holds_each(
                batch, [one[name] for one in alone], leading=name in outputs
            ):
                return False
    return True


def _compared_within(model: ir.Model, opened: ir.Model, input_shape: tuple[int, ...] | None) -> set[str]:
    """Return the values of both graphs that an op gives which could mix images."""
    static = static_names(opened)
    shapes = infer(model, input_sizes(model, 1, input_shape)).shapes
    sizes = {
        name: prod(shapes.get(name, ()))
        for name in (str(value.name) for node in model.graph for value in node.outputs)
        if name not in static
    }
    names = {
        name
        for node in opened.graph
        if not _works_within_images(node, shapes) or len(node.outputs) > 1  # a BatchNormalization that learns
        for name in (str(value.name) for value in node.outputs)
        if name in sizes
    }
    chosen: set[str] = set()
    elements = 0
    for name in sorted(names, key=lambda name: (sizes[name], name)):
        elements += sizes[name]
        if elements > _MOST_COMPARED:
            break
        chosen.add(name)
    return chosen


def _works_within_images(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    source = node.inputs[0] if node.inputs else None
    rank = 0 if source is None else len(shapes.get(str(source.name), ()))
    return op_of(node).per_image or (node.op_type == "Pad" and pads_positions_only(node, rank))


def _image_batches(like: Mapping[str, Array]) -> Iterator[list[dict[str, Array]]]:
    """Yield two batches, of three images and of two, that differ in scale and sign; `like` holds inputs for one image.

    Integer inputs of one byte are taken for pixels; other integers, such as sizes, stay as they are.
    """
    generator = np.random.default_rng(0)

    def varied(array: Array, scale: float, offset: float) -> Array:
        if np.issubdtype(array.dtype, np.floating):
            noise: Array = np.asarray(generator.standard_normal(array.shape) * scale + offset, array.dtype)
            return noise
        if array.dtype in (np.uint8, np.int8):
            return np.asarray(generator.integers(0, 127, array.shape), array.dtype)
        return array

    for scales in (((1, 0), (-3, 1), (0.3, -1)), ((1, 2), (40, 0))):
        yield [{name: varied(array, scale, offset) for name, array in like.items()} for scale, offset in scales]


def _holds_each(batch: Array, alone: Sequence[Array], *, leading: bool) -> bool:
    """Tell whether `batch` holds, along one axis, the arrays of single images; along the first one if `leading`."""
    one = alone[0]
    if any(array.shape != one.shape for array in alone):  # as many as were found in each image
        return batch.ndim > 0 and _close(batch, np.concatenate(alone), alone)
    if batch.shape == one.shape:  # has no part in the batch: the same for all images, or wrong
        return not leading and all(_close(batch, array, [array]) for array in alone)
    if batch.ndim != one.ndim:
        return False
    count = len(alone)
    grown = [axis for axis in range(one.ndim) if batch.shape[axis] != one.shape[axis]]
    if len(grown) != 1 or batch.shape[grown[0]] != count * one.shape[grown[0]] or (leading and grown != [0]):
        return False
    axis = grown[0]
    if _close(batch, np.concatenate(alone, axis), alone):
        return True
    # an axis that was merged with the batch behind it: the images take turns
    return not leading and _close(batch, np.stack(alone, axis + 1).reshape(batch.shape), alone)


def _close(batch: Array, expected: Array, alone: Sequence[Array]) -> bool:
    if batch.shape != expected.shape:
        return False
    if not np.issubdtype(batch.dtype, np.floating):
        return bool(np.array_equal(batch, expected))
    if not np.array_equal(np.isfinite(batch), np.isfinite(expected)):
        return False
    # the image of the smallest values sets the bound: a large one would hide what it lends to the others
    finite = [np.abs(array[np.isfinite(array)]).max(initial=0) for array in alone]
    bound = _TOLERANCE * np.abs(expected) + _TOLERANCE * min(finite) + 1e-7
    with np.errstate(invalid="ignore"):
        return bool(np.all((np.abs(batch - expected) <= bound) | ~np.isfinite(expected)))


def _open_node(model: ir.Model, node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Rewrite `node`, in place, into one that does for every image what it does for one, if it has such a form.

    `shapes` are those for a batch of one. What is made of it has to be checked: the first axis of a value may be
    another one than the batch.
    """
    source = node.inputs[0] if node.inputs else None
    if node.domain not in ("", "ai.onnx"):
        return
    if node.op_type in ("Concat", "GridSample"):
        _repeat_constants(model, node, shapes)
    shape = shapes.get(str(source.name), ()) if source is not None else ()
    if not shape:
        return
    if node.op_type == "Reshape":
        _open_reshape(model, node)
    elif shape[0] != 1:
        return
    elif node.op_type == "Resize":
        _open_resize(model, node, shape)
    elif node.op_type == "Slice":
        _open_slice(model, node)
    elif node.op_type == "MeanVarianceNormalization" or node.op_type.startswith("Reduce"):
        _open_reduction(model, node, len(shape))


def _repeat_constants(model: ir.Model, node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Repeat for every image what a Concat or a GridSample reads beside the images: a class token, a grid."""
    sizes = {index: _shape(value, shapes) for index, value in enumerate(node.inputs) if value is not None}
    constant = [index for index in sizes if (value := node.inputs[index]) is not None and value.const_value is not None]
    images = [value for index, value in enumerate(node.inputs) if value is not None and index not in constant]
    along_batch = node.op_type == "Concat" and node.attributes.get_int("axis", 0) in (0, -len(sizes[0]))
    if not constant or not images or along_batch or opset_of(node) < 10:
        return
    if any(size[:1] != (1,) for size in sizes.values()):
        return
    for index in constant:
        value = node.inputs[index]
        assert value is not None
        node.replace_input_with(index, _repeated(model, node, value, sizes[index], images[0]))


def _shape(value: ir.Value, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    if value.const_value is not None:
        return tuple(int(size) for size in value.const_value.shape.numpy())
    return shapes.get(str(value.name), ())


def _repeated(model: ir.Model, node: ir.Node, value: ir.Value, size: tuple[int, ...], like: ir.Value) -> ir.Value:
    """Return `value` as often as `like` has images."""
    name = f"{node.outputs[0].name}.{value.name}"
    constants = {}
    for label, numbers in (("from", [0]), ("to", [1]), ("rest", list(size[1:]))):
        constants[label] = _registered(model, f"{name}.{label}", np.array(numbers, np.int64))
    shape = ir.Node("", "Shape", [like])
    count = ir.Node("", "Slice", [shape.outputs[0], constants["from"], constants["to"]])
    target = ir.Node("", "Concat", [count.outputs[0], constants["rest"]], [ir.AttrInt64("axis", 0)])
    expand = ir.Node("", "Expand", [value, target.outputs[0]])
    for label, made in (("shape", shape), ("count", count), ("target", target), ("repeated", expand)):
        made.name = made.outputs[0].name = f"{name}.{label}"
        model.graph.insert_before(node, made)
    return expand.outputs[0]


def _constant(model: ir.Model, node: ir.Node, index: int, array: np.ndarray) -> None:
    node.replace_input_with(index, _registered(model, f"{node.outputs[0].name}.open{index}", array))


def _registered(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Return a new initializer; a student that is opened again has those of the first time."""
    while name in model.graph.initializers:
        name += "_"
    constant = ir.Value(name=name, const_value=ir.tensor(array))
    model.graph.register_initializer(constant)
    return constant


def _open_reshape(model: ir.Model, node: ir.Node) -> None:
    target = constant_ints(node, 1)
    if not target or target[0] != 1:
        return
    # 0 copies the batch from the input; -1 is free to be used where nothing else is inferred
    _constant(model, node, 1, np.array([0 if -1 in target else -1, *target[1:]], np.int64))
    node.attributes.pop("allowzero", None)


def _open_resize(model: ir.Model, node: ir.Node, shape: tuple[int, ...]) -> None:
    """Give the scales that lead to the sizes, where the runtime's own arithmetic comes to the same ones."""
    sizes = constant_ints(node, 3)
    if not sizes or len(sizes) != len(shape) or sizes[0] != 1 or "axes" in node.attributes:
        return
    if opset_of(node) >= 18:  # the batch can be left out
        node.attributes["axes"] = ir.AttrInt64s("axes", list(range(1, len(shape))))
        _constant(model, node, 3, np.array(sizes[1:], np.int64))
        return
    scales = np.array([size / old for size, old in zip(sizes, shape, strict=True)], np.float32)
    if all(
        floor(float(scale * np.float32(old))) == size for scale, old, size in zip(scales, shape, sizes, strict=True)
    ):
        _constant(model, node, 2, scales)
        node.replace_input_with(3, None)
        node.resize_inputs(3)


def _open_slice(model: ir.Model, node: ir.Node) -> None:
    """Leave the batch out of a Slice that takes the first, or last, of one image: all there is."""
    if len(node.inputs) < 3:  # attributes of opset 9 and older
        return
    starts, ends = constant_ints(node, 1), constant_ints(node, 2)
    if starts is None or ends is None:
        return
    axes = constant_ints(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else tuple(range(len(starts)))
    if axes is None or 0 not in axes:
        return
    at = axes.index(0)
    if starts[at] in (0, -1) and ends[at] >= 1:
        _constant_at(model, node, 1, starts, at, 0)
        _constant_at(model, node, 2, ends, at, 2**63 - 1)


def _constant_at(model: ir.Model, node: ir.Node, index: int, values: tuple[int, ...], at: int, new: int) -> None:
    changed = [new if place == at else value for place, value in enumerate(values)]
    _constant(model, node, index, np.array(changed, np.int64))


def _open_reduction(model: ir.Model, node: ir.Node, rank: int) -> None:
    """Leave the batch out of what is reduced: over one image the two are the same, the axis being kept."""
    norm = node.op_type == "MeanVarianceNormalization"
    if not norm and node.attributes.get_int("keepdims", 1) != 1:
        return
    given = node.attributes.get_ints("axes", None) or constant_ints(node, 1)
    if given is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        return
    if not given and node.attributes.get_int("noop_with_empty_axes", 0) == 1:
        return
    axes = [axis % rank for axis in given or ((0, 2, 3) if norm else range(rank))]
    if 0 not in axes:
        return
    rest = [axis for axis in axes if axis]
    if not rest:
        return
    as_input = not norm and (opset_of(node) >= 18 or (node.op_type == "ReduceSum" and opset_of(node) >= 13))
    if as_input:
        node.resize_inputs(2)
        _constant(model, node, 1, np.array(rest, np.int64))
    else:
        node.attributes["axes"] = ir.AttrInt64s("axes", rest)
