"""Shapes and types of every value by inference: nothing is run but arithmetic on a few small integers.

Goes through a graph once, from node to node, with types and with the small values that decide on shapes.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.foreign import foreign_code
from n2n_edge.graph.child import Array
from n2n_edge.graph.load import to_proto
from n2n_edge.graph.op import STANDARD_DOMAINS, op_key, op_of
from n2n_edge.graph.runtime_shapes import exact_sizes, is_refused, stand_in
from n2n_edge.graph.subgraphs import holds_graph, initializers_of

__all__ = ["SMALL", "Inferred", "Walk", "infer", "is_countable", "is_random", "measured", "skeleton"]

SMALL = 4096
"""Elements up to which a constant may be a setting (sizes, axes, scales) whose content shapes depend on."""


class _Told(NamedTuple):
    """What ONNX tells of an output; of a tensor `sizes` too, None where not even its rank is known."""

    kind: onnx.TypeProto
    sizes: tuple[int | None, ...] | None


_Answer = tuple[_Told | None, ...]

_ANSWERS: dict[Hashable, _Answer] = {}
"""What ONNX has said of nodes: a graph is gone through several times, and holds many equal nodes."""

_MOST_ANSWERS = 20_000
_MOST_CONTENT = 64
"""Elements up to which the content of a setting is compared to tell whether nodes are equal."""

_PLAIN_ATTRIBUTES = frozenset({
    ir.AttributeType.FLOAT, ir.AttributeType.FLOATS, ir.AttributeType.INT, ir.AttributeType.INTS,
    ir.AttributeType.STRING, ir.AttributeType.STRINGS,
})  # fmt: skip

_LARGEST = 2**53
"""More elements than this no tensor has, and no float counts exactly."""


def is_countable(shape: tuple[int, ...]) -> bool:
    """Tell whether a tensor may have this shape."""
    return all(0 <= size <= _LARGEST for size in shape) and prod(shape) <= _LARGEST


@dataclass
class Inferred:
    """What inference tells: shapes and ONNX element types by value name; `others` are sequences, maps and optionals.

    `unknown` are node outputs whose shape it can't tell.
    """

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    @property
    def dtypes(self) -> dict[str, np.dtype[np.generic]]:
        """The types of all tensors but those of text, as numpy names them."""
        return {
            name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
            for name, kind in self.kinds.items()
            if kind not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
        }


def infer(model: ir.Model, inputs: Mapping[str, tuple[int, ...]]) -> Inferred:
    """Return what inference tells of `model` for inputs of these shapes."""
    walk = Walk(model, inputs)
    for node in model.graph:
        walk.visit(node)
    if walk.found.unknown:
        _add_from_whole_graph(walk.found, model, inputs)
    return walk.found


def skeleton(model: ir.Model, inputs: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Return the model without its large weights, which become inputs, and with `inputs` of these shapes."""
    large = {str(value.name): value.const_value for value in model.graph.initializers.values() if _is_large(value)}
    proto = to_proto(model, without=large)
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, inputs.get(value.name, ()), strict=False):
            dim.dim_value = size
    declared = {value.name for value in proto.graph.input}
    for name, tensor in large.items():
        if tensor is not None and name not in declared:
            shape = tensor.shape.numpy()
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, int(tensor.dtype), shape))
    for value in proto.graph.output:
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.tensor_type.ClearField("shape")
    return proto


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype.is_floating_point() and tensor.size > SMALL


def _add_from_whole_graph(found: "Inferred", model: ir.Model, inputs: Mapping[str, tuple[int, ...]]) -> None:
    """Fill, in place, types, and shapes behind control flow, whose bodies ONNX infers for whole graphs alone."""
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton(model, inputs), data_prop=True)
    except Exception:  # what can't be inferred stays unknown
        return
    has_bodies = any(holds_graph(node) for node in model.graph)
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        if value.name not in found.unknown:
            continue
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            found.others.add(value.name)
            found.unknown.discard(value.name)
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type:
            found.kinds.setdefault(value.name, tensor.elem_type)
        if not has_bodies:
            continue
        sizes = [_size(dim) for dim in tensor.shape.dim]
        shape = tuple(size for size in sizes if size is not None)
        if tensor.HasField("shape") and len(shape) == len(sizes) and is_countable(shape):
            found.shapes[value.name] = shape
            found.kinds[value.name] = tensor.elem_type
            found.unknown.discard(value.name)


def is_random(node: ir.Node) -> bool:
    """Tell whether two runs of `node` may differ."""
    return op_of(node).random


def measured(node: ir.Node, shape: tuple[int, ...]) -> Array:
    """Return what Shape or Size gives for an input of `shape`."""
    if node.op_type == "Size":
        return np.array(prod(shape), np.int64)
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return np.array(shape[start:end], np.int64)


