"""Settings of how the files of large folders are read: threads, cache, and images that can't be."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

from n2n_edge.errors import InputError

__all__ = ["PIXELS", "Loading", "check_loading", "quiet", "refuse_unreadable"]

PIXELS = ".pixels"
"""Ending of the files of decoded images."""

_UNREADABLE_SHARE, _NAMED = 0.01, 3
_DISK_SHARE, _MEMORY_SHARE = 0.5, 2.0


def check_loading(workers: int | None, cache_gb: float | None) -> None:
    """Raise InputError for a number of threads, or a limit of a cache, that there can't be."""
    if workers is not None and workers < 0:
        raise InputError(f"‹data_workers› {workers}: give 0 (decode where images are needed) or more")
    if cache_gb is not None and not 0 <= cache_gb < float("inf"):
        raise InputError(f"‹cache_gb› {cache_gb:g}: give 0 (none) or more")


@dataclass(frozen=True)
class Loading:
    """How images of files are read.

    `workers` threads decode (None: one per core, 0: none, in line); `cache_gb` limits the decoded images that are kept
    in a file (None: see `cache_bytes`, 0: none), which lies in `folder`, or is temporary; `strict` refuses the first
    image that can't be read, of which else one per cent is passed over. `on_scan` is told how many files have been
    looked at, and of how many.
    """

    workers: int | None = None
    cache_gb: float | None = None
    strict: bool = False
    folder: Path | None = None
    on_scan: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        check_loading(self.workers, self.cache_gb)

    @property
    def threads(self) -> int:
        """Threads that decode."""
        return (os.cpu_count() or 1) if self.workers is None else self.workers

    @property
    def cache_bytes(self) -> float:
        """The limit of the cache.

        Without one it is half of the free disk, at most twice the machine's memory: what is read back from a disk
        alone, past the memory, comes no faster than it is decoded.
        """
        if self.cache_gb is not None:
            return self.cache_gb * 1e9
        free = _DISK_SHARE * shutil.disk_usage(_nearest(self.folder or Path(gettempdir()))).free
        try:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return free
        return min(free, _MEMORY_SHARE * memory)


def _nearest(folder: Path) -> Path:
    """Return the folder itself, or what it is going to lie in."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings, of large pictures and odd notes in them, from the terminal, in whatever thread.

    Filters of warnings belong to the process: it is the main thread's block, around all that reads images.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def refuse_unreadable(errors: Sequence[str], images: int, strict: bool) -> None:
    """Raise InputError where more than one per cent of so many images had an error, or any if `strict`."""
    if not errors or (not strict and len(errors) <= _UNREADABLE_SHARE * images):
        return
    more = f"; so are {len(errors):,} of {images:,} images" if len(errors) > 1 else ""
    raise InputError("; ".join(errors[:_NAMED]) + more)
