"""Shapes and types of every value of a graph, and the content of those that no input has a part in.

Inference and one session on the few nodes that calculate with constants and shapes tell that in milliseconds for most
models; where they can't, one run of the whole model does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.bind import bound_names
from n2n_edge.graph.infer import Inferred, infer, is_countable, is_random, measured, skeleton
from n2n_edge.graph.op import op_of
from n2n_edge.graph.shape_run import Array, example_inputs, input_sizes, is_bounded, session_for, types_by_running
from n2n_edge.graph.subgraphs import holds_graph, initializers_of

__all__ = [
    "Shape", "Trace", "Types", "batch_dim", "batch_of", "constant_names", "inferred_types", "is_constant",
    "shapes_of", "size_at_one", "static_names", "trace_model", "types_of",
]  # fmt: skip

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
    seen, _ = types_by_running(model, example_inputs(model, 1, input_shape), ())
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(dtype) for name, (dtype, _) in seen.items()}
    shapes = {name: shape for name, (_, shape) in seen.items()}
    return Types({**inferred.shapes, **shapes}, {**inferred.kinds, **kinds}, complete=True)


def inferred_types(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> Types:
    """Return what `types_of` does as far as the graph itself tells: nothing is run."""
    if input_shape is None and _is_noted(model) and _is_complete(model, noted := _noted(model)):
        return Types(noted, {}, complete=True)
    found = infer(model, input_sizes(model, 1, input_shape))
    return Types(found.shapes, found.kinds, not found.unknown)


def shapes_of(model: ir.Model) -> dict[str, Shape]:
    """Return the shape of every tensor by name; see `types_of`."""
    return dict(types_of(model).shapes)


def _is_noted(model: ir.Model) -> bool:
    """Tell whether something is noted of the shape of every tensor, be it only the names of its axes."""
    outputs = (value for node in model.graph for value in node.outputs if value.name)
    return all(value.shape is not None or not _is_tensor(value) for value in outputs)


def _is_complete(model: ir.Model, shapes: Mapping[str, Shape]) -> bool:
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


_SPARE_ELEMENTS = 2**24
"""How many elements constants may be calculated to, besides four times those of the weights."""


@dataclass(frozen=True)
class Trace:
    """Shapes and types by value name, and the content of values that follow from constants and shapes alone."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[np.generic]]
    values: Mapping[str, Array]


def trace_model(model: ir.Model, inputs: Mapping[str, Array], *, runnable: bool = False) -> Trace:
    """Return the trace of `model` for inputs of these shapes; `runnable` says that ONNX Runtime is known to take it.

    Content that would be far larger than the model's own weights is left out.

    Raises:
        InputError: ONNX Runtime can't run the model.
        LimitExceededError: a run that it takes needs too much time or memory.
    """
    sizes = {name: tuple(array.shape) for name, array in inputs.items()}
    found = infer(model, sizes)
    if not found.unknown:
        try:
            if not runnable and not any(op_of(node).is_from_outside for node in model.graph):
                session_for(skeleton(model, sizes))  # refuses what ONNX Runtime doesn't have
            return Trace(found.shapes, found.dtypes, _static_values(model, found))
        except (InputError, _UntoldError):
            pass  # the run tells, or fails with the message that counts
    names = {str(value.name) for node in _static_nodes(model) for value in node.outputs if value.name}
    types, values = types_by_running(model, inputs, names)
    shapes = {name: shape for name, (_, shape) in types.items()}
    return Trace(shapes, {name: dtype for name, (dtype, _) in types.items()}, values)


class _UntoldError(Exception):
    """A session doesn't give what inference has promised."""


def constant_names(model: ir.Model) -> frozenset[str]:
    """Return the values that follow from constants alone, whatever the shapes of the inputs."""
    return frozenset(str(value.name) for node in _static_nodes(model, shapes=False) for value in node.outputs)


def static_names(model: ir.Model) -> frozenset[str]:
    """Return the values that follow from constants and from the shapes of the inputs alone."""
    return frozenset(str(value.name) for node in _static_nodes(model) for value in node.outputs if value.name)


def _static_nodes(model: ir.Model, *, shapes: bool = True) -> list[ir.Node]:
    """Return, in order, the nodes whose outputs follow from constants and, where `shapes`, shapes alone."""
    static = set(model.graph.initializers) - bound_names(model)
    nodes = []
    for node in model.graph:
        from_shapes = shapes and op_of(node).of_shape
        known = all(value is None or str(value.name) in static for value in node.inputs)
        if not is_random(node) and not holds_graph(node) and (from_shapes or known):
            static.update(str(value.name) for value in node.outputs)
            nodes.append(node)
    return nodes


def _static_values(model: ir.Model, found: Inferred) -> dict[str, Array]:
    """Run the nodes that calculate with constants and shapes alone, all at once, but for those that get too large."""
    spare = _SPARE_ELEMENTS + 4 * sum(
        value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None
    )
    values: dict[str, Array] = {}
    left_out: set[str] = set()
    proto = onnx.ModelProto()
    proto.ir_version = model.ir_version or onnx.IR_VERSION
    for domain, version in model.graph.opset_imports.items():
        proto.opset_import.append(onnx.helper.make_opsetid(domain, version))
    proto.graph.name = "static"
    wanted: list[str] = []
    used: dict[str, ir.Value] = {}
    for node in _static_nodes(model):
        outputs = [str(value.name) for value in node.outputs if value.name]
        source = node.inputs[0] if node.inputs else None
        if op_of(node).of_shape and source is not None:
            shape = found.shapes.get(str(source.name))
            if shape is None:
                raise _UntoldError(source.name)
            values[outputs[0]] = constant = measured(node, shape)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(constant, outputs[0]))
            continue
        size = sum(prod(found.shapes.get(name, ())) for name in outputs)
        computed = any(value is not None and str(value.name) in left_out for value in node.inputs)
        numbers = all(name in found.shapes and found.kinds[name] != onnx.TensorProto.STRING for name in outputs)
        if computed or size > spare or not numbers or not is_bounded(node, found):
            left_out.update(outputs)
            continue
        spare -= size
        ir.serde.serialize_node_into(proto.graph.node.add(), node)
        wanted += outputs
        used |= {str(value.name): value for value in node.inputs if value is not None and value.const_value is not None}
    for name, value in used.items():
        assert value.const_value is not None
        if name in values:
            continue
        tensor = proto.graph.initializer.add()
        ir.serde.serialize_tensor_into(tensor, value.const_value)
        tensor.name = name
    if not wanted:
        return values
    for name in wanted:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, found.kinds[name], None))
    results = session_for(proto).run(wanted, {})
    for name, array in zip(wanted, results, strict=True):
        if not isinstance(array, np.ndarray) or array.shape != found.shapes[name]:
            raise _UntoldError(name)
        values[name] = array
    return values
