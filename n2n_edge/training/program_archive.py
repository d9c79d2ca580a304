"""Reading of ``.pt2`` programs that come from elsewhere: what `torch.export.load` would evaluate is checked before.

torch reads such a file with pickle, hands the text of symbolic sizes to SymPy, which evaluates it as Python, looks up
what a node calls by name, and writes names into code that it executes. So nothing is passed on but what is known to be
data: tensors, names, sizes, and calls of ATen operators.
"""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.training.program_expression import is_arithmetic

__all__ = ["checked_program"]

_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json|"
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)|"
    r"data/sample_inputs/model\.pt"
)
_GRAPH, _SAMPLE_INPUTS = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")

_NAME = re.compile(r"[\w.\-@]*", re.ASCII)
_STRING_ARGUMENT = re.compile(r"[\w.,:;>\- ]*", re.ASCII)
_OPERATORS = "add|sub|mul|floordiv|truediv|mod|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|abs"
_TARGET = re.compile(
    r"torch\.ops\.(?P<namespace>aten|prims|torchvision)\.(?P<name>\w+)(\.\w+)?|"
    r"torch\.ops\.higher_order\.(cond|wrap_with_set_grad_enabled|wrap_with_autocast)|"
    rf"_operator\.({_OPERATORS})|math\.(ceil|floor|trunc|sqrt)|"
    r"torch\._?sym_(float|int|ite|max|min|not|sum|sqrt)",
    re.ASCII,
)
_FORBIDDEN_OPS = frozenset({"from_file", "save", "warn", "_print"})
"""ATen operators that read or write outside the program."""

_TREES = frozenset(
    {
        None, "builtins.dict", "builtins.list", "builtins.tuple", "collections.OrderedDict",
        "torch.fx.immutable_collections.immutable_dict", "torch.fx.immutable_collections.immutable_list",
    }
)  # fmt: skip
_KEPT_METADATA = ("nn_module_stack", "torch_fn")


class _NotPlainError(Exception):
    """What in the file isn't plain data."""


def checked_program(path: Path) -> io.BytesIO:
    """Return the program in `path` as a new archive that holds nothing which torch would run while loading it.

    Guards, stack traces and files that a program doesn't need are left out.

    Raises:
        InputError: not such an archive, or it holds more than tensors and a graph of ATen operators.
    """
    try:
        members = _read(path)
        graph = _parsed(members[_GRAPH])
        members[_GRAPH] = json.dumps(_plain_graph(graph)).encode()
        for name in _CONFIGS:
            _check_payloads(_parsed(members[name]))
        _check_sample_inputs(members[_SAMPLE_INPUTS])
    except _NotPlainError as error:
        raise InputError(
            f"{path}: holds {printable(error)}; torch may run code from such a program when it loads it: export the "
            "network again with torch.export.save, or give ‹trust_pt2› if you trust where the file comes from"
        ) from error
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile, EOFError,
            NotImplementedError) as error:  # fmt: skip
        raise InputError(f"{path}: not a program of torch.export.save, or damaged; export it again") from error
    return _written(members)


def _read(path: Path) -> dict[str, bytes]:
    """Return the members by their names below the archive's own folder."""
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        if sum(item.file_size for item in archive.infolist()) > path.stat().st_size:
            raise _NotPlainError("more than its own size")
        if any(item.filename in ("version", "serialized_exported_program.json") for item in archive.infolist()):
            raise _NotPlainError("a program of torch 2.7 or older, which is kept as a pickle")
        for item in archive.infolist():
            name = item.filename.partition("/")[2]
            if name.startswith("extra/"):
                continue
            if not _MEMBERS.fullmatch(name):
                raise _NotPlainError(f"'{name or item.filename}', which is no part of a plain program")
            if name in members:
                raise _NotPlainError(f"'{name}' twice")
            if item.compress_type != zipfile.ZIP_STORED:
                raise _NotPlainError(f"'{name}' compressed, which torch doesn't write")
            members[name] = archive.read(item)
    missing = [name for name in (_GRAPH, *_CONFIGS, _SAMPLE_INPUTS, "archive_version") if name not in members]
    if missing:
        raise ValueError(missing[0])
    return members


