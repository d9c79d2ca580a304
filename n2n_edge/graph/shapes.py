"""Shapes of every value of a graph for a batch of one."""

from collections.abc import Mapping

import onnx_ir as ir

from n2n_edge.graph.infer import infer
from n2n_edge.graph.witness import input_sizes, types_by_running, witness_inputs

__all__ = ["Shape", "batch_dim", "inferred_shapes", "is_complete", "is_constant", "shapes_of"]

Shape = tuple[int, ...]

_BATCH = "N"


def batch_dim(size_at_one: int) -> str:
    """Name an axis that grows with the batch and has `size_at_one` for a batch of one: ``N``, or ``N*49``."""
    return _BATCH if size_at_one == 1 else f"{_BATCH}*{size_at_one}"


def is_constant(value: ir.Value) -> bool:
    """Tell whether `value` is an initializer or the output of a Constant node."""
    return value.const_value is not None


def shapes_of(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> dict[str, Shape]:
    """Return the shape of every tensor by name, free axes counted as one, or as in `input_sizes`.

    Shapes noted in the model are taken as they are; where some are missing, inference supplies them, and where that
    can't, one run of ONNX Runtime in a child process does.

    Raises:
        InputError: ONNX Runtime can't run the model.
        LimitExceededError: the run needs too much time or memory.
    """
    shapes = inferred_shapes(model, input_shape)
    if not is_complete(model, shapes):
        types, _ = types_by_running(model, witness_inputs(model, 1, input_shape), ())
        shapes |= {name: shape for name, (_, shape) in types.items()}
    return shapes


def inferred_shapes(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> dict[str, Shape]:
    """Return what `shapes_of` does as far as the model itself tells: nothing is run."""
    shapes = _noted(model) if input_shape is None else {}
    if not is_complete(model, shapes):
        shapes = {**_noted_weights(model), **infer(model, input_sizes(model, 1, input_shape)).shapes}
    return shapes


def is_complete(model: ir.Model, shapes: Mapping[str, Shape]) -> bool:
    """Tell whether `shapes` holds every tensor that nodes give; sequences, maps and optionals have none."""
    return all(
        value.name in shapes or not _is_tensor(value) for node in model.graph for value in node.outputs if value.name
    )


def _is_tensor(value: ir.Value) -> bool:
    return value.type is None or isinstance(value.type, ir.TensorType | ir.SparseTensorType)


def _noted_weights(model: ir.Model) -> dict[str, Shape]:
    return {
        str(value.name): tuple(int(size) for size in value.const_value.shape.numpy())
        for value in model.graph.initializers.values()
        if value.const_value is not None
    }


def _noted(model: ir.Model) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    for value in values:
        if value.const_value is not None:
            shapes[str(value.name)] = tuple(int(size) for size in value.const_value.shape.numpy())
        elif value.shape is not None:
            sizes = tuple(_size(size, axis) for axis, size in enumerate(value.shape))
            if None not in sizes:
                shapes[str(value.name)] = tuple(size for size in sizes if size is not None)
    return shapes


def _size(size: int | ir.SymbolicDim, axis: int) -> int | None:
    """Return the size for a batch of one, or None where it can't be told."""
    if isinstance(size, int):
        return size if size >= 0 else (1 if axis == 0 else None)
    name = str(size.value)
    if name == _BATCH:
        return 1
    if name.startswith(f"{_BATCH}*") and name[2:].isdecimal():
        return int(name[2:])
    return 1 if axis == 0 else None
