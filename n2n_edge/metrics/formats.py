"""How figures are put into words, the same in the terminal, the report and the model card."""

from collections.abc import Mapping
from types import MappingProxyType

from n2n_edge.metrics.figures import Figure, Provenance

__all__ = ["PROVENANCE_WORDS", "format_figure", "format_interval", "format_provenance", "format_value"]

PROVENANCE_WORDS: Mapping[Provenance, str] = MappingProxyType(
    {
        "measured": "measured",
        "host-limited": "measured on this host within the profile's limits",
        "calibrated": "predicted, fitted on measurements of the device",
        "analytic": "predicted from data-sheet figures",
        "computed": "computed from the file",
    }
)
"""What each provenance means, in a few words."""


def format_value(value: float, unit: str) -> str:
    """Return a value with its unit as people read it: ``0.123 MB``, ``10.9 M MACs``, ``98.7%``, ``308,210 params``."""
    if unit == "fraction":
        return f"{100 * value:.1f}%"
    if unit == "%":
        return f"{value:.1f}%"
    if unit == "points":
        return f"{value:.2f} points"
    if unit == "params":
        return f"{value:,.0f} params"
    if unit == "MACs":
        return f"{_engineering(value)} MACs"
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def format_figure(figure: Figure) -> str:
    """Return the value with its unit, and its interval where it has one: ``1.9 ms (1.4 to 2.5 ms)``."""
    text = format_value(figure.value, figure.unit)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({format_interval(figure.low, figure.high, figure.unit)})"


def format_interval(low: float, high: float, unit: str) -> str:
    """Return an interval with its unit once: ``1.4 to 2.5 ms``."""
    first, last = format_value(low, unit), format_value(high, unit)
    return f"{first.removesuffix(f' {unit}')} to {last}"


def format_provenance(provenance: Provenance) -> str:
    """Return the provenance with its meaning where that doesn't follow from the word."""
    words = PROVENANCE_WORDS[provenance]
    return words if provenance in words else f"{provenance}: {words}"


def _engineering(value: float) -> str:
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.0f}"
