"""Writing files in one step, and text into Markdown."""

import os
from pathlib import Path

from n2n_edge.errors import InputError

__all__ = ["markdown_text", "refuse_unwritable", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step, so that a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def markdown_text(text: str) -> str:
    """Keep free text from breaking a table or a line of Markdown, or from bringing markup of its own."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def refuse_unwritable(*files: Path | None) -> None:
    """Refuse, before anything is worked out, what couldn't be written after it; None stands for no file.

    Raises:
        InputError: a path is a folder, or its folder doesn't exist.
    """
    for file in files:
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise InputError(f"{file}: can't be written, its folder doesn't exist or it is one; give another path")
