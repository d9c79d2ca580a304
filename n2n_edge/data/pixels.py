"""Pixels of any type as bytes, and a record of what had to be converted."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.errors import InputError

__all__ = ["GREY_MODES", "Conversions", "as_eight_bits", "bytes_of"]

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})

_FEW_BITS = 14
"""16-bit values that leave the highest bits unused all over a data set are sensor values of an unknown range."""

_CHUNK = 1024


@dataclass
class Conversions:
    """What was converted while images were read: how many images by kind, and how 16-bit values are used."""

    counts: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    highest: int = 0
    widened: bool = True
    """Whether all 16-bit values are multiples of 257, that is 8-bit values written with 16."""
    example: str = ""

    def sixteen_bits(self, where: str, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Scale values in 0..65535 to bytes, and note which bits they use."""
        wide = values.astype(np.uint32)
        self.example = self.example or where
        self.highest = max(self.highest, int(wide.max(initial=0)))
        self.widened = self.widened and not (wide % 257).any()
        return ((wide * 255 + 32767) // 65535).astype(np.uint8)

    def add(self, other: "Conversions") -> None:
        """Add what another thread has noted."""
        self.counts += other.counts
        self.passed_over += other.passed_over
        self.example = self.example or other.example
        self.highest, self.widened = max(self.highest, other.highest), self.widened and other.widened

    def refuse_unused_bits(self) -> None:
        """Raise InputError for 16-bit images that all stay in a fraction of their range: scaled they would be black."""
        if self.example and not self.widened and self.highest < 2**_FEW_BITS:
            raise InputError(
                f"{self.example} and all others of 16 bits have values up to {self.highest:,} only, "
                f"{max(1, self.highest).bit_length()} of 16 bits: scale them to the full range, or save 8 bits"
            )

    def words(self) -> str:
        """Return what was converted and passed over, in words; empty where nothing was."""
        parts = [f"{count:,} {what}" for what, count in self.counts.items() if count]
        passed = [f"{count:,} {what}" for what, count in self.passed_over.items() if count]
        return "; ".join([*parts, *([f"passed over: {', '.join(passed)}"] if passed else [])])


def as_eight_bits(where: str, image: Image.Image, conversions: Conversions) -> Image.Image:
    """Return a picture of 16 bits, or of floats in 0..1, as one of 8 bits; others as they are.

    Pillow's own conversion clips at 255 instead of scaling.

    Raises:
        InputError: a picture of more than 8 bits whose range isn't told by its type.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        conversions.counts["of 16 bits scaled to 8"] += 1
        return Image.fromarray(conversions.sixteen_bits(where, np.asarray(image)))
    if image.mode == "F":
        values = np.asarray(image)
        if values.min() >= 0 and values.max() <= 1:  # NaN fails the comparison
            conversions.counts["of floats in 0..1 scaled to 8 bits"] += 1
            return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "floats beyond 0..1" if image.mode == "F" else "32-bit integers"
        raise InputError(f"{where} has {kind}, whose range is unknown: save it with 8 or 16 bits, or as floats in 0..1")
    return image


def bytes_of(where: str, values: NDArray[np.generic], conversions: Conversions) -> NDArray[np.uint8]:
    """Return an array of bytes, bools, 16-bit values or floats in 0..1 as bytes 0..255.

    Raises:
        InputError: values of another type or range.
    """
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise InputError(f"{where} holds values of type {values.dtype}: give bytes, or floats from 0 to 1")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "ui" and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        scaled = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), _CHUNK):
            scaled[start : start + _CHUNK] = conversions.sixteen_bits(where, values[start : start + _CHUNK])
        return scaled
    if values.dtype.kind == "f" and low >= 0 and high <= 1:  # NaN fails the comparison
        scaled = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), _CHUNK):
            scaled[start : start + _CHUNK] = np.rint(values[start : start + _CHUNK].astype(np.float32) * 255)
        return scaled
    hint = ""
    if values.dtype.kind == "f" and low >= 0 and 1 < high <= 255:
        hint = "; divide by 255"
    elif values.dtype.kind == "f" and low >= -1 and high <= 1:
        hint = "; add 1 and divide by 2"
    raise InputError(
        f"{where} holds {values.dtype} values from {low:g} to {high:g}: give bytes, uint16 over its full range, or "
        f"floats from 0 to 1{hint} (normalisation is applied later, from mean and std)"
    )
