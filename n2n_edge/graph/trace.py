"""What is known of every value at one batch size: its shape and type, and its content where no input has a part in it.

ONNX shape inference and one session on the few nodes that calculate with constants and shapes tell that in
milliseconds for most models; where they can't, one run of the whole model does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.load import to_proto
from n2n_edge.graph.witness import Array, session_for, witness

__all__ = ["Trace", "constant_names", "static_names", "trace_model"]

_RANDOM_OPS = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"})

_SMALL = 4096
"""Elements up to which a constant may be a setting (sizes, axes, scales) whose content shapes depend on."""


@dataclass(frozen=True)
class Trace:
    """Shapes and types by value name, and the content of values that follow from constants and shapes alone."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[np.generic]]
    values: Mapping[str, Array]


def trace_model(model: ir.Model, inputs: Mapping[str, Array], *, runnable: bool = False) -> Trace:
    """Return the trace of `model` for inputs of these shapes; `runnable` says that ONNX Runtime is known to take it.

    Raises:
        InputError: ONNX Runtime can't run the model.
    """
    try:
        inferred = _inferred(model, inputs)
        if inferred is not None:
            if not runnable:
                session_for(_skeleton(model, inputs))  # refuses what ONNX Runtime doesn't have
            shapes, dtypes = inferred
            return Trace(shapes, dtypes, _static_values(model, shapes, dtypes))
    except (InputError, _UntoldError):
        pass  # the run tells, or fails with the message that counts
    seen = {**witness(model, inputs), **inputs}
    return Trace(
        {name: array.shape for name, array in seen.items() if array.dtype != object},
        {name: array.dtype for name, array in seen.items() if array.dtype != object},
        {name: seen[name] for name in _static_names(model) if name in seen},
    )


class _UntoldError(Exception):
    """Inference can't tell."""


def constant_names(model: ir.Model) -> frozenset[str]:
    """Return the values that follow from constants alone, whatever the shapes of the inputs."""
    return frozenset(str(value.name) for node in _static_nodes(model, shapes=False) for value in node.outputs)


def static_names(model: ir.Model) -> frozenset[str]:
    """Return the values that follow from constants and from the shapes of the inputs alone."""
    return frozenset(_static_names(model))


def _static_nodes(model: ir.Model, *, shapes: bool = True) -> list[ir.Node]:
    """Return, in order, the nodes whose outputs follow from constants and, where `shapes`, shapes alone."""
    static = set(model.graph.initializers)
    nodes = []
    for node in model.graph:
        holds_graph = any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        )
        from_shapes = shapes and node.op_type in ("Shape", "Size")
        known = all(value is None or str(value.name) in static for value in node.inputs)
        if node.op_type not in _RANDOM_OPS and not holds_graph and (from_shapes or known):
            static.update(str(value.name) for value in node.outputs)
            nodes.append(node)
    return nodes


def _static_names(model: ir.Model) -> list[str]:
    return [str(value.name) for node in _static_nodes(model) for value in node.outputs if value.name]


def _skeleton(model: ir.Model, inputs: Mapping[str, Array]) -> onnx.ModelProto:
    """Return the model without its large weights, which become inputs, and with the shapes of `inputs`."""
    large = [value for value in model.graph.initializers.values() if _is_large(value)]
    proto = to_proto(model, without={str(value.name) for value in large})
    for value in proto.graph.input:
        _fix_shape(value, inputs[value.name].shape)
    for value in large:
        assert value.const_value is not None
        shape = value.const_value.shape.numpy()
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(str(value.name), int(value.const_value.dtype), shape)
        )
    for value in proto.graph.output:
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.tensor_type.ClearField("shape")
    return proto


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype.is_floating_point() and tensor.size > _SMALL


def _fix_shape(value: onnx.ValueInfoProto, shape: Iterable[int]) -> None:
    dims = value.type.tensor_type.shape.dim
    for dim, size in zip(dims, shape, strict=True):
        dim.dim_value = size


def _inferred(
    model: ir.Model, inputs: Mapping[str, Array]
) -> tuple[dict[str, tuple[int, ...]], dict[str, np.dtype[np.generic]]] | None:
    """Return shapes and types where ONNX shape inference knows them all, and they are consistent; else None."""
    forward = _Forward(model, inputs)
    static = set(_static_nodes(model))
    try:
        for node in model.graph:
            if node in static:
                forward.calculate(node)
            else:
                forward.infer(node)
    except _UntoldError:
        return None
    except Exception:  # the reference evaluator and shape inference raise whatever they meet
        return None
    return (forward.shapes, forward.dtypes) if _keeps_elements(model, forward.shapes) else None


