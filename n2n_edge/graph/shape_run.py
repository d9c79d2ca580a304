"""Runs of ONNX Runtime with intermediate values as outputs: shapes and shape arithmetic as they are.

A run whose work follows from the graph happens in this process; any other in a child with limits of time and memory.
Such a run also tells why an analysis failed: most graphs that surprise it are ones that no runtime runs.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from n2n_edge.errors import IncompressibleError, InputError, LimitExceededError, first_line
from n2n_edge.foreign import UnforeseenError, foreign_file
from n2n_edge.graph.child import RUN_SECONDS, Array, ChildRun, run_in_child
from n2n_edge.graph.infer import Inferred, infer, is_countable
from n2n_edge.graph.load import serialize, to_proto
from n2n_edge.graph.model_file import to_bytes
from n2n_edge.graph.op import MICROSOFT, STANDARD_DOMAINS, op_of
from n2n_edge.graph.subgraphs import holds_graph

__all__ = [
    "DEFAULT_SPATIAL_SIZE", "Array", "analysing", "analysing_unrun", "example_inputs", "in_own_order", "input_sizes",
    "is_bounded", "run_graph", "run_graph_each", "session_for", "types_by_running",
]  # fmt: skip

if TYPE_CHECKING:
    import onnxruntime


DEFAULT_SPATIAL_SIZE = 224
"""Assumed for a free axis of the input that isn't the batch, unless the user gives the input's shape."""


_MOST_INPUT_ELEMENTS = 2**27
"""Elements of an input that are still fed: more than an image has."""

_SIZES_SHOWN = 8
_IMAGE_RANK = 3

_MOST_BYTES = 1_000_000_000
_MOST_MACS = 5e10
"""What a run in this process may take; larger ones happen in a child."""

_MACS_PER_SECOND = 1e9
_MOST_SECONDS = 120.0

_DOMAINS = frozenset({*STANDARD_DOMAINS, MICROSOFT})


def input_sizes(model: ir.Model, batch: int, input_shape: tuple[int, ...] | None = None) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input: a free first axis becomes `batch`, other free axes come from `input_shape`.

    `input_shape` is that of the first input without its batch axis, such as ``(3, 224, 224)``.

    Raises:
        InputError: an input has no shape, or `input_shape` doesn't fit the first one.
    """
    found = {}
    for index, value in enumerate(model.graph.inputs):
        if value.shape is None or value.dtype is None:
            if value.type is not None and not isinstance(value.type, ir.TensorType):
                raise IncompressibleError(f"input '{value.name}' of the model is no tensor; it can't be compressed")
            raise InputError(f"input '{value.name}' of the model has no shape; export it with one")
        declared = [size if isinstance(size, int) and size > 0 else None for size in value.shape]
        sizes = [size or (DEFAULT_SPATIAL_SIZE if axis else batch) for axis, size in enumerate(declared)]
        if index == 0 and input_shape is not None:
            sizes[1:] = _fitted(value, declared[1:], input_shape)
        if not is_countable(tuple(sizes)):
            raise _too_large(value, sizes)
        found[str(value.name)] = tuple(sizes)
    return found


def example_inputs(
    model: ir.Model, batch: int, input_shape: tuple[int, ...] | None = None, *, seed: int = 0
) -> dict[str, Array]:
    """Return random inputs for `model` of the shapes that `input_sizes` gives.

    Raises:
        InputError: as for `input_sizes`; an input that is larger than any image, or holds text.
    """
    generator = np.random.default_rng(seed)
    inputs = {}
    values = {str(value.name): value for value in model.graph.inputs}
    for name, sizes in input_sizes(model, batch, input_shape).items():
        kind = values[name].dtype
        if kind is None or kind in (ir.DataType.STRING, ir.DataType.UNDEFINED):
            raise IncompressibleError(f"input '{name}' of the model holds text, no numbers; it can't be compressed")
        if prod(sizes) > _MOST_INPUT_ELEMENTS:
            raise _too_large(values[name], sizes)
        dtype = kind.numpy()
        if np.issubdtype(dtype, np.floating):
            inputs[name] = generator.standard_normal(sizes).astype(dtype)
        else:
            inputs[name] = np.ones(sizes, dtype)
    return inputs


