"""Picture files decoded to a network's channels and size."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from n2n_edge.data.pixels import GREY_MODES, Conversions, as_eight_bits
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.resizing import Reduced, resized_image
from n2n_edge.errors import InputError, first_line
from n2n_edge.foreign import printable

__all__ = ["MODES", "UNREADABLE", "read_picture", "unreadable", "upright_size"]

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode of pictures with so many channels."""

UNREADABLE = (
    OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError, AssertionError,
    LookupError, TypeError, ArithmeticError, AttributeError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow raises for a picture that it can't read."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What a picture needs to be upright, by EXIF's orientation."""

_ONTO_ITS_SIDE = tuple(_TURNS[code] for code in (5, 6, 7, 8))
_RIGHT_COMES_LEFT = tuple(_TURNS[code] for code in (2, 3, 6, 7))
_BOTTOM_COMES_UP = tuple(_TURNS[code] for code in (3, 4, 7, 8))
"""Turns after which the left or the upper edge is one that was right or lower."""

_LEAST_DECODED = 4
"""Sides of the input that a JPEG's sides keep where its decoder skips detail: 99% of bytes stay within one."""


def unreadable(where: str, error: BaseException) -> str:
    """Return the line for a picture of which Pillow raised one of `UNREADABLE`."""
    return f"{where} can't be read ({printable(first_line(error))}): repair or remove it"


def read_picture(
    source: str | Path | Image.Image, preprocessing: Preprocessing, conversions: Conversions | None = None
) -> NDArray[np.uint8]:
    """Return a picture as bytes `(H, W, C)` of the network's channels and size; `conversions` notes what was converted.

    Raises:
        InputError: it can't be read, or the network takes other channels than a picture has.
    """
    if preprocessing.channels not in MODES:
        raise InputError(f"the network takes {preprocessing.channels} channels, a picture has 1 or 3: give an array")
    noted = Conversions() if conversions is None else conversions
    if isinstance(source, Image.Image):
        return _pixels("the picture", source, preprocessing, noted)
    where = f"image '{printable(source)}'"
    try:
        with Image.open(source) as image:
            return _pixels(where, image, preprocessing, noted)
    except UNREADABLE as error:
        raise InputError(unreadable(where, error)) from error


def _pixels(
    where: str, image: Image.Image, preprocessing: Preprocessing, conversions: Conversions
) -> NDArray[np.uint8]:
    mode = MODES[preprocessing.channels]
    _note_kind(image, mode, conversions)
    least, own = _LEAST_DECODED * max(preprocessing.size), image.size  # it may have to be turned
    # a letterbox and a ratio are as other libraries have them, to the byte
    exact = preprocessing.resize == "letterbox" or preprocessing.crop_ratio is not None
    draft = None
    if preprocessing.antialias and not exact and min(own) > least:
        # lets the JPEG decoder skip detail that the scaling would throw away
        draft = image.draft(mode, (least, least))
    image.load()
    turn = _turn(image)
    read = as_eight_bits(where, image, conversions)
    if turn is not None:
        read = read.transpose(turn)
        conversions.counts["turned upright by their EXIF orientation (torchvision's loader doesn't)"] += 1
    read = read if read.mode == mode else read.convert(mode)
    of = None if draft is None else _upright(Reduced(own, draft[1][2:]), turn, read.size)
    return np.array(resized_image(read, preprocessing, of)).reshape(*preprocessing.size, -1)


def _upright(of: Reduced, turn: Image.Transpose | None, size: tuple[int, int]) -> Reduced:
    """Return what a picture of `size`, once it is turned, is a smaller decoding of."""
    turned = turn in _ONTO_ITS_SIDE
    whole, (width, height) = (of.whole[::-1], of.filled[::-1]) if turned else (of.whole, of.filled)
    left = size[0] - width if turn in _RIGHT_COMES_LEFT else 0.0
    top = size[1] - height if turn in _BOTTOM_COMES_UP else 0.0
    return Reduced(whole, (width, height), (left, top))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width of a picture once it is turned by its EXIF orientation; mostly without decoding it."""
    if _turn(image) not in _ONTO_ITS_SIDE:
        return image.height, image.width
    if image.format == "TIFF":  # turned by Pillow, in some versions only when it is loaded
        image.load()
        return image.height, image.width
    return image.size


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how a picture has to be turned by its EXIF orientation.

    Pillow turns TIFFs itself when it loads them, and clears the note.
    """
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # notes that can't be read say nothing
        return None


def _note_kind(image: Image.Image, mode: str, conversions: Conversions) -> None:
    if getattr(image, "is_animated", False):
        conversions.counts["of several frames, of which the first is read"] += 1
    if getattr(image, "has_transparency_data", False):  # Pillow 10.1
        alpha = image.convert("RGBA").getextrema()[-1]
        if isinstance(alpha, tuple) and alpha[0] < 255:
            conversions.counts["with transparent parts, read in the colours beneath (as torchvision does)"] += 1
    if (image.mode in GREY_MODES) != (mode == "L"):
        conversions.counts[f"converted to {'grey' if mode == 'L' else 'colour'}"] += 1
