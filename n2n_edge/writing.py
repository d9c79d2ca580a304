"""Writing files in one step, and text into TOML and Markdown."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from n2n_edge.errors import InputError
from n2n_edge.foreign import encodable, printable
from n2n_edge.reading import real_path

__all__ = ["markdown_code", "markdown_text", "refuse_unwritable", "toml_text", "toml_value", "write_text"]

_PARTIAL_BYTES = 100

_MARKUP = re.compile(r"[\\`*\[\]|$~]|(?<!\w)_|_(?!\w)|^(?=[#>]|[+-](?:\s|$))|^\d+(?=[.)](?:\s|$))")
_LINKED = re.compile(r"(?<![a-zA-Z0-9])@(?=\w)|#(?=\d)|\bhttps?(?=://)|\bwww(?=\.)")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step, so that a reader never sees half of it; lone surrogates are escaped.

    A link stays a link and a file keeps its permissions; what is no file, such as a pipe, is written to as it is.

    Raises:
        OSError: it can't be written; nothing is left behind.
    """
    path = real_path(path) if path.is_symlink() else path
    data = text.encode("utf-8", "backslashreplace")
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    name = os.fsdecode(os.fsencode(path.name)[:_PARTIAL_BYTES])
    partial = path.with_name(f".{name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        if path.exists():
            shutil.copymode(path, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def toml_text(text: str) -> str:
    """Return text as a basic string of TOML: as in JSON, but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_value(value: object) -> str:
    """Return a string, number, truth value, or a list or mapping of these, as TOML on one line.

    Raises:
        InputError: a string isn't Unicode, as of a file name that isn't UTF-8.
    """
    if isinstance(value, str):
        if encodable(value) != value:
            raise InputError(f"{printable(value)}: TOML can't hold a name that isn't UTF-8; rename it")
        return toml_text(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{toml_text(str(key))} = {toml_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, Sequence):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return str(value) if isinstance(value, float) else json.dumps(value)


def markdown_text(text: str) -> str:
    """Return free text that stays on its line or in its cell, and shows as it is written.

    It brings no markup of its own: no picture, link, mention of a person or issue, formula, or HTML.
    """
    line = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    line = _MARKUP.sub(lambda found: found[0] + "\\" if found[0].isdecimal() else "\\" + found[0], line)
    return _LINKED.sub(lambda found: found[0] + "&#8203;", line)


def markdown_code(text: str) -> str:
    """Return text in the type of code, for a line or a cell; ticks of its own would end it early."""
    line = printable(" ".join(text.split())).replace("`", "'")
    return f"`{line.replace('|', chr(92) + '|').replace('<', '&lt;')}`"


def refuse_unwritable(*files: Path | None, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse, before anything is worked out, what couldn't be written after it; None stands for no file.

    Raises:
        InputError: a path is a folder, its folder doesn't exist or is read-only, it stands for two outputs or for one
            of the `inputs`, or the system refuses to look at it.
    """
    taken = {real_path(path) for path in inputs if path is not None}
    for file in files:
        if file is None:
            continue
        try:
            unusable = file.is_dir() or not file.absolute().parent.is_dir()
            locked = not file.exists() and not os.access(file.absolute().parent, os.W_OK)
        except OSError as error:
            raise InputError(f"{file}: can't be written ({error.strerror}); give another path") from error
        if unusable:
            raise InputError(f"{file}: can't be written, its folder doesn't exist or it is one; give another path")
        if locked:
            raise InputError(f"{file}: can't be written, its folder is read-only; give another path")
        if real_path(file) in taken:
            raise InputError(f"{file}: is given twice, or is a file that is read; give another path to write to")
        taken.add(real_path(file))
