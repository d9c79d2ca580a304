"""The ground that calculations stand on: number format, threads, determinism, and seeds."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from n2n_edge.training.settings import Precision

__all__ = ["autocast", "deterministic", "generator", "native_bf16", "use_bf16"]

_WITH_BF16 = ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10")
"""Words in the names of oneDNN's instruction sets that bfloat16 is a part of."""


def native_bf16() -> bool:
    """Tell whether this CPU multiplies bfloat16 itself (AVX-512 BF16, AMX or Arm BF16); elsewhere it is slower.

    So it is where ``ONEDNN_MAX_CPU_ISA`` keeps oneDNN from these instructions, by a factor of eight.
    """
    allowed = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT").upper()
    if not any(word in allowed for word in _WITH_BF16):
        return False
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        probe: Callable[[], bool] | None = getattr(torch.cpu, name, None)
        if probe is not None and probe():
            return True
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = {
        flag
        for line in text.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
        for flag in line.partition(":")[2].split()
    }
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def use_bf16(precision: Precision) -> bool:
    """Decide whether training calculates in bfloat16."""
    return native_bf16() if precision == "auto" else precision == "bf16"


@contextmanager
def autocast(enabled: bool) -> Iterator[None]:
    """Calculate convolutions and matrix products in bfloat16 while in the block, if `enabled`."""
    # without its cache of cast weights, which would outlive an optimiser step inside one block
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled, cache_enabled=False):
        yield


@contextmanager
def deterministic(threads: int | None) -> Iterator[None]:
    """Use a fixed number of threads and reproducible kernels while in the block, then what was set before."""
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def generator(*seeds: int) -> torch.Generator:
    """Make a random generator that depends on these numbers alone."""
    state = int(np.random.SeedSequence([seed % 2**64 for seed in seeds]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state % 2**63)
