"""Decoded images in a file under a limit."""

import os
import weakref
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import IO

import numpy as np
from numpy.typing import NDArray

__all__ = ["KEPT", "MISSING", "REPLACED", "PixelCache"]

MISSING, KEPT, REPLACED = 0, 1, 2
"""Marks of an image: not there, there, and there in place of one that can't be read."""


_LOOK_EVERY = 64
"""Images after which a process looks what others have added to their common file."""


class PixelCache:
    """Decoded images in a file: a byte per image that tells whether it is there, then the images.

    It is read and written by place instead of mapped: mapped pages would count as this process's memory, and a full
    disk would end it. A row is written before its mark, so several processes may share a file, and one that was left
    by a killed process is sound.
    """

    def __init__(self, path: Path | None, rows: int, row_bytes: int, limit_bytes: float) -> None:
        self._rows, self._row_bytes = rows, row_bytes
        self._most = self._room = max(0, min(rows, int((limit_bytes - rows) // row_bytes)))
        self.bytes = rows + self._most * row_bytes if self._most else 0
        self._shared, self._puts = path is not None, 0
        self._lock = Lock()
        self._file: IO[bytes] | None = None
        self.marks = np.zeros(rows, np.uint8)
        if not self._room:
            return
        if path is None:
            self._file = TemporaryFile(buffering=0)  # noqa: SIM115
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b", buffering=0)
        weakref.finalize(self, self._file.close)
        if not self._look():
            self._write(0, bytes(rows))

    def _look(self) -> bool:
        """Read what is kept; other processes may have added to it. Tell whether the file says."""
        kept = self._read(0, self._rows)
        if len(kept) != self._rows:
            return False
        self.marks = np.frombuffer(kept, np.uint8).copy()
        self._room = self._most - int(np.count_nonzero(self.marks))
        return True

    def get(self, row: int) -> NDArray[np.uint8] | None:
        """Return the bytes of a row; None where it isn't kept."""
        if self.marks[row] == MISSING or self._file is None:
            return None
        content = self._read(self._rows + row * self._row_bytes, self._row_bytes)
        return np.frombuffer(content, np.uint8) if len(content) == self._row_bytes else None

    def put(self, row: int, pixels: NDArray[np.uint8], mark: int) -> None:
        """Keep a row while there is room; a full disk ends the keeping, not the run."""
        if self._file is None:
            return
        with self._lock:
            self._puts += 1
            look = self._shared and self._puts % _LOOK_EVERY == 0
        if look:
            self._look()
        with self._lock:
            if self._room <= 0:
                return
            self._room -= 1
        try:
            self._write(self._rows + row * self._row_bytes, pixels.tobytes())
            self._write(row, bytes([mark]))
        except OSError:
            self._most = self._room = 0
            return
        self.marks[row] = mark

    def _read(self, start: int, count: int) -> bytes:
        assert self._file is not None
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, start)
        with self._lock:
            self._file.seek(start)
            return self._file.read(count)

    def _write(self, start: int, content: bytes) -> None:
        assert self._file is not None
        if hasattr(os, "pwrite"):
            written = os.pwrite(self._file.fileno(), content, start)
            if written != len(content):
                raise OSError("short write")
            return
        with self._lock:
            self._file.seek(start)
            self._file.write(content)
