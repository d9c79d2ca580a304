"""Whether a quantized file is worth having: timed in turns with its float twin, what it loses, and why."""

from pathlib import Path
from typing import TYPE_CHECKING

from n2n_edge.devices.profile import Profile
from n2n_edge.graph.quantized import Precisions
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.ssh import open_target
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.runs.beside_twin import slow_because, timed_in_turns

if TYPE_CHECKING:
    from n2n_edge.runs.quantize_settings import QuantizeSettings

__all__ = ["objections", "timed_ratio"]

_LARGEST = 100.0
"""End of a ratio's interval from which on the ratio says nothing."""


def timed_ratio(before: Path, after: Path, settings: "QuantizeSettings") -> tuple[Figure | None, tuple[Notice, ...]]:
    """Return the time of `after` over that of `before`, and warnings; None where one couldn't be timed."""
    options = BenchOptions(
        threads=settings.threads,
        min_time_s=min(1.0, settings.max_time_s),
        max_time_s=settings.max_time_s,
    )
    ratio, _, failure = timed_in_turns([before, after], options, open_target(settings.target))
    if ratio is None:
        return None, (Notice("not-timed", failure),)
    if ratio.high is not None and ratio.high > _LARGEST:
        return None, (
            Notice("not-timed", "the two were timed for too short a while to compare", "give a longer ‹max_time›"),
        )
    return ratio, ()


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
    causes = slow_because(table, settings.precision, on_host=settings.target == "host" and not elsewhere)
    if ratio is not None and ratio.low is not None and ratio.low > 1.0 and not elsewhere:
        text = f"takes {ratio.value:.2f} times as long as the float model ({ratio.low:.2f} to {ratio.high:.2f})"
        found.append(Notice("slower", f"{text}: {causes}" if causes else text))
    if elsewhere and predicted is not None and predicted[1].value >= predicted[0].value:
        text = (
            f"is predicted to take {predicted[1].value:.3g} ms on {profile.name}, the float model "
            f"{predicted[0].value:.3g} ms"
        )
        found.append(Notice("predicted-slower", f"{text}: {causes}" if causes else text))
    return tuple(found)
