"""Read an ONNX file, refusing with one line whatever can't be a model."""

from collections.abc import Collection
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes import common

from n2n_edge.errors import InputError

__all__ = [
    "GENERATED_NAME",
    "as_array",
    "drop_unused_initializers",
    "load_model",
    "save_model",
    "serialize",
    "to_proto",
]


GENERATED_NAME = "generated name"
"""Key in the `meta` of nodes whose name isn't their file's."""


def load_model(path: Path | str) -> ir.Model:
    """Return the model in `path`, its weights in memory.

    Raises:
        InputError: no such file, not ONNX, truncated, external data missing or outside the model's folder.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; give the path of an ONNX model")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the path of an ONNX model file")
    proto = _parse(path)
    _check_external_data(proto, path)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
        for tensor in proto.graph.initializer:
            tensor.ClearField("data_location")
        onnx.checker.check_model(proto)
        model = ir.from_proto(proto)
    except (onnx.checker.ValidationError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a valid ONNX model ({_first_line(error)}); export it again") from error
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    for value in model.graph.initializers.values():
        _read_tensor(value, path)
    return model


def as_array(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor that is held as a numpy array: candidates slice it again and again."""
    if not isinstance(tensor, ir.TensorProtoTensor) or tensor.dtype == ir.DataType.STRING or tensor.dtype.itemsize < 1:
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def serialize(model: ir.Model) -> bytes:
    """Return the bytes of the model as one ONNX file."""
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


def save_model(model: ir.Model, path: Path) -> None:
    """Write `model` to `path` in one step: a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(serialize(model))
    temporary.replace(path)


def drop_unused_initializers(model: ir.Model) -> None:
    """Delete, in place, the weights that no node reads and that aren't outputs."""
    initializers = model.graph.initializers
    for name, value in list(initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del initializers[name]


def _parse(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(str(path), load_external_data=False, format="protobuf")
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not an ONNX file, or cut short; export or copy it again") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); check the file") from error
    if not proto.graph.node or not proto.graph.output:
        raise InputError(f"{path}: holds no ONNX graph, or was cut short; export or copy it again")
    return proto


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        data = (folder / location).resolve()
        if not location or not data.is_relative_to(folder):
            raise InputError(
                f"{path}: weight '{tensor.name}' lies outside the model's folder ({location!r}); "
                "keep external data beside the model"
            )
        if not data.is_file():
            raise InputError(f"{path}: external data '{location}' is missing; put it beside the model")


def _read_tensor(value: ir.Value, path: Path) -> None:
    tensor = value.const_value
    assert tensor is not None
    try:
        value.const_value = as_array(tensor)
        value.const_value.numpy()
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path}: weight '{value.name}' is damaged ({_first_line(error)}); export or copy the file again"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].strip() or type(error).__name__
