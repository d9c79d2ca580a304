"""Memory of large activations, kept by the process from step to step instead of asked of the kernel each time."""

import ctypes
import gc
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["give_back_freed_memory", "large_buffers_kept"]

# mallopt(3) of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 * 1024, 65_536

_depth = 0
"""Blocks that this process is in; the outermost sets the allocator and sets it back."""


@contextmanager
def large_buffers_kept() -> Iterator[None]:
    """Let freed memory stay with this process while in the block; nothing happens without glibc.

    glibc maps every buffer above 32 MB anew and unmaps it when it is freed, so that training on large images spends up
    to half of its time in page faults (benchmarks/allocator). Blocks may be nested.
    """
    global _depth
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    if _depth == 0:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
            mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
            give_back_freed_memory()


def give_back_freed_memory() -> None:
    """Return to the system what has been freed since: between the parts of a run, which want buffers of other sizes."""
    if _mallopt() is not None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt() -> Callable[[int, int], int] | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    found: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    return found
