"""Mean and standard deviation of pixels, as options, budget files and models' metadata give them."""

from collections.abc import Sequence
from math import isfinite
from typing import Literal

from n2n_edge.errors import InputError

__all__ = ["check_mean_and_std", "per_channel"]

_MEAN_RANGES = {"0..1": (-1.0, 2.0), "0..255": (-255.0, 510.0), "-1..1": (-3.0, 3.0)}
"""A mean beyond this would shift all pixels to one side of nought, further than their whole range."""
_STD_RANGES = {"0..1": (1e-6, 10.0), "0..255": (2.55e-4, 2550.0), "-1..1": (2e-6, 20.0)}
"""From 16-bit inputs (1 / 65535) to a tenth of the pixels' range."""

_Range = Literal["0..1", "0..255", "-1..1"]


def check_mean_and_std(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    mean_name: str = "‹mean›",
    std_name: str = "‹std›",
    pixels: _Range = "0..1",
) -> None:
    """Raise InputError for values that can't belong to pixels in that range; the names say where they stand."""
    ranges = ((mean_name, mean, _MEAN_RANGES[pixels]), (std_name, std, _STD_RANGES[pixels]))
    for name, values, (low, high) in ranges:
        for value in values or ():
            if not isfinite(value):
                raise InputError(f"{name} {value}: not a number that pixels can be scaled by; give such as 0.5")
            if low <= value <= high:
                continue
            if name == std_name and value <= 0:
                raise InputError(f"{name} has the value {value:g}: every value must be above 0")
            in_bytes = pixels == "0..1" and high < value <= 255
            hint = f"; divide by 255: {value / 255:.3g}, or give ‹pixels› 0..255" if in_bytes else ""
            raise InputError(f"{name} {value:g}: pixels are in {pixels}, so it must lie in {low:g}..{high:g}{hint}")


def per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one value per channel: one alone holds for all.

    Raises:
        InputError: another number of values.
    """
    if len(values) not in (1, channels):
        raise InputError(f"{name} has {len(values)} values, but images have {channels} channels: give one per channel")
    return tuple(float(value) for value in (tuple(values) * channels if len(values) == 1 else values))
