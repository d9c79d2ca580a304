"""Names that tell files apart, as tables and verdicts show them."""

from collections.abc import Sequence
from pathlib import Path, PurePath

from n2n_edge.foreign import printable

__all__ = ["names_of"]


def names_of(paths: Sequence[PurePath | str]) -> tuple[str, ...]:
    """Return a name for each file: its own, with as many of its parents before it as tell it from the others.

    A file that is given more than once is numbered from the second time on. A terminal can show names as they are.

        >>> names_of(["old/model.onnx", "new/model.onnx", "other.onnx"])
        ('old/model.onnx', 'new/model.onnx', 'other.onnx')
    """
    files = [Path(path) for path in paths]
    depths = dict.fromkeys(files, 1)
    while alike := _alike(depths):
        for file in alike:
            depths[file] += 1
    names: list[str] = []
    for file in files:
        name, number = printable(_tail(file, depths[file])), 1
        while _numbered(name, number) in names:
            number += 1
        names.append(_numbered(name, number))
    return tuple(names)


def _alike(depths: dict[Path, int]) -> list[Path]:
    """Return the files that share their name with another, and have a parent yet to be named."""
    by_name: dict[str, list[Path]] = {}
    for file, depth in depths.items():
        by_name.setdefault(printable(_tail(file, depth)), []).append(file)
    return [file for files in by_name.values() if len(files) > 1 for file in files if depths[file] < len(file.parts)]


def _tail(file: Path, depth: int) -> str:
    return str(Path(*file.parts[-depth:])) if file.parts else str(file)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} ({number})"
