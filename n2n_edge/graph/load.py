"""Loader and writer of ONNX files; whatever can't be a model is refused in one line."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from n2n_edge.errors import InputError, first_line
from n2n_edge.foreign import foreign_file
from n2n_edge.graph.child import open_in_child
from n2n_edge.graph.function_calls import check_function_calls, give_one_version
from n2n_edge.graph.model_file import (
    check_message_size,
    densify,
    holders,
    nodes_with_bodies,
    read_external_data,
    read_proto,
)
from n2n_edge.graph.model_text import check_text

__all__ = [
    "GENERATED_NAME", "add_initializer", "as_array", "drop_unused_initializers", "load_model", "load_proto",
    "save_model", "serialize", "size_of", "to_proto",
]  # fmt: skip

_LARGE_BYTES = 2**16
"""Weights of more bytes aren't shown to the checker, which copies what it is given."""

_COUNTED_BYTES = 2**8
"""What a tensor of so many bytes or more takes in a file is worked out instead of written."""

GENERATED_NAME = "generated name"
"""Key in the `meta` of nodes whose name isn't their file's."""


def load_model(path: Path | str) -> ir.Model:
    """Return the model in `path`, its weights in memory.

    What ONNX Runtime takes is taken, even where the ONNX checker finds fault with it.

    Raises:
        InputError: no such file, not ONNX, truncated, external data missing or outside the model's folder.
    """
    path = Path(path)
    with foreign_file(path):
        proto = load_proto(path)
        _check(proto, path)
        _tidy(proto)
        give_one_version(proto, path)
        try:
            model = ir.from_proto(proto)
            if not _is_sorted(proto.graph):
                model.graph.sort()
            _forget_noted_shapes(model)
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        except (ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
            raise InputError(f"{path}: not a valid ONNX model ({first_line(error)}); export it again") from error
        for value in model.graph.initializers.values():
            _read_tensor(value, path)
    return model


def load_proto(path: Path) -> onnx.ModelProto:
    """Return the model in `path` as protobuf, with its external data and with sparse weights made dense.

    Raises:
        InputError: as for `load_model`; the graph itself isn't checked.
    """
    proto = read_proto(path)
    check_text(proto, path)
    check_function_calls(proto, path)
    read_external_data(proto, path)
    densify(proto, path)
    return proto


def _check(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse what isn't a model: what the checker finds fault with and ONNX Runtime doesn't open either."""
    if not proto.opset_import:
        raise InputError(
            f"{path}: doesn't say which version of the operators it uses (no opset_import; written for IR version "
            f"{proto.ir_version}), so ONNX Runtime refuses it; export it again with a current exporter"
        )
    try:
        onnx.checker.check_model(_without_large_weights(proto))
        return
    except (onnx.checker.ValidationError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        complaint = error
    if open_in_child(path):
        raise InputError(f"{path}: not a valid ONNX model ({first_line(complaint)}); export it again") from complaint


def _without_large_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its large weights as inputs."""
    if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) < _LARGE_BYTES:
        return proto
    bare = onnx.ModelProto()
    for field, content in proto.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(bare, field.name).extend(content)
        else:
            setattr(bare, field.name, content)
    graph = bare.graph
    for field, content in proto.graph.ListFields():
        if field.name == "initializer":
            continue
        if field.is_repeated:
            getattr(graph, field.name).extend(content)
        else:
            setattr(graph, field.name, content)
    declared = {value.name for value in graph.input}
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) < _LARGE_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return bare


def _tidy(proto: onnx.ModelProto) -> None:
    """Spell out, in place, what ONNX Runtime takes for granted: names, and the domains that nodes use."""
    proto.graph.name = proto.graph.name or "graph"
    for item in proto.opset_import:
        item.domain = "" if item.domain == "ai.onnx" else item.domain
    imported = {item.domain for item in proto.opset_import}
    for node in (node for holder in holders(proto) if isinstance(holder, onnx.GraphProto) for node in holder.node):
        if node.domain == "ai.onnx":
            node.domain = ""
        if node.domain == "com.microsoft" and node.domain not in imported:
            proto.opset_import.append(onnx.helper.make_opsetid(node.domain, 1))
            imported.add(node.domain)


def _is_sorted(graph: onnx.GraphProto) -> bool:
    produced = {name for node in graph.node for name in node.output if name}
    seen: set[str] = set()
    for node in graph.node:
        if any(name in produced and name not in seen for item in nodes_with_bodies([node]) for name in item.input):
            return False
        seen.update(node.output)
    return True


