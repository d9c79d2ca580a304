"""Images as a board may see them: noisy, out of focus, too dark, flat, or badly compressed, at five severities."""

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from n2n_edge.data.dataset import Split

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupted"]

SEVERITIES = (1, 2, 3, 4, 5)

Pixels = NDArray[np.uint8]
"""One image `(H, W)` or `(H, W, 3)`."""

_NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)  # standard deviation, of the full range
_BLUR = (0.0125, 0.02, 0.03, 0.045, 0.0625)  # standard deviation of the Gaussian, of the image's height
_DARKENING = (0.8, 0.65, 0.5, 0.35, 0.25)  # what is left of the brightness
_FLATTENING = (0.75, 0.6, 0.45, 0.3, 0.2)  # what is left of the contrast around the mean
_QUALITY = (50, 30, 20, 12, 7)


def _noise(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    noisy = pixels + random.normal(0, 255 * _NOISE[severity - 1], pixels.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def _blur(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    radius = _BLUR[severity - 1] * pixels.shape[0]
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _brightness(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(_DARKENING[severity - 1]))


def _contrast(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(pixels)).enhance(_FLATTENING[severity - 1]))


def _jpeg(pixels: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY[severity - 1])
    return np.asarray(Image.open(file))


CORRUPTIONS: Mapping[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "jpeg": _jpeg,
}
"""Kinds that cameras on boards meet, after Hendrycks and Dietterich (Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations, ICLR 2019), with severities that suit images of any size."""


def corrupted(split: Split, corruption: str, severity: int, seed: int = 0) -> Split:
    """Give the images of a split under one of `CORRUPTIONS` at a severity of 1 to 5; labels stay.

    The same arguments give the same images. Channels of images that aren't colour are treated one by one. Raises
    ValueError for another name or severity.
    """
    if corruption not in CORRUPTIONS or severity not in SEVERITIES:
        raise ValueError(f"no corruption {corruption!r} of severity {severity}: {', '.join(CORRUPTIONS)}, 1 to 5")
    change = CORRUPTIONS[corruption]
    random = np.random.default_rng([seed, severity, list(CORRUPTIONS).index(corruption)])
    changed = np.empty(split.images.shape, np.uint8)
    for place in range(len(split)):
        image = split.images[place]
        if image.shape[2] == 3:
            changed[place] = change(np.ascontiguousarray(image), severity, random)
            continue
        for channel in range(image.shape[2]):
            changed[place, ..., channel] = change(np.ascontiguousarray(image[..., channel]), severity, random)
    return Split(changed, split.labels)
