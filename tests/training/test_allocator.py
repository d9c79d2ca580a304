"""Large buffers come from the heap while a run trains, and from the kernel again afterwards."""

import ctypes
import platform

import psutil
import pytest
import torch

from n2n_edge.training import allocator
from n2n_edge.training.allocator import give_back_freed_memory, large_buffers_kept

BYTES = 64_000_000
MORE_BYTES = 2_000_000_000
"""More than what is free in the heap, whatever ran before; nothing is written there."""


class Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def mapped_for_a_buffer() -> int:
    """Return how many bytes malloc maps from the kernel for one large tensor."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Mallinfo
    before = libc.mallinfo2().hblkhd
    tensor = torch.empty(MORE_BYTES, dtype=torch.uint8)
    after = libc.mallinfo2().hblkhd
    assert tensor.numel() == MORE_BYTES
    return int(after - before)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33"
)
def test_large_buffers_stay_with_the_process_while_it_trains() -> None:
    with large_buffers_kept():
        assert mapped_for_a_buffer() == 0
    assert mapped_for_a_buffer() >= MORE_BYTES


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_was_freed_is_given_back_between_the_parts_of_a_run() -> None:
    with large_buffers_kept():
        kept = [torch.ones(BYTES, dtype=torch.uint8) for _ in range(4)]
        kept.clear()
        before = psutil.Process().memory_info().rss
        give_back_freed_memory()
        assert psutil.Process().memory_info().rss < before - 2 * BYTES


@pytest.mark.parametrize("libc", ["", "musl"])
def test_other_libraries_are_left_alone(libc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    with large_buffers_kept():
        give_back_freed_memory()
        assert torch.ones(2).sum() == 2
