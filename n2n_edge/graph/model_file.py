"""Files of a model: an ONNX file, the external data beside it, and what sparse weights stand for."""

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from n2n_edge.errors import InputError

__all__ = [
    "MESSAGE_BYTES", "check_message_size", "check_path", "data_files", "densify", "file_size_bytes", "holders",
    "holders_within", "is_ort", "model_files", "nodes_with_bodies", "read_external_data", "read_proto", "to_bytes",
]  # fmt: skip

Holder = onnx.GraphProto | onnx.FunctionProto
"""What holds nodes."""

MESSAGE_BYTES = 2**31 - 1
"""What one ONNX message may hold."""

_MOST_DENSE_ELEMENTS = 2**26
"""How many elements the sparse weights of one file may stand for."""


def check_path(path: Path) -> None:
    """Refuse what can't be a model file before anything is read from it: devices and pipes may never end.

    Raises:
        InputError: there is no such file, it can't be looked at, it is no regular file, it is empty or over 2 GB.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give the path of an ONNX model") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); check the path") from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{path}: can't be read ({error}); check the path") from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path}: is a folder; give the path of an ONNX model file")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: is a device, pipe or socket; give the path of an ONNX model file")
    if not found.st_size:  # what the kernel shows as files, below /proc, has no size, and reading it may never end
        raise InputError(f"{path}: is empty: not an ONNX file, or cut short; export or copy it again")
    if found.st_size > MESSAGE_BYTES:
        raise InputError(f"{path}: is over 2 GB, more than one ONNX file may hold; save it with external data")


def check_message_size(size: int) -> None:
    """Refuse to write a model of `size` bytes that one ONNX file can't hold.

    Raises:
        InputError: it is over 2 GB.
    """
    if size > MESSAGE_BYTES:
        raise InputError(
            f"the model holds {size / 1e9:.2f} GB, and one ONNX file may hold {MESSAGE_BYTES / 1e9:.2f} GB: "
            "it can't be run in parts, written or compressed; give a smaller one"
        )


def to_bytes(proto: onnx.ModelProto) -> bytes:
    """Return `proto` as one ONNX file.

    Raises:
        InputError: it is over 2 GB.
    """
    try:
        content = bytes(proto.SerializeToString())
    except EncodeError as error:  # what protobuf says of more than 2 GB
        raise InputError(
            "the model holds over 2 GB, more than one ONNX file may: it can't be run in parts, written or compressed; "
            "give a smaller one"
        ) from error
    check_message_size(len(content))
    return content


def read_proto(path: Path) -> onnx.ModelProto:
    """Return the model in `path` as it is written there, external data not read.

    Raises:
        InputError: as for `check_path`; not ONNX, or cut short.
    """
    check_path(path)
    try:
        proto = onnx.load(str(path), load_external_data=False, format="protobuf")
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not an ONNX file, or cut short; export or copy it again") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); check the file") from error
    if not proto.graph.node or not proto.graph.output:
        raise InputError(f"{path}: holds no ONNX graph, or was cut short; export or copy it again")
    return proto


def data_files(proto: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Return the external data files that a model names: location as written to path.

    A file counts as beside the model if it lies in the model's folder, or, where the model is a link, in the folder
    that the link leads to, as in caches that keep all files as links into one store.

    Raises:
        InputError: a file that lies elsewhere, or is missing.
    """
    found: dict[str, Path] = {}
    try:
        homes = {path.parent.resolve(), path.resolve().parent}
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: its folder can't be looked up ({error}); check the path") from error
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if location in found:
            continue
        outside = InputError(
            f"{path}: weight '{tensor.name}' lies outside the model's folder ({_shortened(location)!r}); "
            "keep external data beside the model"
        )
        if not location or location == ".":
            raise outside
        try:
            data = path.parent / location
            real = data.resolve()
            present = real.is_file()
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{path}: external data {_shortened(location)!r} is no file name ({error.args[-1]}); export it again"
            ) from error
        if not any(real.is_relative_to(home) for home in homes):
            raise outside
        if not present:
            raise InputError(f"{path}: external data '{_shortened(location)}' is missing; put it beside the model")
        found[location] = data
    return found


