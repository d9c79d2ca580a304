"""Mean and standard deviation of pixels in 0..1, as options, budget files and models' metadata give them."""

from collections.abc import Sequence
from math import isfinite

from n2n_edge.errors import InputError

__all__ = ["check_mean_and_std", "per_channel"]

_MEAN_RANGE = (-1.0, 2.0)
"""A mean beyond this would shift all pixels to one side of nought, further than their whole range."""
_STD_RANGE = (1e-6, 10.0)
"""From 16-bit inputs (1 / 65535) to a tenth of the pixels' range."""


def check_mean_and_std(
    mean: Sequence[float] | None, std: Sequence[float] | None, mean_name: str = "‹mean›", std_name: str = "‹std›"
) -> None:
    """Raise InputError for values that can't belong to pixels in 0..1; the names say where they stand."""
    for name, values, (low, high) in ((mean_name, mean, _MEAN_RANGE), (std_name, std, _STD_RANGE)):
        for value in values or ():
            if not isfinite(value):
                raise InputError(f"{name} {value}: not a number that pixels can be scaled by; give such as 0.5")
            if low <= value <= high:
                continue
            if name == std_name and value <= 0:
                raise InputError(f"{name} has the value {value:g}: every value must be above 0")
            hint = f"; divide by 255: {value / 255:.3g}" if high < value <= 255 else ""
            raise InputError(f"{name} {value:g}: pixels are in 0..1, so it must lie in {low:g}..{high:g}{hint}")


def per_channel(name: str, values: tuple[float, ...] | None, channels: int) -> tuple[float, ...] | None:
    """Return one value per channel: one alone holds for all; None stays None.

    Raises:
        InputError: another number of values, or values that can't belong to pixels in 0..1.
    """
    if values is None:
        return None
    if len(values) not in (1, channels):
        raise InputError(f"{name} has {len(values)} values, but images have {channels} channels: give one per channel")
    check_mean_and_std(values if name == "mean" else None, values if name == "std" else None, name, name)
    return tuple(float(value) for value in (values * channels if len(values) == 1 else values))
