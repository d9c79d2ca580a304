"""Pictures and arrays of bytes brought to the size of a network's input."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.preprocessing import Interpolation, Preprocessing
from n2n_edge.errors import InputError

__all__ = ["resized_array", "resized_image"]

_FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


def resized_image(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return a picture, of the network's channels, at its size: squashed, cut or letterboxed."""
    height, width = preprocessing.size
    if preprocessing.resize == "squash":
        return _scaled(image, width, height, preprocessing)
    if preprocessing.resize == "letterbox":
        return _letterboxed(image, preprocessing)
    if preprocessing.crop_ratio is not None:
        return _centre_of_scaled(image, preprocessing, preprocessing.crop_ratio)
    if image.size == (width, height):
        return image
    scale = max(width / image.width, height / image.height)
    kept_width = min(image.width, max(1, round(width / scale)))
    kept_height = min(image.height, max(1, round(height / scale)))
    left, top = (image.width - kept_width) // 2, (image.height - kept_height) // 2
    # cut before scaling: the filter of a scaling with a box would look beyond the box
    centre = image.crop((left, top, left + kept_width, top + kept_height))
    return _scaled(centre, width, height, preprocessing)


def _scaled(image: Image.Image, width: int, height: int, preprocessing: Preprocessing) -> Image.Image:
    if image.size == (width, height):
        return image
    chosen = _FILTERS[preprocessing.interpolation]
    if preprocessing.antialias or preprocessing.interpolation not in ("bilinear", "bicubic"):
        return image.resize((width, height), chosen)
    columns, rows = image.width / width, image.height / height
    # samples between the nearest pixels, centres on centres, as cv2.resize does
    return image.transform((width, height), Image.Transform.AFFINE, (columns, 0, 0, 0, rows, 0), chosen)


def _centre_of_scaled(image: Image.Image, preprocessing: Preprocessing, ratio: float) -> Image.Image:
    """Scale the shorter side to the size over the ratio, and cut out the centre (torchvision's Resize, CenterCrop)."""
    height, width = preprocessing.size
    least_height, least_width = (int(side / ratio + 1e-6) for side in (height, width))
    if image.width * least_height <= image.height * least_width:  # the width is what comes first to its least
        size = (least_width, int(least_width * image.height / image.width))
    else:
        size = (int(least_height * image.width / image.height), least_height)
    scaled = _scaled(image, *size, preprocessing)
    # round() takes halves to even, as torchvision's does
    left, top = round((scaled.width - width) / 2.0), round((scaled.height - height) / 2.0)
    return scaled.crop((left, top, left + width, top + height))


def _letterboxed(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    height, width = preprocessing.size
    scale = min(width / image.width, height / image.height)
    inner_width = min(width, max(1, round(image.width * scale)))
    inner_height = min(height, max(1, round(image.height * scale)))
    inner = _scaled(image, inner_width, inner_height, preprocessing)
    left = top = 0
    if preprocessing.pad_position == "center":  # halves go up and left, as in Ultralytics' LetterBox
        left, top = round((width - inner_width) / 2 - 0.1), round((height - inner_height) / 2 - 0.1)
    color = preprocessing.pad_color[0] if len(image.getbands()) == 1 else preprocessing.pad_color
    whole = Image.new(image.mode, (width, height), color)
    whole.paste(inner, (left, top))
    return whole


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
