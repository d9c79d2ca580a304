"""Shapes of every value of a graph for a batch of one."""

import onnx
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.witness import DEFAULT_SPATIAL_SIZE, witness, witness_inputs

__all__ = ["Shape", "batch_dim", "is_constant", "shapes_of", "size_at_one"]

Shape = tuple[int, ...]

_BATCH = "N"


def batch_dim(size_at_one: int) -> str:
    """Name an axis that grows with the batch and has `size_at_one` for a batch of one: ``N``, or ``N*49``."""
    return _BATCH if size_at_one == 1 else f"{_BATCH}*{size_at_one}"


def is_constant(value: ir.Value) -> bool:
    """Tell whether `value` is an initializer or the output of a Constant node."""
    return value.const_value is not None


def shapes_of(model: ir.Model) -> dict[str, Shape]:
    """Return the shape of every value by name, free axes counted as one.

    Shapes noted in the model are taken as they are; where some are missing, ONNX shape inference supplies them, and
    where that can't, one run of ONNX Runtime does.
    """
    shapes = _noted(model)
    if all(str(value.name) in shapes for node in model.graph for value in node.outputs if value.name):
        return shapes
    shapes |= _inferred(model)
    if all(str(value.name) in shapes for node in model.graph for value in node.outputs if value.name):
        return shapes
    seen = witness(model, witness_inputs(model, batch=1))
    return shapes | {name: tuple(array.shape) for name, array in seen.items()}


def _noted(model: ir.Model) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    for value in values:
        if value.const_value is not None:
            shapes[str(value.name)] = tuple(int(size) for size in value.const_value.shape.numpy())
        elif value.shape is not None:
            sizes = tuple(size_at_one(size, axis) for axis, size in enumerate(value.shape))
            if None not in sizes:
                shapes[str(value.name)] = tuple(size for size in sizes if size is not None)
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


def _inferred(model: ir.Model) -> dict[str, Shape]:
    proto = ir.to_proto(model)
    for value in proto.graph.input:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.WhichOneof("value") != "dim_value" or size.dim_value < 1:
                size.dim_value = DEFAULT_SPATIAL_SIZE if axis else 1
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        first = str(error).strip().split("\n")[0]
        raise InputError(f"shapes of the model can't be inferred ({first}); export it again") from error
    return {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.HasField("shape")
        and all(size.WhichOneof("value") == "dim_value" for size in value.type.tensor_type.shape.dim)
    }
