"""Globs over the paths below a folder: ``*`` within a name, ``**`` over folders."""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from n2n_edge.reading import is_file

__all__ = ["files_below", "glob_matches", "glob_parts"]

_FOLDERS = "**"


def glob_parts(glob: str) -> tuple[str, ...]:
    """Return the parts of a glob; ``**`` twice in a row says no more than once."""
    parts: list[str] = []
    for part in glob.split("/"):
        if part not in ("", ".") and not (part == _FOLDERS and parts[-1:] == [_FOLDERS]):
            parts.append(part)
    return tuple(parts)


def glob_matches(globs: Sequence[str], parts: Sequence[str]) -> bool:
    """Tell whether a glob, in parts, names a path, in parts."""
    if sum(glob != _FOLDERS for glob in globs) > len(parts):
        return False
    behind = _leaps(globs, {0})
    for part in parts:
        behind = _leaps(globs, _step(globs, behind, part))
    return len(globs) in behind


def files_below(folder: Path, globs: Sequence[str]) -> Iterator[Path]:
    """Yield the files below a folder that a glob names, each once; ``**`` follows no links, which may lead in circles.

    Every folder is looked into at most once; those that may not be are passed over.
    """
    waiting = [(folder, _leaps(globs, {0}))]
    while waiting:
        here, behind = waiting.pop()
        try:
            entries = list(os.scandir(here))
        except OSError:
            continue
        for entry in entries:
            path = here / entry.name
            after = _step(globs, behind, entry.name, stays=not entry.is_symlink())
            if len(globs) in after and is_file(path):
                yield path
            elif after and _is_folder(entry):
                waiting.append((path, _leaps(globs, after)))


def _step(globs: Sequence[str], behind: set[int], name: str, stays: bool = True) -> set[int]:
    """Return how many parts of a glob may lie behind one more name, given how many may have before it."""
    after = set()
    for count in behind:
        if count == len(globs):
            continue
        if globs[count] == _FOLDERS:
            after |= {count} if stays else set()
        elif fnmatchcase(name, globs[count]):
            after.add(count + 1)
    return after


def _leaps(globs: Sequence[str], behind: set[int]) -> set[int]:
    """Add what lies behind when ``**`` stands for no folder."""
    return behind | {count + 1 for count in behind if count < len(globs) and globs[count] == _FOLDERS}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
