"""Axes that a teacher leaves free: the batch's name, and whether students can leave height and width free, too."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from n2n_edge.errors import InputError, LimitExceededError
from n2n_edge.graph.input_shape import input_layout
from n2n_edge.graph.normalise import normalise
from n2n_edge.graph.shapes import batch_dim, size_at_one
from n2n_edge.graph.teacher import Teacher

__all__ = ["FreeSize", "batch_name", "free_size", "with_batch_name", "with_free_size"]


@dataclass(frozen=True)
class FreeSize:
    """Another shape ``(C, H, W)`` at which a student holds, and the model whose inputs and outputs it declares."""

    shape: tuple[int, int, int]
    source: ir.Model


def free_size(teacher: Teacher) -> FreeSize | None:
    """Return what proves that the analysed graph is the very same for another size of the first input.

    None where the input's sizes are fixed, or the graph holds constants that follow from them: then it is for one size
    alone. Sizes that are no round numbers are tried first.
    """
    declared = list(teacher.source.graph.inputs[0].shape or ())[1:]
    now = [size_at_one(size) or 0 for size in list(teacher.model.graph.inputs[0].shape or ())[1:]]
    free = [axis for axis, size in enumerate(declared) if not isinstance(size, int) or size < 1]
    if not free or len(now) != 3 or len(declared) != 3:
        return None
    for sizes in _sizes(now, free):
        try:
            if _is_the_same(teacher.model, normalise(teacher.source, sizes)):
                channels, height, width = (*sizes[2:], *sizes[:2]) if input_layout(teacher.model) == "nhwc" else sizes
                return FreeSize((channels, height, width), teacher.source)
        except (InputError, LimitExceededError):
            continue
    return None


def with_free_size(model: ir.Model, source: ir.Model) -> ir.Model:
    """Return a copy of a student `model` whose inputs and outputs have, but for the batch, the sizes of `source`."""
    model = model.clone()
    for values, others in ((model.graph.inputs, source.graph.inputs), (model.graph.outputs, source.graph.outputs)):
        for value, other in zip(values, others, strict=False):
            if value.shape is not None and other.shape is not None and len(value.shape) == len(other.shape):
                value.shape = ir.Shape([value.shape[0], *list(other.shape)[1:]])
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    return model


def batch_name(source: ir.Model) -> str:
    """Return how a model calls its batch axis, ``N`` where it has no name."""
    shape = source.graph.inputs[0].shape
    first = shape[0] if shape is not None and len(shape) else None
    return batch_dim(1) if first is None or isinstance(first, int) or not first.value else str(first.value)


def with_batch_name(model: ir.Model, name: str) -> ir.Model:
    """Return a copy of a student `model` whose batch axis is called `name`: programs ask for axes by their names."""
    model = model.clone()
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(size, name) for size in value.shape])
    return model


def _renamed(size: int | ir.SymbolicDim, name: str) -> int | str | None:
    if isinstance(size, int):
        return size
    word, times, factor = str(size.value).partition("*")
    return f"{name}{times}{factor}" if word == batch_dim(1) else size.value


def _sizes(now: list[int], free: list[int]) -> Iterator[tuple[int, ...]]:
    for odd, even in ((19, 37), (32, 64), (64, 128)):
        sizes = list(now)
        for place, axis in enumerate(free):
            sizes[axis] += odd if place % 2 == 0 else even
        yield tuple(sizes)


def _is_the_same(first: ir.Model, second: ir.Model) -> bool:
    if len(first.graph) != len(second.graph) or first.graph.initializers.keys() != second.graph.initializers.keys():
        return False
    return all(_node(a) == _node(b) for a, b in zip(first.graph, second.graph, strict=True)) and all(
        _equal(value.const_value, second.graph.initializers[name].const_value)
        for name, value in first.graph.initializers.items()
    )


def _node(node: ir.Node) -> tuple[object, ...]:
    attributes = sorted((name, repr(attribute.value)) for name, attribute in node.attributes.items())
    return node.domain, node.op_type, [value and value.name for value in node.inputs], attributes


def _equal(first: ir.TensorProtocol | None, second: ir.TensorProtocol | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.dtype == second.dtype and np.array_equal(first.numpy(), second.numpy())
