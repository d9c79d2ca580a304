"""One run of ONNX Runtime with every intermediate value as an output: shapes and shape arithmetic as they are."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.load import to_proto

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["DEFAULT_SPATIAL_SIZE", "Array", "session_for", "witness", "witness_each", "witness_inputs"]

Array = np.ndarray[Any, np.dtype[Any]]
"""Of whatever element type a value of the graph has."""

DEFAULT_SPATIAL_SIZE = 224
"""Assumed for a free axis of the input that isn't the batch, unless the user gives the input's shape."""


def witness_inputs(
    model: ir.Model, batch: int, input_shape: tuple[int, ...] | None = None, *, seed: int = 0
) -> dict[str, Array]:
    """Return random inputs for `model`: a free first axis becomes `batch`, other free axes come from `input_shape`.

    `input_shape` is that of the first input without its batch axis, such as ``(3, 224, 224)``.

    Raises:
        InputError: an input has no shape, or `input_shape` doesn't fit the first one.
    """
    generator = np.random.default_rng(seed)
    inputs = {}
    for index, value in enumerate(model.graph.inputs):
        if value.shape is None or value.dtype is None:
            raise InputError(f"input '{value.name}' of the model has no shape; export it with one")
        declared = [size if isinstance(size, int) and size > 0 else None for size in value.shape]
        sizes = [size or (DEFAULT_SPATIAL_SIZE if axis else batch) for axis, size in enumerate(declared)]
        if index == 0 and input_shape is not None:
            _check_input_shape(value, declared[1:], input_shape)
            sizes[1:] = input_shape
        dtype = value.dtype.numpy()
        if np.issubdtype(dtype, np.floating):
            inputs[str(value.name)] = generator.standard_normal(sizes).astype(dtype)
        else:
            inputs[str(value.name)] = np.ones(sizes, dtype)
    return inputs


def witness(model: ir.Model, inputs: Mapping[str, Array], names: set[str] | None = None) -> dict[str, Array]:
    """Return the values called `names` (default: all node outputs) for `inputs`, graph optimisation off.

    Raises:
        InputError: ONNX Runtime can't run the model.
    """
    return next(witness_each(model, [inputs], names))


def witness_each(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], names: set[str] | None = None
) -> Iterator[dict[str, Array]]:
    """Yield what `witness` returns for each of `batches`, loading the model once.

    Raises:
        InputError: ONNX Runtime can't run the model.
    """
    traced = model.clone()
    declared = {value.name for value in traced.graph.outputs}
    wanted = [
        value
        for node in traced.graph
        for value in node.outputs
        if value.name and (names is None or value.name in names)
        # a body of control flow may give a value of the graph around it, which then can't be an output of both
        if not value.is_graph_output() or value.name in declared
    ]
    for value in wanted:
        value.shape = None
        if value.name not in declared:
            traced.graph.outputs.append(value)
    outputs = [str(value.name) for value in wanted]
    session = None
    for inputs in batches:
        try:
            if session is None:
                session = session_for(_with_types(traced))
            arrays = session.run(outputs, dict(inputs))
        except InputError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise _refusal(error) from error
        yield {name: array for name, array in zip(outputs, arrays, strict=True) if isinstance(array, np.ndarray)}


def session_for(proto: onnx.ModelProto) -> "onnxruntime.InferenceSession":
    """Open a model as it stands, graph optimisation off, on one thread.

    Raises:
        InputError: ONNX Runtime refuses it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise _refusal(error) from error


def _refusal(error: Exception) -> InputError:
    first = str(error).strip().split("\n")[0]
    return InputError(f"ONNX Runtime can't run the model: {first}")


def _check_input_shape(value: ir.Value, declared: list[int | None], input_shape: tuple[int, ...]) -> None:
    fits = len(declared) == len(input_shape) and all(
        size > 0 and fixed in (None, size) for fixed, size in zip(declared, input_shape, strict=True)
    )
    if not fits:
        wanted = "x".join("?" if size is None else str(size) for size in declared)
        given = "x".join(str(size) for size in input_shape)
        raise InputError(f"input shape {given} doesn't fit the model's input '{value.name}', which is {wanted}")


def _with_types(model: ir.Model) -> onnx.ModelProto:
    """Return the model with every graph output typed; ONNX Runtime refuses outputs without a type."""
    proto = to_proto(model)
    untyped = [value for value in proto.graph.output if not value.type.WhichOneof("value")]
    if untyped:
        bare = onnx.ModelProto()
        bare.CopyFrom(proto)
        missing = {value.name for value in untyped}
        declared = [value for value in proto.graph.output if value.name not in missing]
        del bare.graph.output[:]
        bare.graph.output.extend(declared)
        inferred = onnx.shape_inference.infer_shapes(bare)
        types = {value.name: value.type for value in inferred.graph.value_info}
        for value in untyped:
            if value.name in types:
                value.type.CopyFrom(types[value.name])
                if value.type.WhichOneof("value") == "tensor_type":
                    value.type.tensor_type.ClearField("shape")
            else:
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return proto