class Walk:
    """One pass through a graph, node by node in its order; `found` holds what is known so far."""

    def __init__(self, model: ir.Model, inputs: Mapping[str, tuple[int, ...]]) -> None:
        self.found = Inferred()
        self._values: dict[str, Array] = {}
        self._types: dict[str, onnx.TypeProto] = {}
        self._opsets = dict(model.graph.opset_imports)
        self._imports = [onnx.helper.make_opsetid(name, version) for name, version in self._opsets.items()]
        self._ir_version = model.ir_version or onnx.IR_VERSION
        for value in model.graph.inputs:
            name = str(value.name)
            if name in inputs and value.dtype is not None:
                self._note(name, inputs[name], int(value.dtype))
            elif value.type is not None:
                self._types[name] = ir.serde.serialize_type(value.type)
                self.found.others.add(name)
        for value in initializers_of(model):
            name, tensor = str(value.name), value.const_value
            if tensor is not None:
                self._note(name, tuple(tensor.shape.numpy()), int(tensor.dtype))
                if tensor.size <= SMALL and tensor.dtype != ir.DataType.STRING:
                    self._values[name] = tensor.numpy()

    def visit(self, node: ir.Node) -> None:
        """Learn what the outputs of `node` are."""
        try:
            if op_of(node).of_shape:
                source = node.inputs[0]
                shape = None if source is None else self.found.shapes.get(str(source.name))
                if shape is not None:
                    self.hold(str(node.outputs[0].name), measured(node, shape))
                    return
            if not is_refused(node, self.found.shapes):  # what it is then, a run tells: why it can't be
                self._infer(node)
            if self._is_arithmetic(node):
                self._evaluate(node)
        except InputError:  # of a row from outside
            raise
        except Exception:  # inference and the reference evaluator raise whatever they meet in a file
            pass
        for value in node.outputs:
            name = str(value.name)
            if name and name not in self.found.shapes and name not in self.found.others:
                self.found.unknown.add(name)

    def _note(self, name: str, shape: tuple[int, ...], kind: int) -> None:
        sizes = tuple(int(size) for size in shape)
        self.found.shapes[name], self.found.kinds[name] = sizes, kind
        self._types.pop(name, None)  # made where ONNX is asked, which equal nodes do once

    def value(self, name: str) -> Array | None:
        """Return the content of a small value, None where it isn't known."""
        return self._values.get(name)

    def hold(self, name: str, array: Array) -> None:
        """Learn the content of a small value."""
        self._values[name] = array
        self._note(name, array.shape, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))

    def _is_arithmetic(self, node: ir.Node) -> bool:
        """Tell whether `node` calculates small values from small values that are known."""
        names = [str(value.name) for value in node.inputs if value is not None]
        outputs = [str(value.name) for value in node.outputs if value.name]
        return (
            node.domain in STANDARD_DOMAINS
            and not op_of(node).unbounded
            and not is_random(node)
            and not holds_graph(node)
            and all(name in self._values for name in names)
            and all(name in self.found.shapes and prod(self.found.shapes[name]) <= SMALL for name in outputs)
        )

    def _evaluate(self, node: ir.Node) -> None:
        output = str(node.outputs[0].name)
        if op_of(node).form in ("same", "reshaped") and node.inputs[0] is not None:  # axes may be attributes
            self.hold(output, self._values[str(node.inputs[0].name)].reshape(self.found.shapes[output]))
            return
        from onnx.reference import ReferenceEvaluator  # loads hundreds of ops, which few models need

        evaluator = ReferenceEvaluator(ir.serde.serialize_node(node), opsets=self._opsets)
        names = [str(value.name) for value in node.inputs if value is not None]
        with np.errstate(all="ignore"):
            outputs = evaluator.run(None, {name: self._values[name] for name in names})
        for value, output in zip(node.outputs, outputs, strict=False):
            array = np.asarray(output)
            if value.name and array.dtype != object:
                self.hold(str(value.name), array)

    def _infer(self, node: ir.Node) -> None:
        """Learn the types of a node's outputs from ONNX, or from the row of an op from outside."""
        if op_of(node).shapes is not None:
            self._ask_row(node)
            return
        for value, told in zip(node.outputs, self._asked(node), strict=True):
            if value.name and told is not None:
                self._learn(node, str(value.name), told)

    def _ask_row(self, node: ir.Node) -> None:
        """Learn the shapes of a node's outputs as its row tells them; they have the type of its first input."""
        row = op_of(node)
        names = ["" if value is None else str(value.name) for value in node.inputs]
        assert row.shapes is not None
        with foreign_code(f"the shapes of op {op_key(row.domain, row.name)}"):
            told = row.shapes(node, [self.found.shapes.get(name) for name in names])
            sizes = [tuple(int(size) for size in shape) for shape in told]
        for value, shape in zip(node.outputs, sizes, strict=False):
            if value.name and min(shape, default=0) >= 0:
                self._note(value.name, shape, self.found.kinds.get(names[0], onnx.TensorProto.FLOAT))

    def _asked(self, node: ir.Node) -> _Answer:
        """Return the type of every output, None where ONNX doesn't tell; equal nodes are asked for once."""
        key = self._key(node)
        if key is None:
            return self._ask(node)
        known = _ANSWERS.get(key)
        if known is None:
            known = self._ask(node)
            if len(_ANSWERS) >= _MOST_ANSWERS:
                _ANSWERS.clear()
            _ANSWERS[key] = known
        return known

    def _key(self, node: ir.Node) -> Hashable | None:
        """Return what the answer for `node` follows from; None where that includes the content of a large value."""
        inputs: list[Hashable] = []
        for value in node.inputs:
            name = "" if value is None else str(value.name)
            if name and name not in self.found.shapes:
                return None
            content = self._values.get(name) if name and not op_of(node).is_blind_to_content else None
            if content is not None and content.size > _MOST_CONTENT:
                return None
            held = None if content is None else content.tobytes()
            inputs.append((self.found.shapes[name], self.found.kinds[name], held) if name else None)
        attributes: list[Hashable] = []
        for name, attribute in node.attributes.items():
            if attribute.type not in _PLAIN_ATTRIBUTES:
                return None
            plain = tuple(attribute.value) if isinstance(attribute.value, list | tuple) else attribute.value
            attributes.append((name, attribute.type, plain))
        called = (node.domain, node.op_type, self._opsets.get(node.domain, 1), self._opsets.get("", 1))
        return (called, len(node.outputs), tuple(bool(value.name) for value in node.outputs), *inputs, *attributes)

    def _ask(self, node: ir.Node) -> _Answer:
        replaced = stand_in(node)
        proto = ir.serde.serialize_node(node) if replaced is None else replaced.node
        domain = node.domain if replaced is None else ""
        opset = self._opsets.get(domain, 1) if replaced is None else max(self._opsets.get("", 1), 13)
        schema = onnx.defs.get_schema(proto.op_type, opset, domain)
        types = {name: kind for name in proto.input if (kind := self._type(name)) is not None}
        values: dict[str, onnx.TensorProto] = {}
        if replaced is None:
            small = [name for name in types if name in self._values]
            values = {name: onnx.numpy_helper.from_array(self._values[name], name) for name in small}
        else:  # it is asked for its shape alone: standard operators take no quantized inputs
            types = {name: _with_element(kind, onnx.TensorProto.FLOAT) for name, kind in types.items()}
        imports = self._imports if replaced is None else [onnx.helper.make_opsetid("", opset)]
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, values, opset_imports=imports, ir_version=self._ir_version
        )
        told = [found.get(str(value.name)) if value.name else None for value in node.outputs]
        if replaced is None:
            return tuple(None if kind is None else _told(kind) for kind in told)
        element = replaced.kind or self.found.kinds.get(proto.input[0]) or onnx.TensorProto.UNDEFINED
        return tuple(None if kind is None else _told(_with_element(kind, element)) for kind in told)

    def _type(self, name: str) -> onnx.TypeProto | None:
        """Return what is known of the type of a value."""
        if name in self.found.shapes:
            return onnx.helper.make_tensor_type_proto(self.found.kinds[name], self.found.shapes[name])
        return self._types.get(name)

    def _learn(self, node: ir.Node, name: str, told: _Told) -> None:
        kind, sizes = told
        if kind.WhichOneof("value") != "tensor_type":
            self.found.others.add(name)
            self._types[name] = kind
            return
        element = kind.tensor_type.elem_type
        known = sizes is not None and all(0 <= (size or 0) <= _LARGEST for size in sizes)
        shape = tuple(size for size in sizes or () if size is not None)
        if sizes is not None and known and len(shape) == len(sizes):
            if is_countable(shape) and self._keeps_elements(node, shape):
                self._note(name, self._exact(node, shape), element)
        elif known or sizes is None:
            self._types[name] = kind
            self.found.kinds[name] = element

    def _keeps_elements(self, node: ir.Node, shape: tuple[int, ...]) -> bool:
        """Tell whether a Reshape gives as many elements as it takes, which inference doesn't check."""
        source = node.inputs[0] if node.op_type == "Reshape" else None
        given = None if source is None else self.found.shapes.get(str(source.name))
        return given is None or prod(given) == prod(shape)

    def _exact(self, node: ir.Node, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return `shape` as ONNX Runtime calculates it."""
        shapes = [None if value is None else self.found.shapes.get(str(value.name)) for value in node.inputs[:2]]
        if not shapes or shapes[0] is None or len(shapes[0]) < 3:
            return shape
        sizes = exact_sizes(node, shapes[0], shapes[1] or () if len(shapes) > 1 else ())
        return shape if sizes is None else (*shape[:2], *sizes)


def _told(kind: onnx.TypeProto) -> _Told:
    tensor = kind.tensor_type if kind.WhichOneof("value") == "tensor_type" else None
    ranked = tensor is not None and tensor.HasField("shape")
    return _Told(kind, tuple(_size(dim) for dim in tensor.shape.dim) if tensor is not None and ranked else None)


def _with_element(kind: onnx.TypeProto, element: int) -> onnx.TypeProto:
    other = onnx.TypeProto()
    other.CopyFrom(kind)
    other.tensor_type.elem_type = element
    return other


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    return dim.dim_value if dim.HasField("dim_value") else None
