"""Pictures and arrays of bytes brought to the size of a network's input."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data.preprocessing import Interpolation, Preprocessing
from n2n_edge.errors import InputError

__all__ = ["Placement", "Reduced", "placement", "resized_array", "resized_image"]

_FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


_ROUNDING = 1e-9

_Distances = NDArray[np.float64]

_BETWEEN_NEAREST: Mapping[Interpolation, Mapping[int, Callable[[_Distances], _Distances]]] = {
    "bilinear": {0: lambda distance: 1 - distance, 1: lambda distance: 1 - distance},
    "bicubic": {
        -1: lambda distance: _CUBIC * (((distance - 5) * distance + 8) * distance - 4),
        0: lambda distance: ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1,
        1: lambda distance: ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1,
        2: lambda distance: _CUBIC * (((distance - 5) * distance + 8) * distance - 4),
    },
}
"""Weight of the pixel at each offset from the nearest below, by its distance (Keys, Cubic convolution, 1981, eq. 4)."""

_CUBIC = -0.75
"""Keys' parameter as OpenCV and torch have it."""


@dataclass(frozen=True)
class Placement:
    """Where an image comes to lie in a network's input.

    The part `cut` (left, top, right, bottom, in pixels of the image) is scaled to `scaled` (width, height), and its
    corner put at `corner` (x, y) of the input; what reaches beyond the input is cut off.
    """

    cut: tuple[int, int, int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Reduced:
    """What a picture is a smaller decoding of: of one of size `whole` (width, height), which fills `filled` of it.

    That is less than its pixels where sides aren't multiples of the scale; the rest is beyond `corner` (left, top).
    """

    whole: tuple[int, int]
    filled: tuple[float, float]
    corner: tuple[float, float] = (0.0, 0.0)

    def box(self, cut: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
        """Return where a part of the whole picture (left, top, right, bottom) lies."""
        across, along = (filled / whole for filled, whole in zip(self.filled, self.whole, strict=True))
        left, top = self.corner
        return left + cut[0] * across, top + cut[1] * along, left + cut[2] * across, top + cut[3] * along


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


def resized_image(image: Image.Image, preprocessing: Preprocessing, of: Reduced | None = None) -> Image.Image:
    """Return a picture, of the network's channels, at its size: squashed, cut or letterboxed.

    It may be a smaller decoding `of` another, which is cut and scaled as that would be; not for letterbox and ratio.
    """
    height, width = preprocessing.size
    where = placement(*(image.size if of is None else of.whole), preprocessing)
    if of is not None:
        return _part_scaled(image, of.box(where.cut), preprocessing)
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


def _part_scaled(
    image: Image.Image, box: tuple[float, float, float, float], preprocessing: Preprocessing
) -> Image.Image:
    """Return a part of a picture, its edges between pixels, at the network's size."""
    left, top = (max(0, floor(edge + _ROUNDING)) for edge in box[:2])
    right, bottom = (min(side, ceil(edge - _ROUNDING)) for edge, side in zip(box[2:], image.size, strict=True))
    inner = max(0.0, box[0] - left), max(0.0, box[1] - top), min(box[2], right) - left, min(box[3], bottom) - top
    size = preprocessing.size[::-1]
    return image.crop((left, top, right, bottom)).resize(size, _FILTERS[preprocessing.interpolation], box=inner)


def _scaled(image: Image.Image, width: int, height: int, preprocessing: Preprocessing) -> Image.Image:
    if image.size == (width, height):
        return image
    if preprocessing.antialias or preprocessing.interpolation not in _BETWEEN_NEAREST:
        return image.resize((width, height), _FILTERS[preprocessing.interpolation])
    taps = _BETWEEN_NEAREST[preprocessing.interpolation]
    values = np.asarray(image).astype(np.float32)
    for axis, size in ((0, height), (1, width)):
        values = _between_nearest(values, axis, size, taps)
    # Pillow's own transform rounds down, which makes images half a level darker
    return Image.fromarray(np.clip(np.floor(values + np.float32(0.5)), 0, 255).astype(np.uint8))


def _between_nearest(
    values: NDArray[np.float32], axis: int, size: int, taps: Mapping[int, Callable[[_Distances], _Distances]]
) -> NDArray[np.float32]:
    """Scale one axis as cv2.resize does: centres on centres, between the nearest pixels; borders go on."""
    length = values.shape[axis]
    at = (np.arange(size) + 0.5) * (length / size) - 0.5
    first = np.floor(at).astype(np.int64)
    shape = [-1 if each == axis else 1 for each in range(values.ndim)]
    scaled = np.zeros((), np.float32)
    for offset, weight in taps.items():
        nearest = values.take(np.clip(first + offset, 0, length - 1), axis)
        scaled = scaled + nearest * weight(np.abs(at - first - offset)).astype(np.float32).reshape(shape)
    return scaled


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