def _too_large(value: ir.Value, sizes: Sequence[int]) -> InputError:
    shape = "x".join(map(str, sizes[:_SIZES_SHOWN])) + ("x..." if len(sizes) > _SIZES_SHOWN else "")
    return InputError(
        f"input '{value.name}' of the model is declared as {shape}, more than any image has; export it with the shape "
        "that it is fed"
    )


def run_graph(model: ir.Model, inputs: Mapping[str, Array], names: set[str] | None = None) -> dict[str, Array]:
    """Return the values called `names` (default: all node outputs) for `inputs`, graph optimisation off.

    Raises:
        InputError: ONNX Runtime can't run the model.
    """
    return next(run_graph_each(model, [inputs], names))


def run_graph_each(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], names: set[str] | None = None
) -> Iterator[dict[str, Array]]:
    """Yield what `run_graph` returns for each of `batches`, loading the model once where it runs in this process.

    Images are floats everywhere; a model that takes bytes gets them as such.

    Raises:
        InputError: ONNX Runtime can't run the model.
        LimitExceededError: a run needs too much time or memory.
    """
    proto: onnx.ModelProto | None = None
    outputs: list[str] = []
    session = None
    seconds: float | None = None
    takes_bytes = {value.name for value in model.graph.inputs if value.dtype == ir.DataType.UINT8}
    for batch in batches:
        inputs = {name: array.astype(np.uint8) if name in takes_bytes else array for name, array in batch.items()}
        if proto is None:
            found = infer(model, _sizes(inputs))
            outputs, proto = _with_outputs(model, names, found)
            seconds = _seconds_in_child(_work(model, found))
        inputs = _as_declared(model, inputs)
        if seconds is not None:
            run = run_in_child(to_bytes(proto), [inputs], outputs, outputs, seconds)[0]
            yield dict(run.arrays)
            continue
        try:
            if session is None:
                session = session_for(proto)
            arrays = session.run(outputs, dict(inputs)) if outputs else []  # no names would stand for all
        except InputError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise _refusal(error) from error
        yield {name: array for name, array in zip(outputs, arrays, strict=True) if isinstance(array, np.ndarray)}


