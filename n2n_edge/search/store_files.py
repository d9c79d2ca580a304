"""Lock of a run's journal, and the errors of its file in one line that says what to do."""

import fcntl
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from n2n_edge.errors import InputError, N2NError, UnsuitableEnvironmentError

__all__ = ["acquire", "damaged", "failure", "held", "missing", "release"]

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


def failure(path: Path, error: sqlite3.Error) -> N2NError:
    """Return the error of one line for what SQLite says of the journal at `path`."""
    code = str(getattr(error, "sqlite_errorname", ""))
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return UnsuitableEnvironmentError(
            f"{path}: another program keeps it locked; end that program, then {_resume(path)}"
        )
    if code == "SQLITE_FULL":
        return UnsuitableEnvironmentError(f"{path}: the disk is full; make room, then {_resume(path)}")
    if code.startswith(("SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_NOMEM")):
        return UnsuitableEnvironmentError(
            f"{path}: can't be read or written ({error}); check the disk and the permissions, then {_resume(path)}"
        )
    return damaged(path, str(error))


def damaged(path: Path, what: str) -> InputError:
    """Return the error for a journal whose content isn't what a run writes."""
    return InputError(f"{path} is damaged ({what}): restore it from a copy, or start a new run with another ‹out›")


def missing(path: Path) -> UnsuitableEnvironmentError:
    """Return the error for a journal that was taken away from under its run."""
    return UnsuitableEnvironmentError(
        f"{path} was moved, removed or replaced while the run went on: put it back, then {_resume(path)}; or start a "
        "new run with another ‹out›"
    )


def _resume(path: Path) -> str:
    return f"go on with `n2n-edge compress --resume --out {shlex.quote(str(path.parent))}`"
