"""Picture files decoded to a network's channels and size."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from n2n_edge.data.pixels import GREY_MODES, Conversions, as_eight_bits
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.resizing import resized_image
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable

__all__ = ["MODES", "UNREADABLE", "read_picture", "upright_size"]

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode of pictures with so many channels."""

UNREADABLE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)
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
        raise InputError(f"{where} can't be read ({printable(error)}): repair or remove it") from error


def _pixels(
    where: str, image: Image.Image, preprocessing: Preprocessing, conversions: Conversions
) -> NDArray[np.uint8]:
    mode = MODES[preprocessing.channels]
    _note_kind(image, mode, conversions)
    size = max(preprocessing.size)  # it may have to be turned
    # sizes within the input follow from those of the picture, which a draft rounds
    exact = preprocessing.resize == "letterbox" or preprocessing.crop_ratio is not None
    if preprocessing.antialias and not exact and image.width > 2 * size and image.height > 2 * size:
        # lets the JPEG decoder skip detail that the scaling would throw away
        image.draft(mode, (2 * size, 2 * size))
    image.load()
    turn = _turn(image)
    read = as_eight_bits(where, image, conversions)
    if turn is not None:
        read = read.transpose(turn)
        conversions.counts["turned upright by their EXIF orientation (torchvision's loader doesn't)"] += 1
    fitted = resized_image(read if read.mode == mode else read.convert(mode), preprocessing)
    return np.array(fitted).reshape(*preprocessing.size, -1)


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
