"""Number formats that kernels calculate in."""

from collections.abc import Mapping
from typing import Literal, get_args

__all__ = ["BYTES", "SHIPPED", "Precision", "ShippedPrecision", "share_in_words"]

Precision = Literal["fp32", "fp16", "int8"]
"""Of arithmetic: what a model, or a kernel of it, is run in."""

ShippedPrecision = Literal["fp32", "fp16", "int8", "auto"]
"""What a student ships in; ``auto``: each region as it pays."""

SHIPPED: tuple[ShippedPrecision, ...] = get_args(ShippedPrecision)

BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of a number in each precision; rates are those of fp32 bytes."""


def share_in_words(part: float, whole: float, precision: Precision = "int8") -> str:
    """Return which part of the multiply-accumulates is calculated in a precision; '' for none.

    >>> share_in_words(150, 200)
    '75% in int8'
    """
    if not part:
        return ""
    if part == whole:
        return f"all in {precision}"
    share = min(part / whole, 0.999)
    return f"{share:.1%} in {precision}" if share > 0.99 else f"{share:.0%} in {precision}"
