"""Whether a quantized file is worth having: timed in turns with its float twin, what it loses, and why."""

from pathlib import Path
from typing import TYPE_CHECKING

from n2n_edge.devices.profile import Profile
from n2n_edge.errors import N2NError
from n2n_edge.graph.quantized import Precisions
from n2n_edge.measure.comparison import Comparison, compare
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.ssh import open_target
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.quantize.device_plan import has_vnni, is_x86

if TYPE_CHECKING:
    from n2n_edge.runs.quantization_report import QuantizeSettings

__all__ = ["objections", "timed_ratio"]

_SURE = 0.02
"""Share by which two files may differ and count as equally fast."""
_LARGEST = 100.0
"""End of a ratio's interval from which on the ratio says nothing."""
_MOSTLY = 0.95
_THIN, _THIN_SHARE = 32 * 32, 0.3
"""Weights of layers that integer kernels hardly speed up, and the part of the arithmetic from which on they count."""


def timed_ratio(before: Path, after: Path, settings: "QuantizeSettings") -> tuple[Figure | None, tuple[Notice, ...]]:
    """Return the time of `after` over that of `before`, and warnings; None where one couldn't be timed."""
    options = BenchOptions(
        threads=settings.threads,
        min_time_s=min(1.0, settings.max_time_s),
        max_time_s=settings.max_time_s,
    )
    found = compare([before, after], options, open_target(settings.target), threshold=_SURE)
    failed = next((each for each in found.measurements if isinstance(each, N2NError)), None)
    comparison: Comparison | None = found.comparisons[1]
    if failed is not None or comparison is None:
        return None, (Notice("not-timed", f"the two couldn't be timed: {failed}"),)
    if comparison.high > _LARGEST:
        return None, (
            Notice("not-timed", "the two were timed for too short a while to compare", "give a longer ‹max_time›"),
        )
    return Figure(comparison.ratio, "ratio", "measured", comparison.low, comparison.high, comparison.rounds), ()


def objections(
    lost: Figure,
    ratio: Figure | None,
    predicted: tuple[Figure, Figure] | None,
    table: Precisions,
    profile: Profile,
    settings: "QuantizeSettings",
) -> tuple[Notice, ...]:
    """Say what is wrong with a file: it loses too much, or is slower where it is meant to run."""
    found = []
    if settings.precision == "int8" and not any(each.precision == "int8" for each in table.layers):
        found.append(Notice("all-float", "has no layer in int8: none can be, or all stayed float"))
    if lost.value > settings.max_drop:
        text = f"loses {lost.value:.2f} points on the test images, more than the {settings.max_drop:g} allowed"
        found.append(Notice("drop", text))
    elsewhere = predicted is not None and settings.target == "host"
    slower = ratio is not None and ratio.low is not None and ratio.low > 1.0
    if slower and ratio is not None and not elsewhere:
        causes = _causes(table, settings)
        text = f"takes {ratio.value:.2f} times as long as the float model ({ratio.low:.2f} to {ratio.high:.2f})"
        found.append(Notice("slower", f"{text}: {causes}" if causes else text))
    if elsewhere and predicted is not None and predicted[1].value >= predicted[0].value:
        causes = _causes(table, settings)
        text = (
            f"is predicted to take {predicted[1].value:.3g} ms on {profile.name}, the float model "
            f"{predicted[0].value:.3g} ms"
        )
        found.append(Notice("predicted-slower", f"{text}: {causes}" if causes else text))
    return tuple(found)


def _causes(table: Precisions, settings: "QuantizeSettings") -> str:
    """Say why a quantized file may be slow, as far as the graph and this processor tell."""
    if settings.precision == "fp16":
        return "processors without float16 arithmetic convert to float32 and back" if settings.target == "host" else ""
    causes = []
    total = sum(table.macs.values())
    if settings.target == "host" and is_x86() and not has_vnni():
        causes.append("this processor has no VNNI")
    if total and (share := table.macs.get("int8", 0) / total) < _MOSTLY:
        causes.append(f"{1 - share:.0%} of the multiply-accumulates stay in float")
    if table.conversions > 2:
        causes.append(f"{table.conversions} conversions at the borders of float islands")
    thin = sum(each.macs for each in table.layers if each.precision == "int8" and each.params < _THIN)
    if total and thin / total > _THIN_SHARE:
        causes.append(
            f"{thin / total:.0%} of the multiply-accumulates are in layers too thin for integer kernels to pay"
        )
    return ", ".join(causes)
