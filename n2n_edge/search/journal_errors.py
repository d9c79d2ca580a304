"""What can be wrong with a journal, in one line that says what to do."""

import shlex
import sqlite3
from pathlib import Path

from n2n_edge.errors import InputError, N2NError, UnsuitableEnvironmentError

__all__ = ["damaged", "failure", "gone"]


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


def gone(path: Path) -> UnsuitableEnvironmentError:
    """Return the error for a journal that was taken away from under its run."""
    return UnsuitableEnvironmentError(
        f"{path} was moved, removed or replaced while the run went on: put it back, then {_resume(path)}; or start a "
        "new run with another ‹out›"
    )


def _resume(path: Path) -> str:
    return f"go on with `n2n-edge compress --resume --out {shlex.quote(str(path.parent))}`"
