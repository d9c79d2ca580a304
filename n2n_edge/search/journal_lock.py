"""The lock that gives a run to one process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from n2n_edge.errors import InputError

__all__ = ["acquire", "held", "release"]

_held: set[Path] = set()  # POSIX locks don't exclude the process that holds them


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep other processes from working on what `path` stands for; raises InputError where one does already."""
    lock = acquire(path)
    try:
        yield
    finally:
        release(path, lock)


def acquire(path: Path) -> TextIO:
    """Lock the run of the journal at `path` for this process; the lock goes when the process does, however it ends."""
    lock_path = path.with_name(path.name + ".lock")
    taken = InputError(f"{path.parent} is in use by another n2n-edge process: wait for it to end, or stop it")
    if lock_path.resolve() in _held:
        raise taken
    try:
        lock = lock_path.open("a")
    except OSError as error:
        raise InputError(f"{path.parent} can't be written ({error.strerror}): choose another ‹out›") from error
    try:
        # lockf, not flock: a data loader's child doesn't inherit it, so an orphan can't keep a run locked.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise taken from error
    _held.add(lock_path.resolve())
    return lock


def release(path: Path, lock: TextIO) -> None:
    _held.discard(path.with_name(path.name + ".lock").resolve())
    lock.close()
