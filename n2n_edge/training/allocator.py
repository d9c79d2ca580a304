"""Memory of large activations, kept by the process from step to step instead of asked of the kernel each time."""

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["large_buffers_kept"]

# mallopt(3) of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 * 1024, 65_536


@contextmanager
def large_buffers_kept() -> Iterator[None]:
    """Let freed memory stay with this process while in the block; nothing happens without glibc.

    glibc maps every buffer above 32 MB anew and unmaps it when it is freed, so that training on large images spends up
    to half of its time in page faults (benchmarks/allocator).
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    mallopt: Callable[[int, int], int] | None = getattr(libc, "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
        libc.malloc_trim(0)
