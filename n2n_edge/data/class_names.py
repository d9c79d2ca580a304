"""Names of classes in the order of a teacher's outputs, one a line."""

from collections import Counter
from pathlib import Path

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.reading import read_text

__all__ = ["read_class_names"]


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read a file of class names; raises InputError where it isn't one."""
    where = f"‹classes› {printable(path)}"
    names = [line.strip() for line in read_text(path, "a text file with one class name a line").split("\n")]
    while names and not names[-1]:
        names.pop()
    if len(names) < 2:
        raise InputError(f"{where}: holds {len(names)} lines; give one class name a line, at least two")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{where}: '{printable(twice[0])}' stands there twice; name each class once")
    if "" in names:
        raise InputError(f"{where}: line {names.index('') + 1} is empty; name a class there, or remove it")
    return tuple(names)
