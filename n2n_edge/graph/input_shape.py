"""Input shape at which a model is counted and timed where its file leaves height and width free."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.op import op_of
from n2n_edge.graph.shape_run import DEFAULT_SPATIAL_SIZE, Array, in_own_order
from n2n_edge.graph.shapes import Shape, inferred_types
from n2n_edge.reading import parse_json

__all__ = [
    "IMAGE_TYPES", "PREPROCESSING_KEY", "Layout", "SizedModels", "at_one_size", "image_shape", "in_layout",
    "input_layout", "leaves_size_free", "parse_input_shape", "recorded_shape", "shape_words", "with_input_shape",
]  # fmt: skip

InputShape = tuple[int, ...]
"""Sizes of the first input without its batch."""

Layout = Literal["nchw", "nhwc"]

IMAGE_TYPES = (ir.DataType.FLOAT, ir.DataType.UINT8, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
"""Element types that an image may be fed in."""

PREPROCESSING_KEY = "n2n_edge.preprocessing"
"""Metadata of an ONNX file: how its images are prepared, as JSON (see `data.preprocessing.Preprocessing`)."""

_IMAGE_RANK = 3
_CHANNELS = (1, 3, 4)
_TO_CHANNELS_FIRST = (0, 3, 1, 2)

_Declared = tuple[int | None, ...]


def parse_input_shape(text: str) -> InputShape:
    """Return what ``3x224x224`` says; raises InputError for anything else."""
    parts = re.split(r"[x,]", text.strip().lower())
    if not all(part.isdecimal() and part.isascii() and 0 < int(part) < 2**31 for part in parts):
        raise InputError(f"‹input_shape› {text}: not a shape; give positive sizes such as 3x224x224, without the batch")
    return tuple(int(part) for part in parts)


def shape_words(shape: Sequence[int | None]) -> str:
    """Return sizes as they are written on the command line, ``?`` for a free one."""
    return "x".join("?" if size is None else str(size) for size in shape)


def input_layout(model: ir.Model) -> Layout:
    """Return where a model of images has its channels: last if a Transpose brings them to the front, or by sizes."""
    given = next((value for value in model.graph.inputs if not value.is_initializer()), None)
    if given is None or given.shape is None or len(given.shape) != _IMAGE_RANK + 1:
        return "nchw"
    told = {_layout_by(node) for node in _first_readers(given)}
    if len(told) == 1 and (layout := told.pop()) is not None:
        return layout
    if "nchw" in told:
        return "nchw"
    _, first, _, last = given.shape
    return "nhwc" if first not in _CHANNELS and last in _CHANNELS else "nchw"


_MOST_READERS = 64


def _first_readers(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that read `value`, or what elementwise operators make of it with constants."""
    waiting, seen = [use.node for use in value.uses()], 0
    while waiting and seen < _MOST_READERS:
        node, seen = waiting.pop(), seen + 1
        row = op_of(node)
        alone = sum(item is not None and item.const_value is None for item in node.inputs) == 1
        if alone and (row.activation or row.broadcasts or node.op_type == "Cast"):
            waiting += [use.node for output in node.outputs for use in output.uses()]
        else:
            yield node


def _layout_by(node: ir.Node) -> Layout | None:
    """Return where an operator takes its input's channels to be; None where it doesn't tell."""
    if node.op_type == "Transpose":
        return "nhwc" if tuple(node.attributes.get_ints("perm", ()) or ()) == _TO_CHANNELS_FIRST else None
    row = op_of(node)
    spatial = row.kernel in ("conv", "conv_transpose") or row.norm or bool(row.pool)
    return "nchw" if spatial or node.op_type in ("LRN", "GroupNormalization") else None


def image_shape(model: ir.Model) -> tuple[int, int, int]:
    """Return channels, height and width of the images that a model of fixed sizes takes, whatever its layout."""
    given = next(value for value in model.graph.inputs if not value.is_initializer())
    sizes = [size for size in list(given.shape or ())[1:] if isinstance(size, int)]
    channels = sizes.pop() if input_layout(model) == "nhwc" else sizes.pop(0)
    return channels, sizes[0], sizes[1]


def leaves_size_free(model: ir.Model) -> bool:
    """Tell whether the first input leaves a size other than its batch free."""
    declared = _declared(model)
    return declared is not None and None in declared


def recorded_shape(model: ir.Model) -> InputShape | None:
    """Return channels, height and width that a file which leaves sizes free records for its images; else None."""
    declared = _declared(model)
    if declared is None or None not in declared:
        return None
    try:
        document = parse_json(model.metadata_props[PREPROCESSING_KEY])
        shape = (document["channels"], *document["size"])
    except (KeyError, TypeError, ValueError):
        return None
    fits = all(type(size) is int for size in shape) and _fits(declared, shape)
    return shape if fits else None


