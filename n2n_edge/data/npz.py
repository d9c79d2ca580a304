"""Arrays of an ``.npz`` file: what a header declares is checked before anything is unpacked."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import psutil
from numpy.lib import format as npy
from numpy.typing import NDArray

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable

__all__ = ["Archive", "open_archive"]

_KINDS = "buif"
_BOMB_RATIO, _BOMB_BYTES = 500, 64_000_000
"""Images don't shrink 500 times in an archive; what unpacks to so much more than it takes is made to fill memory."""
_PIECE = 1 << 24


@dataclass(frozen=True)
class Archive:
    """An open file; `names` are those of its arrays."""

    path: Path
    zip: zipfile.ZipFile
    names: tuple[str, ...]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape that an array's header declares."""
        with self._open(name) as (_, header):
            return header.shape

    def read(self, name: str) -> NDArray[np.generic]:
        """Return an array of numbers.

        Raises:
            InputError: it holds anything but numbers, it is damaged, or more than this machine's memory can take.
        """
        where = f"'{name}' of '{self.path}'"
        with self._open(name) as (file, header):
            info = self.zip.getinfo(f"{name}.npy")
            count = int(np.prod(header.shape, dtype=object)) if header.shape else 1
            size = count * header.dtype.itemsize
            if size > info.file_size:
                raise InputError(f"{where} declares the shape {header.shape}, but the file ends before: write it anew")
            if size > _BOMB_BYTES and size > _BOMB_RATIO * max(1, info.compress_size):
                raise InputError(
                    f"{where} unpacks to {size / 1e6:,.0f} MB, {size // max(1, info.compress_size):,} times its size "
                    "in the file: these are no images"
                )
            free = psutil.virtual_memory().available
            if size > free:
                raise InputError(
                    f"{where} takes {size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB of memory are free: give a folder "
                    "of images, or fewer"
                )
            flat = np.empty(count, header.dtype)
            raw, start = flat.view(np.uint8), 0
            while start < size:
                piece = np.frombuffer(file.read(min(_PIECE, size - start)), np.uint8)
                if not len(piece):
                    raise InputError(f"{where} ends too early: write it anew")
                raw[start : start + len(piece)] = piece
                start += len(piece)
        return flat.reshape(header.shape[::-1]).transpose() if header.fortran_order else flat.reshape(header.shape)

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[IO[bytes], "_Header"]]:
        with _readable(self.path), self.zip.open(f"{name}.npy") as file:
            yield file, _header(f"'{name}' of '{self.path}'", file)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[np.generic]


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an ``.npz`` file; raises InputError where it isn't one."""
    with _readable(path):
        archive = zipfile.ZipFile(path)
    with archive:
        names = tuple(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
        yield Archive(path, archive, names)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a file leads zipfile and numpy's parser of headers to raise into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = printable(" ".join(str(error).split()))[:160] or type(error).__name__
        raise InputError(f"'{path}' can't be read as an .npz file of plain arrays ({text}): write it anew") from error


def _header(where: str, file: IO[bytes]) -> _Header:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    header = _Header(tuple(int(size) for size in shape), fortran_order, dtype)  # numpy takes True for a size, too
    if header.dtype.kind not in _KINDS or header.dtype.hasobject:
        raise InputError(f"{where} can't be read: it holds {header.dtype}, not images as numbers or class numbers")
    if any(size < 0 for size in header.shape):
        raise InputError(f"{where} declares the shape {header.shape}: write it anew")
    return header
