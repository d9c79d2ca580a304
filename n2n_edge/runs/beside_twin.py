"""A quantized file beside its float twin: timed in turns, and what makes it slow."""

from collections.abc import Sequence
from pathlib import Path

from n2n_edge.errors import N2NError
from n2n_edge.graph.quantized import Precisions
from n2n_edge.measure.board import cpu_flags
from n2n_edge.measure.comparison import compare
from n2n_edge.measure.measurement import Measurement
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import Target
from n2n_edge.metrics.figures import Figure
from n2n_edge.quantize.device_plan import has_vnni, is_x86

__all__ = ["MEANINGLESS", "slow_because", "timed_in_turns"]

MEANINGLESS = 0.02
"""What a ratio of latencies may be off from 1 without meaning anything."""

_MOSTLY = 0.95
_USUAL_CONVERSIONS = 2
"""At the input and before a head."""
_THIN, _THIN_SHARE = 32 * 32, 0.3
"""Weights of layers that integer kernels hardly speed up (32 channels a side: ONNX Runtime's PR 9772, with a dot
product), and the part of the arithmetic from which on they count."""


def timed_in_turns(
    files: Sequence[Path], options: BenchOptions, target: Target
) -> tuple[Figure | None, Measurement | None, str]:
    """Return the time of the second of two files over that of the first, how the first was timed, and what went wrong.

    Raises:
        MeasurementError: the target can't time anything.
    """
    found = compare(files, options, target, threshold=MEANINGLESS)
    failed = next((each for each in found.measurements if isinstance(each, N2NError)), None)
    first = next((each for each in found.measurements[:1] if not isinstance(each, N2NError)), None)
    comparison = found.comparisons[1]
    if failed is not None or comparison is None:
        return None, first, f"the two couldn't be timed: {failed}"
    ratio = Figure(comparison.ratio, "ratio", "measured", comparison.low, comparison.high, comparison.rounds)
    return ratio, first, ""


def slow_because(table: Precisions, form: str, *, on_host: bool) -> str:
    """Say why a quantized file may be slow, as far as the graph, and this processor if it runs `on_host`, tell.

    `form` is ``int8`` or ``fp16``. Nothing is returned where nothing is seen.
    """
    if form == "fp16":
        return "processors without float16 arithmetic convert to float32 and back"
    causes = []
    flags = cpu_flags() if on_host else frozenset()
    if on_host and is_x86() and not has_vnni():
        causes.append("this processor has no VNNI")
    elif "asimd" in flags and not flags & {"asimddp", "i8mm"}:
        causes.append("this processor has no dot product of bytes")
    total = sum(table.macs.values())
    if total and (share := table.macs.get("int8", 0) / total) < _MOSTLY:
        causes.append(f"{1 - share:.0%} of the multiply-accumulates stay in float")
    if table.conversions > _USUAL_CONVERSIONS:
        causes.append(f"{table.conversions} conversions at the borders of float islands")
    thin = sum(each.macs for each in table.layers if each.precision == "int8" and each.params < _THIN)
    if total and thin / total > _THIN_SHARE:
        causes.append(
            f"{thin / total:.0%} of the multiply-accumulates are in layers too thin for integer kernels to pay"
        )
    return ", ".join(causes)
