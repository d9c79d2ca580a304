"""What is known of every value at one batch size: its shape and type, and its content where no input has a part in it.

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
from n2n_edge.graph.bodies import holds_graph
from n2n_edge.graph.infer import Inferred, infer, is_random, measured, skeleton
from n2n_edge.graph.op import op_of
from n2n_edge.graph.shape_run import Array, is_bounded, session_for, types_by_running

__all__ = ["Trace", "constant_names", "static_names", "trace_model"]

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
    static = set(model.graph.initializers)
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
