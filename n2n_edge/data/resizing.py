"""Pictures and arrays of bytes brought to the size of a network's input."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.preprocessing import Interpolation, Preprocessing
from n2n_edge.errors import InputError

__all__ = ["Placement", "placement", "resized_array", "resized_image"]

_FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


@dataclass(frozen=True)
class Placement:
    """Where an image comes to lie in a network's input.

    The part `cut` (left, top, right, bottom, in pixels of the image) is scaled to `scaled` (width, height), and its
    corner put at `corner` (x, y) of the input; what reaches beyond the input is cut off.
    """

    cut: tuple[int, int, int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int] = (0, 0)


def placement(own_width: int, own_height: int, preprocessing: Preprocessing) -> Placement:
    """Return where an image of this size comes to lie: squashed, cut or letterboxed."""
    height, width = preprocessing.size
    whole = (0, 0, own_width, own_height)
    if preprocessing.resize == "squash":
        return Placement(whole, (width, height))
    if preprocessing.resize == "letterbox":
        scale = min(width / own_width, height / own_height)
        inner = min(width, max(1, round(own_width * scale))), min(height, max(1, round(own_height * scale)))
        if preprocessing.pad_position == "top-left":
            return Placement(whole, inner)
        # halves go up and left, as in Ultralytics' LetterBox
        return Placement(whole, inner, (round((width - inner[0]) / 2 - 0.1), round((height - inner[1]) / 2 - 0.1)))
    if preprocessing.crop_ratio is not None:
        return _centre_of_scaled(own_width, own_height, preprocessing, preprocessing.crop_ratio)
    scale = max(width / own_width, height / own_height)
    kept_width = min(own_width, max(1, round(width / scale)))
    kept_height = min(own_height, max(1, round(height / scale)))
    left, top = (own_width - kept_width) // 2, (own_height - kept_height) // 2
    return Placement((left, top, left + kept_width, top + kept_height), (width, height))


def _centre_of_scaled(own_width: int, own_height: int, preprocessing: Preprocessing, ratio: float) -> Placement:
    """Scale the shorter side to the size over the ratio, and cut out the centre (torchvision's Resize, CenterCrop)."""
    height, width = preprocessing.size
    least_height, least_width = (int(side / ratio + 1e-6) for side in (height, width))
    if own_width * least_height <= own_height * least_width:  # the width is what comes first to its least
        size = (least_width, int(least_width * own_height / own_width))
    else:
        size = (int(least_height * own_width / own_height), least_height)
    # round() takes halves to even, as torchvision's does
    left, top = round((size[0] - width) / 2.0), round((size[1] - height) / 2.0)
    return Placement((0, 0, own_width, own_height), size, (-left, -top))


def resized_image(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return a picture, of the network's channels, at its size: squashed, cut or letterboxed."""
    height, width = preprocessing.size
    where = placement(image.width, image.height, preprocessing)
    # cut before scaling: the filter of a scaling with a box would look beyond the box
    part = image if where.cut == (0, 0, *image.size) else image.crop(where.cut)
    scaled = _scaled(part, *where.scaled, preprocessing)
    left, top = where.corner
    if preprocessing.resize != "letterbox":
        return scaled if where.scaled == (width, height) else scaled.crop((-left, -top, width - left, height - top))
    color = preprocessing.pad_color[0] if len(image.getbands()) == 1 else preprocessing.pad_color
    whole = Image.new(image.mode, (width, height), color)
    whole.paste(scaled, (left, top))
    return whole


def _scaled(image: Image.Image, width: int, height: int, preprocessing: Preprocessing) -> Image.Image:
    if image.size == (width, height):
        return image
    chosen = _FILTERS[preprocessing.interpolation]
    if preprocessing.antialias or preprocessing.interpolation not in ("bilinear", "bicubic"):
        return image.resize((width, height), chosen)
    columns, rows = image.width / width, image.height / height
    # samples between the nearest pixels, centres on centres, as cv2.resize does
    return image.transform((width, height), Image.Transform.AFFINE, (columns, 0, 0, 0, rows, 0), chosen)


def resized_array(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return an image `(H, W, C)` with the network's channels at its size; each channel is scaled alone.

    Raises:
        InputError: it has other channels, or another type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != preprocessing.channels:
        raise InputError(
            f"an image of {image.dtype} with the shape {image.shape}: give bytes of shape (height, width, "
            f"{preprocessing.channels})"
        )
    if image.shape[:2] == preprocessing.size and preprocessing.crop_ratio is None:
        return image
    planes = []
    for channel in range(preprocessing.channels):
        plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
        planes.append(np.asarray(resized_image(plane, _of_channel(preprocessing, channel))))
    return np.stack(planes, axis=-1)


def _of_channel(preprocessing: Preprocessing, channel: int) -> Preprocessing:
    """Return what resizes one channel alone."""
    return Preprocessing(
        preprocessing.size,
        channels=1,
        resize=preprocessing.resize,
        crop_ratio=preprocessing.crop_ratio,
        interpolation=preprocessing.interpolation,
        antialias=preprocessing.antialias,
        pad_color=(preprocessing.pad_color[channel],),
        pad_position=preprocessing.pad_position,
    )
