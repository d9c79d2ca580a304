"""Profile of a run by kind of operator and by layer, as the runtime itself tells it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from n2n_edge.measure.messages import Profiled

__all__ = ["Kernel", "OpProfile"]

SUFFIXES = ("_nchwc", "_nhwc", "_token")


@dataclass(frozen=True)
class Kernel:
    """One kernel of the runtime: `share` is its part of all kernels' time, `layer` what it computes, or ''."""

    name: str
    op_type: str
    provider: str
    latency_ms: float
    share: float
    layer: str


@dataclass(frozen=True)
class OpProfile:
    """Where the time of a run goes; `kernels` in the order in which they ran.

    `plain_ms` is a run without the profiler, `run_ms` one under it (means of the fastest runs, taken in turns). The
    profiler adds some us to each kernel and more between them: `overhead_us` has been taken off every kernel, at most
    as much as the smallest of them took. `accounted` is the kernels' sum over `plain_ms`; where it still exceeded an
    ordinary run, all were scaled down to it.
    """

    run_ms: float
    plain_ms: float
    kernels: tuple[Kernel, ...]
    overhead_us: float
    accounted: float

    @classmethod
    def read(cls, raw: Profiled, layers: Mapping[str, str]) -> Self:
        """Make sense of the worker's ``profile``; `layers` maps names of nodes and values to layers.

        A runtime names a fused kernel after one of its nodes, or after what the last of them gives.
        """
        plain_us, times_us = raw.plain_us, [kernel.us for kernel in raw.kernels]
        excess_us = max(0.0, sum(times_us) - plain_us) / max(1, len(times_us))
        overhead_us = min([excess_us, *times_us])
        total_us = sum(times_us) - overhead_us * len(times_us) or 1.0
        scale = min(1.0, plain_us / total_us)
        kernels = tuple(
            Kernel(
                kernel.name,
                kernel.op_type,
                kernel.provider,
                (kernel.us - overhead_us) * scale / 1000,
                (kernel.us - overhead_us) / total_us,
                _layer_of(kernel.name, layers),
            )
            for kernel in raw.kernels
        )
        return cls(raw.run_us / 1000, plain_us / 1000, kernels, overhead_us, total_us * scale / plain_us)

    def by_op_type(self) -> dict[str, tuple[int, float]]:
        """Return how many kernels of each kind there are and their share of all kernels' time, the largest first."""
        return _summed((kernel.op_type, kernel.share) for kernel in self.kernels)

    def by_layer(self) -> dict[str, tuple[int, float]]:
        """Return how many kernels each layer takes and their share of all kernels' time; '' is nobody's."""
        return _summed((kernel.layer, kernel.share) for kernel in self.kernels)


def _layer_of(kernel: str, layers: Mapping[str, str]) -> str:
    name = kernel.removeprefix("fused ")
    while True:
        if name in layers:
            return layers[name]
        shorter = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
        if shorter == name:
            return ""
        name = shorter


def _summed(pairs: Iterable[tuple[str, float]]) -> dict[str, tuple[int, float]]:
    sums: dict[str, tuple[int, float]] = {}
    for name, share in pairs:
        count, total = sums.get(name, (0, 0.0))
        sums[name] = (count + 1, total + share)
    return dict(sorted(sums.items(), key=lambda item: -item[1][1]))