def read_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Put, in place, the content of external data into the tensors of `proto`.

    Raises:
        InputError: as for `data_files`; data that is cut short, or over 2 GB in all.
    """
    files = data_files(proto, path)
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        content = _content(files[entries["location"]], entries, tensor.name, path)
        tensor.raw_data = content
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def is_ort(path: Path) -> bool:
    """Tell whether a file is in the runtime's own format, which holds everything and which only it can read."""
    return path.suffix.lower() == ".ort"


def model_files(path: Path) -> list[Path]:
    """Return a model file and the external data files that it names.

    Raises:
        InputError: no ONNX file, or one whose external data is missing or lies elsewhere.
    """
    if is_ort(path):
        check_path(path)
        return [path]
    return [path, *data_files(read_proto(path), path).values()]


def file_size_bytes(path: Path) -> int:
    """Return the bytes of a model file and of its external data; raises as `model_files` does."""
    return sum(part.stat().st_size for part in model_files(path))


def densify(proto: onnx.ModelProto, path: Path) -> None:
    """Turn, in place, sparse weights into the dense ones that they stand for.

    Raises:
        InputError: they are damaged, or stand for far more than a file of weights holds.
    """
    spare = _MOST_DENSE_ELEMENTS
    for holder in holders(proto):
        if isinstance(holder, onnx.GraphProto):
            for sparse in holder.sparse_initializer:
                dense = _dense(sparse, sparse.values.name, spare, path)
                spare -= dense.size
                holder.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
            del holder.sparse_initializer[:]
        for node in holder.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.name == "sparse_value":
                    dense = _dense(attribute.sparse_tensor, node.output[0] if node.output else "", spare, path)
                    spare -= dense.size
                    attribute.CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(dense)))


def _dense(
    sparse: onnx.SparseTensorProto, name: str, spare: int, path: Path
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    dims = tuple(sparse.dims)
    size = 1
    for dim in dims:
        size *= dim
    if any(dim < 0 for dim in dims) or size > spare:
        shape = "x".join(map(str, dims))
        raise InputError(f"{path}: sparse weight '{name}' is declared as {shape}, which is too large; export it dense")
    try:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        places = indices.T if indices.ndim == 2 else np.unravel_index(indices, dims)
        dense = np.zeros(dims, values.dtype)
        if indices.size and indices.min() < 0:
            raise ValueError("negative index")
        dense[tuple(places)] = values
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{path}: sparse weight '{name}' is damaged ({error}); export it dense") from error
    return dense


def holders(proto: onnx.ModelProto) -> Iterator[Holder]:
    """Yield all that holds nodes: the graph, the functions, and the bodies of control flow in both."""
    return holders_within([proto.graph, *proto.functions])


def holders_within(roots: Iterable[Holder]) -> Iterator[Holder]:
    """Yield `roots`, and the bodies of control flow in them."""
    waiting = list(roots)
    while waiting:
        holder = waiting.pop()
        yield holder
        for attribute in _attributes(holder):
            waiting += _bodies(attribute)


def nodes_with_bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield `nodes`, and those in the bodies of control flow that they hold."""
    waiting: list[Iterable[onnx.NodeProto]] = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting += [body.node for attribute in node.attribute for body in _bodies(attribute)]


def _bodies(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _attributes(holder: Holder) -> Iterator[onnx.AttributeProto]:
    for node in holder.node:
        yield from node.attribute
    if isinstance(holder, onnx.FunctionProto):
        yield from holder.attribute_proto


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model, the parts of sparse ones included."""
    for holder in holders(proto):
        sparse: list[onnx.SparseTensorProto] = []
        if isinstance(holder, onnx.GraphProto):
            yield from holder.initializer
            sparse += holder.sparse_initializer
        for attribute in _attributes(holder):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse += [*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])]
            sparse += attribute.sparse_tensors
        for each in sparse:
            yield from (each.values, each.indices)


def _content(data: Path, entries: dict[str, str], name: str, path: Path) -> bytes:
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or -1)
        size = data.stat().st_size
        if offset < 0 or offset + max(length, 0) > size:
            raise ValueError(f"bytes {offset} to {offset + length} of a file of {size}")
        with data.open("rb") as file:
            file.seek(offset)
            return file.read(length if length >= 0 else size - offset)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: weight '{name}' is damaged (external data: {error}); export or copy the files again"
        ) from error


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}..."
