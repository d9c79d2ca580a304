"""Number formats that kernels calculate in."""

from collections.abc import Mapping
from typing import Literal

__all__ = ["BYTES", "Precision", "in_integers"]

Precision = Literal["fp32", "fp16", "int8"]
"""Of arithmetic: what a model, or a kernel of it, is run in."""

BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of a number in each precision; rates are those of fp32 bytes."""


def in_integers(macs: float, integer_macs: float) -> str:
    """Return which part of the multiply-accumulates is calculated in 8-bit integers; '' for none.

    >>> in_integers(200, 150)
    '75% in int8'
    """
    if not integer_macs:
        return ""
    share = integer_macs / macs
    return "all in int8" if share == 1 else f"{min(share, 0.999):.{0 if share < 0.995 else 1}%} in int8"