def _forget_noted_shapes(model: ir.Model) -> None:
    """Drop what the file says of activations, in place: exporters are wrong about some, and inference tells them.

    Operators of unknown domains keep theirs, since nothing else tells.
    """
    for node in model.graph:
        if node.domain in ("", "ai.onnx", "com.microsoft"):
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None


def as_array(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor that is held as a numpy array: candidates slice it again and again."""
    if not isinstance(tensor, ir.TensorProtoTensor) or tensor.dtype == ir.DataType.STRING or tensor.dtype.itemsize < 1:
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def serialize(model: ir.Model) -> bytes:
    """Return the bytes of the model as one ONNX file.

    Raises:
        InputError: it is over 2 GB, which one file can't hold.
    """
    check_message_size(sum(_bytes_of(value) for value in model.graph.initializers.values()))
    return bytes(to_proto(model).SerializeToString(deterministic=True))


def to_proto(model: ir.Model, *, without: Collection[str] = ()) -> onnx.ModelProto:
    """Return the model as protobuf, without the shapes of activations and weights: every reader infers them.

    Nodes that had no name in the teacher's file have none here.

    `without` names weights to leave out.

    Shapes would be a third of the time it takes to write a candidate down, and a part of its size.
    """
    graph = model.graph
    shell = ir.Graph((), (), nodes=(), opset_imports=graph.opset_imports, name=graph.name, doc_string=graph.doc_string)
    shell.metadata_props.update(graph.metadata_props)
    proto = ir.to_proto(_with_graph(model, shell))
    for value in graph.inputs:
        ir.serde.serialize_value_into(proto.graph.input.add(), value)
    for name, value in graph.initializers.items():
        if value.const_value is not None and name not in without:
            value.const_value.name = name
            ir.serde.serialize_tensor_into(proto.graph.initializer.add(), value.const_value)
    for node in graph:
        written = proto.graph.node.add()
        ir.serde.serialize_node_into(written, node)
        if GENERATED_NAME in node.meta:
            written.ClearField("name")
    for value in graph.outputs:
        ir.serde.serialize_value_into(proto.graph.output.add(), value)
    return proto


def _with_graph(model: ir.Model, graph: ir.Graph) -> ir.Model:
    return ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=tuple(model.functions.values()),
        metadata_props=model.metadata_props,
    )


def size_of(model: ir.Model) -> int:
    """Return the bytes of the model as one ONNX file, without copying its weights."""
    large = {name for name, value in model.graph.initializers.items() if _bytes_of(value) >= _COUNTED_BYTES}
    proto = to_proto(model, without=large)
    graph_bytes = proto.graph.ByteSize()
    rest = proto.ByteSize() - graph_bytes - _varint_bytes(graph_bytes)
    for name in large:
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        head = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
        content = head.ByteSize() + 1 + _varint_bytes(tensor.nbytes) + tensor.nbytes
        graph_bytes += 1 + _varint_bytes(content) + content
    return int(rest + graph_bytes + _varint_bytes(graph_bytes))


def _bytes_of(value: ir.Value) -> int:
    tensor = value.const_value
    return 0 if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.nbytes


def _varint_bytes(number: int) -> int:
    return max(1, -(-number.bit_length() // 7))


def save_model(model: ir.Model, path: Path) -> None:
    """Write `model` to `path` in one step: a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(serialize(model))
    temporary.replace(path)


def add_initializer(model: ir.Model, name: str, array: NDArray[Any]) -> ir.Value:
    """Add an initializer called `name`, or that with a number where it is taken, and return it."""
    count, free = 2, name
    while free in model.graph.initializers:
        free, count = f"{name}.{count}", count + 1
    added = ir.Value(name=free, const_value=ir.Tensor(array))
    model.graph.register_initializer(added)
    return added


def drop_unused_initializers(model: ir.Model) -> None:
    """Delete, in place, the weights that no node reads and that aren't outputs."""
    initializers = model.graph.initializers
    for name, value in list(initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del initializers[name]


def _read_tensor(value: ir.Value, path: Path) -> None:
    tensor = value.const_value
    assert tensor is not None
    try:
        value.const_value = as_array(tensor)
        value.const_value.numpy()
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:  # onnx_ir asserts that a type has its field
        raise InputError(
            f"{path}: weight '{value.name}' is damaged ({first_line(error)}); export or copy the file again"
        ) from error