class _Forward:
    """Goes through a graph once, from node to node, with shapes, types and the small values that decide on shapes."""

    def __init__(self, model: ir.Model, inputs: Mapping[str, Array]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype[np.generic]] = {}
        self._values: dict[str, Array] = {}
        self._types: dict[str, onnx.TypeProto] = {}
        self._opsets = dict(model.graph.opset_imports)
        self._imports = [onnx.helper.make_opsetid(name, version) for name, version in self._opsets.items()]
        self._ir_version = model.ir_version or onnx.IR_VERSION
        for name, array in inputs.items():
            self._note(name, array.shape, array.dtype)
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is not None:
                self._note(name, tuple(tensor.shape.numpy()), tensor.dtype.numpy())
                if not _is_large(value):
                    self._values[name] = tensor.numpy()

    def _note(self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        self.shapes[name], self.dtypes[name] = tuple(int(size) for size in shape), np.dtype(dtype)
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._types[name] = onnx.helper.make_tensor_type_proto(kind, self.shapes[name])

    def calculate(self, node: ir.Node) -> None:
        """Work out a node that depends on constants and shapes alone, unless its content is large."""
        source = node.inputs[0] if node.inputs else None
        if node.op_type in ("Shape", "Size") and source is not None:
            measured = _measured(node, self.shapes.get(str(source.name)), source)
            self._values[str(node.outputs[0].name)] = measured
            self._note(str(node.outputs[0].name), measured.shape, measured.dtype)
            return
        names = [str(value.name) for value in node.inputs if value is not None]
        if any(name not in self._values for name in names):
            self.infer(node)
            return
        from onnx.reference import ReferenceEvaluator  # loads hundreds of ops, which few models need

        evaluator = ReferenceEvaluator(ir.serde.serialize_node(node), opsets=self._opsets)
        outputs = evaluator.run(None, {name: self._values[name] for name in names})
        for value, output in zip(node.outputs, outputs, strict=False):
            array = np.asarray(output)
            self._values[str(value.name)] = array
            self._note(str(value.name), array.shape, array.dtype)

    def infer(self, node: ir.Node) -> None:
        """Ask ONNX for the types of a node's outputs."""
        proto = ir.serde.serialize_node(node)
        schema = onnx.defs.get_schema(node.op_type, self._opsets.get(node.domain, 1), node.domain)
        names = [str(value.name) for value in node.inputs if value is not None]
        found = onnx.shape_inference.infer_node_outputs(
            schema,
            proto,
            {name: self._types[name] for name in names},
            {name: onnx.numpy_helper.from_array(self._values[name], name) for name in names if name in self._values},
            opset_imports=self._imports,
            ir_version=self._ir_version,
        )
        for value in node.outputs:
            name = str(value.name)
            if not name:
                continue
            tensor = found[name].tensor_type if name in found else None
            if tensor is None or not tensor.HasField("shape"):
                raise _UntoldError(name)
            if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                raise _UntoldError(name)
            shape = tuple(dim.dim_value for dim in tensor.shape.dim)
            self._note(name, shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))


def _keeps_elements(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether every Reshape gives as many elements as it takes, which shape inference doesn't check."""
    for node in model.graph:
        source, target = (node.inputs[0] if node.inputs else None), node.outputs[0]
        if node.op_type != "Reshape" or source is None or str(source.name) not in shapes:
            continue
        if prod(shapes[str(source.name)]) != prod(shapes[str(target.name)]):
            return False
    return True


def _static_values(
    model: ir.Model, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, np.dtype[np.generic]]
) -> dict[str, Array]:
    """Run the nodes that calculate with constants and shapes alone, all at once."""
    nodes = _static_nodes(model)
    values: dict[str, Array] = {}
    proto = onnx.ModelProto()
    proto.ir_version = model.ir_version or onnx.IR_VERSION
    for domain, version in model.graph.opset_imports.items():
        proto.opset_import.append(onnx.helper.make_opsetid(domain, version))
    proto.graph.name = "static"
    wanted: list[str] = []
    used: dict[str, ir.Value] = {}
    for node in nodes:
        outputs = [str(value.name) for value in node.outputs if value.name]
        source = node.inputs[0] if node.inputs else None
        if node.op_type in ("Shape", "Size") and source is not None:
            values[outputs[0]] = constant = _measured(node, shapes.get(str(source.name)), source)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(constant, outputs[0]))
            continue
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
        kind = onnx.helper.np_dtype_to_tensor_dtype(dtypes[name])
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    results = session_for(proto).run(wanted, {})
    for name, array in zip(wanted, results, strict=True):
        if not isinstance(array, np.ndarray) or array.shape != shapes[name]:
            raise _UntoldError(name)
        values[name] = array
    return values


def _measured(node: ir.Node, shape: tuple[int, ...] | None, source: ir.Value) -> Array:
    """Return what Shape or Size gives."""
    if shape is None:
        if source.const_value is None:
            raise _UntoldError(source.name)
        shape = tuple(source.const_value.shape.numpy())
    if node.op_type == "Size":
        return np.array(prod(shape), np.int64)
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return np.array(shape[start:end], np.int64)
