"""The text in a model file: names have to be UTF-8, descriptions that aren't are dropped."""

from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]

from n2n_edge.errors import InputError

__all__ = ["check_text"]

_DESCRIPTIONS = frozenset({"denotation", "doc_string", "metadata_props", "producer_name", "producer_version"})
"""Fields that say something about a model and change nothing in it."""

_NOT_READ = frozenset({"training_info"})


def check_text(proto: onnx.ModelProto, path: Path) -> None:
    """Drop, in place, descriptions that aren't UTF-8: ONNX Runtime runs such a model, but none could be written again.

    Raises:
        InputError: a name isn't UTF-8.
    """
    if _is_damaged(proto.domain):  # the model's own, unlike that of an operator, is a description
        proto.ClearField("domain")
    _check(proto, path)


def _check(message: Message, path: Path) -> None:
    for field, content in _fields(message):
        if field.name in _NOT_READ:
            continue
        each = list(content) if field.is_repeated else [content]
        if field.type == FieldDescriptor.TYPE_STRING:
            bad = next((text for text in each if _is_damaged(text)), None)
            if bad is not None and field.name not in _DESCRIPTIONS:
                raise InputError(f"{path}: holds a name that isn't UTF-8 ({bad!r}); export it again")
            if bad is not None:
                message.ClearField(field.name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and field.name == "metadata_props":
            sound = [entry for entry in each if not _is_damaged(entry.key) and not _is_damaged(entry.value)]
            if len(sound) < len(each):
                del content[:]
                content.extend(sound)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in each:
                _check(part, path)


def _fields(message: Message) -> list[tuple[FieldDescriptor, Any]]:
    """Return the fields that are set; of tensors only those of text, since asking for the others copies weights."""
    if isinstance(message, onnx.TensorProto):
        fields = message.DESCRIPTOR.fields_by_name
        return [(fields[name], getattr(message, name)) for name in ("name", "doc_string", "metadata_props")]
    return list(message.ListFields())


def _is_damaged(text: str | bytes) -> bool:
    """Tell whether a text is none: protobuf gives what isn't UTF-8 as bytes."""
    return isinstance(text, bytes)
