"""Reader of image files that goes by a student's metadata alone: Pillow and numpy, nothing of n2n-edge."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def read_raw(path: Path, recorded: dict[str, Any]) -> NDArray[Any]:
    """Return what a network takes for one picture, with a batch axis; `recorded` is what its metadata hold."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB" if recorded["channels"] == 3 else "L")
    height, width = recorded["size"]
    if recorded["resize"] == "squash":
        image = scaled(image, width, height, recorded)
    elif recorded["resize"] == "letterbox":
        scale = min(width / image.width, height / image.height)
        inner = scaled(image, round(image.width * scale), round(image.height * scale), recorded)
        spot = (0, 0)
        if recorded["pad_position"] == "center":
            spot = (width - inner.width) // 2, (height - inner.height) // 2
        image = Image.new(image.mode, (width, height), tuple(recorded["pad_color"]))
        image.paste(inner, spot)
    elif recorded["crop_ratio"] is None:
        scale = max(width / image.width, height / image.height)
        kept = min(image.width, round(width / scale)), min(image.height, round(height / scale))
        left, top = (image.width - kept[0]) // 2, (image.height - kept[1]) // 2
        image = scaled(image.crop((left, top, left + kept[0], top + kept[1])), width, height, recorded)
    else:
        least = [int(side / recorded["crop_ratio"] + 1e-6) for side in (width, height)]
        scale = max(least[0] / image.width, least[1] / image.height)
        image = scaled(image, int(image.width * scale + 1e-6), int(image.height * scale + 1e-6), recorded)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    return as_input(np.asarray(image), recorded)


def as_input(image: NDArray[Any], recorded: dict[str, Any]) -> NDArray[Any]:
    """Return what a network takes for bytes `(H, W)` or `(H, W, C)` of its own size, with a batch axis."""
    values = image.reshape(*recorded["size"], recorded["channels"])
    if recorded["channel_order"] == "bgr":
        values = values[..., ::-1]
    if recorded["dtype"] != "uint8":
        floats = values.astype(np.float64)
        in_range = {"0..255": floats, "0..1": floats / 255, "-1..1": floats / 127.5 - 1}[recorded["pixels"]]
        values = ((in_range - recorded["mean"]) / recorded["std"]).astype(np.float32)
    return np.ascontiguousarray(values[None] if recorded["layout"] == "nhwc" else values.transpose(2, 0, 1)[None])


def scaled(image: Image.Image, width: int, height: int, recorded: dict[str, Any]) -> Image.Image:
    """Return a picture scaled, over all of its pixels or between the nearest."""
    if image.size == (width, height):
        return image
    if recorded["antialias"]:
        chosen = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        return image.resize((width, height), chosen[recorded["interpolation"]])
    assert recorded["interpolation"] == "bilinear"
    pixels = np.asarray(image).astype(np.float64)
    for axis, size in ((0, height), (1, width)):
        at = (np.arange(size) + 0.5) * pixels.shape[axis] / size - 0.5
        first = np.clip(np.floor(at).astype(int), 0, pixels.shape[axis] - 1)
        second = np.clip(np.floor(at).astype(int) + 1, 0, pixels.shape[axis] - 1)
        share = (at - np.floor(at)).reshape([-1 if each == axis else 1 for each in range(pixels.ndim)])
        pixels = pixels.take(first, axis) * (1 - share) + pixels.take(second, axis) * share
    return Image.fromarray(np.clip(np.floor(pixels + 0.5), 0, 255).astype(np.uint8))
