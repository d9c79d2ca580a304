"""Writing files in one step, and text into Markdown."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from n2n_edge.errors import InputError

__all__ = ["markdown_text", "refuse_unwritable", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step, so that a reader never sees half of it.

    A link stays a link and a file keeps its permissions; what is no file, such as a pipe, is written to as it is.

    Raises:
        OSError: it can't be written; nothing is left behind.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}.part")
    try:
        partial.write_bytes(text.encode("utf-8"))
        if path.exists():
            shutil.copymode(path, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def markdown_text(text: str) -> str:
    """Keep free text from breaking a table or a line of Markdown, or from bringing markup of its own."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def refuse_unwritable(*files: Path | None, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse, before anything is worked out, what couldn't be written after it; None stands for no file.

    Raises:
        InputError: a path is a folder, its folder doesn't exist, it stands for two outputs, or for one of the `inputs`.
    """
    taken = {path.resolve() for path in inputs if path is not None}
    for file in files:
        if file is None:
            continue
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise InputError(f"{file}: can't be written, its folder doesn't exist or it is one; give another path")
        if file.resolve() in taken:
            raise InputError(f"{file}: is given twice, or is a file that is read; give another path to write to")
        taken.add(file.resolve())