def _written(members: Mapping[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(f"program/{name}", content)
    buffer.seek(0)
    return buffer


def _parsed(content: bytes) -> dict[str, Any]:
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def _check_payloads(config: Mapping[str, Any]) -> None:
    """Refuse weights and constants that are pickles or objects instead of bytes."""
    for name, payload in config["config"].items():
        _check_name(name)
        if payload["use_pickle"] is not False:
            raise _NotPlainError(f"'{name}' as a pickle")
        if not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"], re.ASCII):
            raise _NotPlainError(f"'{name}' as an object of its own kind ({payload['path_name']})")
        _walk(payload)


def _check_sample_inputs(content: bytes) -> None:
    """Refuse sample inputs for which torch would fall back to an unrestricted pickle."""
    if not content:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # zip and pickle errors of every kind
        raise _NotPlainError("sample inputs that aren't tensors alone") from error


def _plain_graph(document: dict[str, Any]) -> dict[str, Any]:
    """Return the graph's document without guards and traces, checked."""
    document["guards_code"] = []
    module = document["graph_module"]
    module["metadata"] = {}
    if module.get("treespec_namedtuple_fields"):
        raise _NotPlainError("inputs or outputs of a class of its own")
    _walk(document)
    return document


def _walk(value: Any, key: str = "") -> None:
    """Check every string below `value`, which stands under `key`, and strip nodes of their traces."""
    if isinstance(value, dict):
        if isinstance(value.get("metadata"), dict):
            value["metadata"] = {
                name: text for name, text in value["metadata"].items() if name in _KEPT_METADATA and _is_text(text)
            }
        for name, item in value.items():
            if name in ("custom_obj", "as_custom_obj", "class_fqn"):
                raise _NotPlainError("an object of a class of its own")
            _check_name(name)
            if name != "metadata" or not isinstance(item, dict):
                _walk(item, name)
    elif isinstance(value, list):
        for item in value:
            _walk(item, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _is_text(text: object) -> bool:
    return isinstance(text, str) and text.isprintable()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise _NotPlainError(f"{name[:80]!r} for a name")


def _check_text(text: str, key: str) -> None:
    if key == "expr_str":
        if not is_arithmetic(text):
            raise _NotPlainError(f"the expression {text[:80]!r}, which is more than arithmetic of symbols")
    elif key in ("target", "as_operator"):
        _check_target(text)
    elif key in ("in_spec", "out_spec"):
        for tree in _trees(json.loads(text)[1]):
            _check_tree(tree)
    elif key in ("as_string", "as_strings"):
        if not _STRING_ARGUMENT.fullmatch(text):
            raise _NotPlainError(f"the text {text[:80]!r}")
    elif key == "torch_version":
        if not re.fullmatch(r"[\w.+<=\-]*", text, re.ASCII):
            raise _NotPlainError(f"the version {text[:80]!r}")
    else:
        _check_name(text)


def _check_target(text: str) -> None:
    match = _TARGET.fullmatch(text)
    if match is None or match["name"] in _FORBIDDEN_OPS:
        raise _NotPlainError(f"a call of {text[:80]!r}")
    if match["name"] is not None and match["namespace"] == "aten":
        registered = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
        if f"aten::{match['name']}" not in registered:
            raise _NotPlainError(f"a call of {text[:80]!r}")


def _trees(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield tree
    for child in tree["children_spec"]:
        yield from _trees(child)


def _check_tree(tree: dict[str, Any]) -> None:
    if tree["type"] not in _TREES:
        raise _NotPlainError(f"inputs or outputs in a {str(tree['type'])[:80]!r}")
    context = tree["context"]
    parsed = json.loads(context) if isinstance(context, str) else context
    keys = parsed if isinstance(parsed, list) else [] if parsed is None else [parsed]
    if not all(isinstance(key, int | str) for key in keys):
        raise _NotPlainError("inputs or outputs with keys of a class of their own")
