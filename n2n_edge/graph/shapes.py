"""Shapes of every value of a graph for a batch of one."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from n2n_edge.graph.bodies import initializers_of
from n2n_edge.graph.infer import infer, is_countable
from n2n_edge.graph.witness import input_sizes, types_by_running, witness_inputs

__all__ = [
    "Shape",
    "Types",
    "batch_dim",
    "batch_of",
    "inferred_types",
    "is_complete",
    "is_constant",
    "shapes_of",
    "size_at_one",
    "types_of",
]

Shape = tuple[int, ...]

_BATCH = "N"


def batch_dim(size_at_one: int) -> str:
    """Name an axis that grows with the batch and has `size_at_one` for a batch of one: ``N``, or ``N*49``."""
    return _BATCH if size_at_one == 1 else f"{_BATCH}*{size_at_one}"


def batch_of(model: ir.Model) -> int:
    """Return how many images a model takes at a time: what it fixes, or one where it leaves that open."""
    for value in model.graph.inputs:
        if value.const_value is None and value.shape is not None and len(value.shape) > 1:
            first = value.shape[0]
            return first if isinstance(first, int) and first > 1 else 1
    return 1


def is_constant(value: ir.Value) -> bool:
    """Tell whether `value` is an initializer or the output of a Constant node."""
    return value.const_value is not None


@dataclass(frozen=True)
class Types:
    """Shapes and ONNX element types of tensors by name; `complete` says that no tensor's shape is missing."""

    shapes: Mapping[str, Shape]
    kinds: Mapping[str, int]
    complete: bool


def types_of(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> Types:
    """Return the types of all tensors, free axes counted as in `input_sizes` for a batch of one.

    Shapes noted in the model are taken as they are; where some are missing, inference supplies them, and where that
    can't, one run of ONNX Runtime in a child process does.

    Raises:
        InputError: ONNX Runtime can't run the model.
        LimitExceededError: the run needs too much time or memory.
    """
    inferred = inferred_types(model, input_shape)
    if inferred.complete:
        return inferred
    seen, _ = types_by_running(model, witness_inputs(model, 1, input_shape), ())
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(dtype) for name, (dtype, _) in seen.items()}
    shapes = {name: shape for name, (_, shape) in seen.items()}
    return Types({**inferred.shapes, **shapes}, {**inferred.kinds, **kinds}, complete=True)


def inferred_types(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> Types:
    """Return what `types_of` does as far as the graph itself tells: nothing is run."""
    noted = _noted(model)
    if input_shape is None and is_complete(model, noted):
        return Types(noted, {}, complete=True)
    found = infer(model, input_sizes(model, 1, input_shape))
    return Types(found.shapes, found.kinds, not found.unknown)


def shapes_of(model: ir.Model) -> dict[str, Shape]:
    """Return the shape of every tensor by name; see `types_of`."""
    return dict(types_of(model).shapes)


def is_complete(model: ir.Model, shapes: Mapping[str, Shape]) -> bool:
    """Tell whether `shapes` holds every tensor that nodes give; sequences, maps and optionals have none."""
    return all(
        value.name in shapes or not _is_tensor(value) for node in model.graph for value in node.outputs if value.name
    )


def _is_tensor(value: ir.Value) -> bool:
    return value.type is None or isinstance(value.type, ir.TensorType | ir.SparseTensorType)


def _noted(model: ir.Model) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    values = [*model.graph.inputs, *initializers_of(model)]
    values += [value for node in model.graph for value in node.outputs]
    for value in values:
        if value.const_value is not None:
            shapes[str(value.name)] = tuple(int(size) for size in value.const_value.shape.numpy())
        elif value.shape is not None:
            sizes = tuple(size_at_one(size, axis) for axis, size in enumerate(value.shape))
            shape = tuple(size for size in sizes if size is not None)
            if len(shape) == len(sizes) and is_countable(shape):
                shapes[str(value.name)] = shape
    return shapes


def size_at_one(size: int | ir.SymbolicDim, axis: int = 1) -> int | None:
    """Return the size for a batch of one, or None where it can't be told."""
    if isinstance(size, int):
        return size if size >= 0 else (1 if axis == 0 else None)
    name = str(size.value)
    if name == _BATCH:
        return 1
    if name.startswith(f"{_BATCH}*") and name[2:].isdecimal():
        return int(name[2:])
    return 1 if axis == 0 else None