def in_layout(images: Array, layout: Layout) -> Array:
    """Return a batch ``(N, C, H, W)`` as a model of this layout takes it."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if layout == "nhwc" else images


@dataclass(frozen=True)
class SizedModels:
    """Models with the sizes of their inputs settled, and what to say of it.

    `input_shape` is for runs of those that leave them free; None where each is to be run at 224.
    """

    models: tuple[ir.Model, ...]
    input_shape: InputShape | None
    notes: tuple[str, ...]


def with_input_shape(model: ir.Model, input_shape: InputShape | None, name: str = "the model") -> ir.Model:
    """Return `model` with the free sizes of its first input fixed, in place; as it is where nothing is free or told.

    None stands for the shape that it records (see `recorded_shape`).

    Raises:
        InputError: the shape doesn't fit, or the network can't run at that size.
    """
    declared = _declared(model)
    input_shape = recorded_shape(model) if input_shape is None else input_shape
    if input_shape is None or declared is None:
        return model
    fitted = in_own_order(declared, input_shape)
    if fitted is None:
        raise InputError(
            f"input shape {shape_words(input_shape)} doesn't fit the input '{model.graph.inputs[0].name}' of {name}, "
            f"which is {shape_words(declared)}"
        )
    if None not in declared:
        return model
    return _fixed(model, fitted, name)


def at_one_size(models: Sequence[tuple[str, ir.Model]], asked: InputShape | None = None) -> SizedModels:
    """Settle the sizes of models that are compared: those that leave them free take `asked`, or the others' one size.

    Without others it is the size that one of them records (see `recorded_shape`); where nobody says, 224. Models come
    with the names that notes call them by, and are changed in place.

    Raises:
        InputError: `asked` doesn't fit one of them, or one can't run at its size.
    """
    declared = [_declared(model) for _, model in models]
    recorded = [recorded_shape(model) for _, model in models]
    known = {sizes for sizes in declared if sizes is not None and None not in sizes}
    known = known or {sizes for sizes in recorded if sizes is not None}
    free = [sizes for sizes in declared if sizes is not None and None in sizes]
    common = asked
    if asked is None and len(known) == 1:
        common = tuple(size for size in next(iter(known)) if size is not None)
        if not all(_fits(sizes, common) for sizes in free):
            common = None
    notes, used = [], set()
    for (name, model), sizes, record in zip(models, declared, recorded, strict=True):
        if sizes is None:
            continue
        shape = common if common is not None and (asked is not None or None in sizes) else _assumed(sizes)
        with_input_shape(model, shape, name)
        used.add(shape)
        if None in sizes and asked is None:
            why = "like the other model" if shape == common else "give --input-shape for another size"
            if shape == record:
                why = "as its metadata record"
            notes.append(f"{name}: leaves the size of its input free; counted and timed at {shape_words(shape)}, {why}")
    images = [shape for shape in used if len(shape) == _IMAGE_RANK]
    if len(images) > 1:
        every = ", ".join(sorted(map(shape_words, images)))
        notes.append(f"the models take inputs of different sizes ({every}): each is counted and timed at its own")
    return SizedModels(tuple(model for _, model in models), common if free else None, tuple(notes))


def _declared(model: ir.Model) -> _Declared | None:
    """Return the sizes of the first input without its batch, None for a free one; None where that isn't known."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if not inputs or inputs[0].shape is None or len(inputs[0].shape) < 2:
        return None
    return tuple(size if isinstance(size, int) and size > 0 else None for size in list(inputs[0].shape)[1:])


def _fits(declared: _Declared, shape: InputShape) -> bool:
    return in_own_order(declared, shape) is not None


def _assumed(declared: _Declared) -> InputShape:
    return tuple(DEFAULT_SPATIAL_SIZE if size is None else size for size in declared)


def _fixed(model: ir.Model, shape: InputShape, name: str) -> ir.Model:
    source = next(value for value in model.graph.inputs if not value.is_initializer())
    assert source.shape is not None
    source.shape = ir.Shape([source.shape[0], *shape])
    for node in model.graph:
        for value in node.outputs:
            value.shape = None  # noted for another size, or for any
    reason = _impossible(model, inferred_types(model).shapes)
    if reason:
        raise InputError(f"{name}: can't run at {shape_words(shape)} ({reason}); give the ‹input_shape› that it is for")
    return model


def _impossible(model: ir.Model, shapes: Mapping[str, Shape]) -> str:
    """Say at which node sizes don't go together, of those that depend on the input's size most: empty for none."""
    for node in model.graph:
        found = [shapes.get(str(value.name)) for value in node.inputs if value is not None]
        sizes = [size for size in found if size is not None]
        if not sizes or len(sizes) < len(found) or not _contradicts(node, sizes, shapes.get(str(node.outputs[0].name))):
            continue
        return f"{node.op_type} '{node.name or node.outputs[0].name}' gets {' and '.join(map(str, sizes[:2]))}"
    return ""


def _contradicts(node: ir.Node, sizes: list[Shape], output: Shape | None) -> bool:
    first = sizes[0]
    if node.op_type == "Reshape":
        return output is not None and prod(output) != prod(first)
    if len(sizes) < 2 or not first or not sizes[1]:
        return False
    second = sizes[1]
    if node.op_type == "Gemm":
        rows = first[0] if node.attributes.get_int("transA", 0) else first[-1]
        return rows != (second[-1] if node.attributes.get_int("transB", 0) else second[0])
    if node.op_type == "MatMul":
        return first[-1] != (second[-2] if len(second) > 1 else second[0])
    if op_of(node).arithmetic:
        return any(
            1 not in (a, b) and a != b for a, b in zip(reversed(first), reversed(second), strict=False)
        )  # fmt: skip
    if node.op_type == "Concat":
        axis = node.attributes.get_int("axis", 0) % len(first)
        return len({(*size[:axis], *size[axis + 1 :]) for size in sizes}) > 1
    return False
