"""Reading small files that anybody may have written: configuration, lists, documents."""

import codecs
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from n2n_edge.errors import InputError

__all__ = [
    "MOST_BYTES", "exists", "expanded", "is_file", "parse_json", "read_json", "read_text", "read_toml", "real_path",
]  # fmt: skip

MOST_BYTES = 10_000_000
"""More than any file that people write; what is larger isn't read."""

_MOST_KEY_PARTS = 64
"""tomllib takes time and memory with the square of a key's parts."""

_NO_KEYS = re.compile(r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*+"|\'[^\'\n]*+\'|#[^\n]*+', re.DOTALL)
_LONG_KEY = re.compile(rf"(?:[\w-]*+[ \t]*+\.[ \t]*+){{{_MOST_KEY_PARTS}}}")


def read_text(path: Path, wanted: str = "the path of a text file", most_bytes: int = MOST_BYTES) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        InputError: it can't be read, is no regular file (a device or a pipe may never end), is too large, or isn't
            UTF-8; the message asks for `wanted`.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise InputError(f"{path}: can't be read, it is {kind}; give {wanted}")
        with path.open("rb") as stream:
            data = stream.read(most_bytes + 1)
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte in the name; a link that leads to itself
        raise InputError(f"{path}: can't be read ({_reason(error)}); give {wanted}") from error
    if len(data) > most_bytes:
        raise InputError(f"{path}: can't be read, it is larger than {most_bytes / 1e6:g} MB; give {wanted}")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: can't be read, it isn't UTF-8 text ({error.reason}); give {wanted}") from error


def read_toml(path: Path, text: str | None = None, wanted: str = "the path of a TOML file") -> dict[str, Any]:
    """Return the tables of a TOML file (`text` stands in for the file's).

    Raises:
        InputError: as from `read_text`, or it isn't TOML, or nested too deeply.
    """
    text = read_text(path, wanted) if text is None else text
    if _LONG_KEY.search(_NO_KEYS.sub("_", text)):
        raise InputError(f"{path}: not readable as TOML (a key of more than {_MOST_KEY_PARTS} parts); mend it")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: not readable as TOML (nested too deeply); mend it") from error
    except ValueError as error:  # wrong TOML, or a number of thousands of digits
        raise InputError(f"{path}: not readable as TOML ({error}); mend it") from error


def is_file(path: Path) -> bool:
    """Tell whether a path leads to a file; one that the system refuses to look at doesn't."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Tell whether there is something at a path; what the system refuses to look at isn't there."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def real_path(path: Path) -> Path:
    """Return an absolute path without links; of links in a circle, as far as they lead."""
    return Path(os.path.realpath(path))


def read_json(path: Path, wanted: str, most_bytes: int = 100 * MOST_BYTES) -> Any:
    """Return what a JSON file holds.

    Raises:
        InputError: as from `read_text`, or it isn't JSON.
    """
    try:
        return parse_json(read_text(path, wanted, most_bytes))
    except ValueError as error:
        raise InputError(f"{path}: can't be read as JSON ({error}); give {wanted}") from error


def parse_json(text: str) -> Any:
    """Return what a text holds as JSON; raises ValueError where it isn't JSON, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` expanded; where nobody's home is known by that name it is a file's own name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