def _as_declared(model: ir.Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return inputs, floats in the precision that the model takes them in."""
    kinds = {str(value.name): value.dtype for value in model.graph.inputs}
    fed = {}
    for name, array in inputs.items():
        kind = kinds.get(name)
        floats = kind is not None and kind.is_floating_point() and np.issubdtype(array.dtype, np.floating)
        fed[name] = array.astype(kind.numpy(), copy=False) if floats and kind is not None else array
    return fed


def types_by_running(
    model: ir.Model, inputs: Mapping[str, Array], names: Collection[str]
) -> tuple[dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]], dict[str, Array]]:
    """Return type and shape of every tensor as one run in a child shows them, and those of `names` whole.

    Raises:
        InputError: ONNX Runtime can't run the model.
        LimitExceededError: the run needs too much time or memory.
    """
    found = infer(model, _sizes(inputs))
    outputs, proto = _with_outputs(model, None, found)
    run: ChildRun = run_in_child(to_bytes(proto), [inputs], outputs, names, _allowed(_work(model, found)))[0]
    types = {**run.types, **{name: (array.dtype, tuple(array.shape)) for name, array in inputs.items()}}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING:
            types[name] = (np.dtype(tensor.dtype.numpy()), tuple(int(size) for size in tensor.shape.numpy()))
    return types, dict(run.arrays)


def is_bounded(node: ir.Node, found: Inferred) -> bool:
    """Tell whether the work of a node follows from its shapes, and is little."""
    return _is_told(node) and _macs(node, found) <= _MOST_MACS


def _is_told(node: ir.Node) -> bool:
    return not holds_graph(node) and not op_of(node).unbounded and node.domain in _DOMAINS


def _macs(node: ir.Node, found: Inferred) -> float:
    """Return a bound of what a node multiplies or adds."""
    given = [found.shapes.get(str(value.name), ()) for value in node.inputs if value is not None]
    outputs = sum(prod(found.shapes.get(str(value.name), ())) for value in node.outputs)
    kernel = op_of(node).kernel
    if kernel in ("gemm", "matmul"):
        return float(outputs) * max((max(shape, default=1) for shape in given), default=1)
    window = prod(int(size) for size in node.attributes.get_ints("kernel_shape", ()))
    if kernel in ("conv", "conv_transpose"):
        weight = max((prod(shape[1:]) for shape in given[1:4]), default=1)
        return float(max(outputs, prod(given[0]) if given else 1)) * max(weight, 1)
    return float(outputs) * max(window, 1)


def _sizes(inputs: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in inputs.items()}


def _work(model: ir.Model, found: Inferred) -> tuple[float, float] | None:
    """Return MACs and bytes of a run; None where the graph doesn't tell."""
    if not all(_is_told(node) for node in model.graph):
        return None
    if found.unknown or found.others:
        return None
    names = [str(value.name) for node in model.graph for value in node.outputs if value.name]
    macs = sum(_macs(node, found) for node in model.graph)
    return macs, 8.0 * sum(float(prod(found.shapes[name])) for name in names)


def _seconds_in_child(work: tuple[float, float] | None) -> float | None:
    """Return how long a run in a child may take; None where it may happen in this process."""
    if work is not None and work[0] <= _MOST_MACS and work[1] <= _MOST_BYTES:
        return None
    return _allowed(work)


def _allowed(work: tuple[float, float] | None) -> float:
    return RUN_SECONDS if work is None else min(RUN_SECONDS + work[0] / _MACS_PER_SECOND, _MOST_SECONDS)


def _with_outputs(model: ir.Model, names: set[str] | None, found: Inferred) -> tuple[list[str], onnx.ModelProto]:
    """Return the values called `names` (default: all that nodes give) and the model with these as outputs."""
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
    return [str(value.name) for value in wanted], _with_types(traced, found)


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
    content = to_bytes(proto)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise _refusal(error) from error


def _refusal(error: Exception) -> InputError:
    first = first_line(error)
    if "bad_alloc" in first or "Failed to allocate memory" in first:
        return InputError("running the model once needs more memory than there is; check the sizes that it computes")
    return InputError(f"ONNX Runtime can't run the model: {first}")


def in_own_order(declared: Sequence[int | None], shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return `shape` as an input declares its sizes, None for a free one; channels may be given first or last.

    None where it doesn't fit either way.
    """
    orders = [tuple(shape)]
    if len(shape) == _IMAGE_RANK and len(declared) == _IMAGE_RANK and declared[-1] is not None:
        orders.append((*shape[1:], shape[0]))
    for order in orders:
        if len(declared) == len(order) and all(
            size > 0 and fixed in (None, size) for fixed, size in zip(declared, order, strict=True)
        ):
            return order
    return None


def _fitted(value: ir.Value, declared: list[int | None], input_shape: tuple[int, ...]) -> tuple[int, ...]:
    fitted = in_own_order(declared, input_shape)
    if fitted is None:
        wanted = "x".join("?" if size is None else str(size) for size in declared)
        given = "x".join(str(size) for size in input_shape)
        raise InputError(f"input shape {given} doesn't fit the model's input '{value.name}', which is {wanted}")
    return fitted


def _with_types(model: ir.Model, found: Inferred) -> onnx.ModelProto:
    """Return the model with every graph output typed; ONNX Runtime refuses outputs without a type."""
    proto = to_proto(model)
    untyped = [value for value in proto.graph.output if not value.type.WhichOneof("value")]
    if untyped:
        for value in untyped:
            value.type.tensor_type.elem_type = found.kinds.get(value.name) or onnx.TensorProto.FLOAT
    return proto


@contextmanager
def analysing(model: ir.Model) -> Iterator[None]:
    """Turn whatever `model` causes while it is analysed into an error of one line.

    Where no check says why, one run in a child process tells whether ONNX Runtime refuses the model, too.

    Raises:
        InputError: the model can't be analysed; an `UnforeseenError` only if ONNX Runtime runs it.
    """
    with _explained(lambda: types_by_running(model, example_inputs(model, 1), ())):
        yield


@contextmanager
def analysing_unrun(model: ir.Model) -> Iterator[None]:
    """Do what `analysing` does without running the model: a child process opens it at most."""
    with _explained(lambda: run_in_child(serialize(model), (), (), ())):
        yield


@contextmanager
def _explained(ask: Callable[[], object]) -> Iterator[None]:
    try:
        with foreign_file("the model"):
            yield
    except UnforeseenError as error:
        try:
            with foreign_file("the model"):
                ask()
        except UnforeseenError:
            raise error from error.__cause__
        except (InputError, LimitExceededError) as refusal:
            raise refusal from error.__cause__
        raise
