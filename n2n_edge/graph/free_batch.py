"""Open the batch axis of a model that was exported for one image: training and evaluation feed many at once."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.constant_channels import pad_instead_of_concat
from n2n_edge.graph.fold import fold_static
from n2n_edge.graph.op import op_of
from n2n_edge.graph.open_nodes import open_node
from n2n_edge.graph.shape_run import Array, example_inputs, run_graph, run_graph_each
from n2n_edge.graph.shapes import batch_dim, size_at_one
from n2n_edge.graph.trace import constant_names, static_names, trace_model

__all__ = ["fix_batch", "free_batch"]

_TOLERANCE = 1e-4


def free_batch(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> ir.Model:
    """Return `model` with a free batch axis, or as it is where its batch is free already or can't be freed.

    Ops that spell a batch of one out are made to leave it open. The result is taken only if it gives for several
    different images, of several scales and signs, what the model gives for each of them alone; within the graph, too,
    where an op could mix images and what follows might hide it. `input_shape` as for `example_inputs`.
    """
    inputs = model.graph.inputs
    if not inputs or any(value.shape is None or len(value.shape) < 2 or value.shape[0] != 1 for value in inputs):
        return model
    try:
        opened = _opened(model, input_shape)
        return opened if _image_by_image(model, opened, input_shape) else model
    except InputError:  # what fails here fails again, with its message, where it is needed
        return model


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
        open_node(opened, node, known.shapes)
        for value in node.outputs:
            value.shape = None
    return opened


def _image_by_image(model: ir.Model, opened: ir.Model, input_shape: tuple[int, ...] | None) -> bool:
    """Tell whether `opened` gives for a batch what `model` gives for its images one by one."""
    outputs = {str(value.name) for value in model.graph.outputs}
    static = static_names(opened)
    kept = {str(value.name) for node in model.graph for value in node.outputs}
    compared = outputs | {
        name
        for node in opened.graph
        if not op_of(node).per_image or len(node.outputs) > 1  # a BatchNormalization that learns
        for name in (str(value.name) for value in node.outputs)
        if name in kept and name not in static
    }
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
