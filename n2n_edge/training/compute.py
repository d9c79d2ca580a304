"""Engine of the training side: device, number format, processes, threads, determinism, and seeds."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.training.allocator import large_buffers_kept
from n2n_edge.training.executor import GraphModule, image_module
from n2n_edge.training.settings import DistillSettings, Format, Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Engine", "chosen_device", "default_format", "deterministic", "generator", "native_bf16"]

_WITH_BF16 = ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10")
"""Words in the names of oneDNN's instruction sets that bfloat16 is a part of."""

_BF16_CAPABILITY, _FP16_CAPABILITY = (8, 0), (7, 0)
"""The first generations of CUDA devices that multiply these formats in tensor cores (Ampere, Volta)."""

_Movable = TypeVar("_Movable")


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


def chosen_device(wanted: str) -> torch.device:
    """Return the device that a setting such as ``auto``, ``cpu``, ``cuda:1`` or ``mps`` stands for.

    ``auto`` takes the first CUDA device, else Apple's GPU, else the processor.

    Raises:
        UnsuitableEnvironmentError: this machine, or this build of torch, doesn't have it.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            why = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
            raise UnsuitableEnvironmentError(f"‹train_device› {wanted}: {why}; see `n2n-edge doctor`, or leave it out")
        device = torch.device("cuda", device.index or 0)
        if device.index >= count:
            raise UnsuitableEnvironmentError(f"‹train_device› {wanted}: there are {count} CUDA devices, from cuda:0 on")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UnsuitableEnvironmentError(f"‹train_device› {wanted}: torch finds no Apple GPU; leave it out")
    return device


def default_format(precision: Precision, device: torch.device) -> Format:
    """Return the number format that `precision` stands for on a device: under ``auto`` what is fastest there."""
    if precision != "auto":
        return precision
    if device.type == "cpu":
        return "bf16" if native_bf16() else "fp32"
    if device.type != "cuda":
        return "fp32"
    capability = torch.cuda.get_device_capability(device)
    return "bf16" if capability >= _BF16_CAPABILITY else "fp16" if capability >= _FP16_CAPABILITY else "fp32"


class Engine:
    """What the training side calculates with: a device, a number format and, where there are several, processes.

    Made by Lightning Fabric, through which everything goes: modules and batches are put on the device, losses scaled
    and gradients averaged over processes. A float32 engine evaluates; `calculating` gives one that trains in another
    format.

    >>> from n2n_edge.training.compute import Engine
    >>> engine = Engine.of(n2n_edge.DistillSettings(device="cpu"))
    >>> engine.device.type, engine.number_format, engine.processes
    ('cpu', 'fp32', 1)
    """

    def __init__(self, device: torch.device, number_format: Format = "fp32", fabric: "Fabric | None" = None) -> None:
        self.device, self.number_format = device, number_format
        if fabric is not None:
            self.fabric = fabric

    @classmethod
    def of(cls, settings: DistillSettings) -> "Engine":
        """Return the engine on the device of `settings`, in float32; raises UnsuitableEnvironmentError."""
        return cls(chosen_device(settings.device))

    def calculating(self, number_format: Format) -> "Engine":
        """Return an engine on the same device in another number format."""
        return self if number_format == self.number_format else Engine(self.device, number_format)

    @cached_property
    def fabric(self) -> "Fabric":
        """The library's object."""
        from n2n_edge.training.fabric import make_fabric

        return make_fabric(self.device, self.number_format)

    @property
    def processes(self) -> int:
        """How many processes train together, each on a part of every batch."""
        return self.fabric.world_size

    @property
    def rank(self) -> int:
        """Which of the processes this is, from nought; the first one evaluates and writes."""
        return self.fabric.global_rank

    def module(self, model: ir.Model, what: str | None = None) -> GraphModule:
        """Return a graph as a torch module on the device; with `what`, its name in errors, one of a single input."""
        return self.moved(GraphModule(model) if what is None else image_module(model, what))

    def moved(self, item: _Movable) -> _Movable:
        """Return a tensor, a module or a collection of them on the device."""
        moved: _Movable = self.fabric.to_device(item)
        return moved

    def autocast(self) -> AbstractContextManager[Any]:
        """Calculate convolutions and matrix products in the engine's number format while in the block."""
        return self.fabric.autocast()

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes; gradients go back to each."""
        if self.processes == 1:
            return tensor
        from torch.distributed.nn.functional import all_reduce

        summed: Tensor = all_reduce(tensor)  # type: ignore[no-untyped-call]
        return summed / self.processes


@contextmanager
def deterministic(threads: int | None) -> Iterator[None]:
    """Use a fixed number of threads and reproducible kernels while in the block, then what was set before.

    Large buffers are kept meanwhile (see `large_buffers_kept`). A few operators have no reproducible kernel on a GPU:
    they run all the same, and students of equal runs may then differ in rounding.
    """
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if threads is not None:
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA's library is first used
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with large_buffers_kept(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have a deterministic implementation.*", UserWarning)
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def generator(*seeds: int) -> torch.Generator:
    """Make a random generator that depends on these numbers alone; it draws on the processor, whatever trains."""
    state = int(np.random.SeedSequence([seed % 2**64 for seed in seeds]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state % 2**63)
