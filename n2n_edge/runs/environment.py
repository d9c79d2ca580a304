"""Environment of a run: the number of threads it keeps, full disks and folders that are taken away."""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from n2n_edge.errors import N2NError, UnsuitableEnvironmentError
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.settings import CompressSettings

__all__ = ["explained_failures", "threads_of_run"]

_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = ("no space left", "disk is full", "quota exceeded", "file too large")
_NO_ROOM_BYTES = 1_000_000


@contextmanager
def explained_failures(folder: Path, command: str) -> Iterator[None]:
    """Turn errors that come from a full disk, or from a `folder` that has gone, into one line that says what to do.

    `command` goes on with what was begun there. Other errors pass as they are.

    Raises:
        UnsuitableEnvironmentError: the disk is full, or the folder was moved, removed or closed to this user.
    """
    try:
        yield
    except N2NError:
        raise
    except Exception as error:
        text = _explanation(folder, command, error)
        if text is None:
            raise
        raise UnsuitableEnvironmentError(text) from error


def _explanation(folder: Path, command: str, error: Exception) -> str | None:
    chain = _chain(error)
    if not any(_is_of_writing(each) for each in chain):
        return None
    if not folder.is_dir():
        return (
            f"{folder} was moved or removed while the run went on: put it back, or name its new place, and go on with "
            f"`{command}`"
        )
    if any(_says_full(each) for each in chain) or shutil.disk_usage(folder).free < _NO_ROOM_BYTES:
        return f"{folder}: the disk is full; make room, then go on with `{command}`"
    refused = next((each for each in chain if isinstance(each, PermissionError)), None)
    if refused is not None and str(folder) in str(refused.filename):
        return f"{refused.filename}: {refused.strerror}; mend its permissions, then go on with `{command}`"
    return None


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _is_of_writing(error: BaseException) -> bool:
    """Tell whether an error may come from writing a file: the system's, or what a library makes of it."""
    return (
        isinstance(error, OSError | sqlite3.Error)
        or type(error).__name__ == "SafetensorError"
        or "writ" in str(error).lower()
        or _says_full(error)
    )


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL_ERRORS:
        return True
    return any(words in str(error).lower() for words in _FULL_WORDS)


@contextmanager
def threads_of_run(settings: CompressSettings, callback: RunCallback) -> Iterator[CompressSettings]:
    """Calculate in torch with the run's number of threads while in the block; a run that has none yet takes today's.

    Sums are rounded by how they are shared among threads, so a run can only go on to the same student with its own.
    """
    import torch

    before = torch.get_num_threads()
    threads = settings.threads or before
    if threads != before:
        callback.on_message(
            f"this run was begun with {threads} thread{'s' if threads > 1 else ''}; it goes on with as many instead of "
            f"{before} (OMP_NUM_THREADS), since its results depend on it"
        )
        torch.set_num_threads(threads)
    try:
        yield replace(settings, threads=threads)
    finally:
        torch.set_num_threads(before)
