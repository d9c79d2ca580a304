"""Augmentation of a batch, and its normalisation: everything that happens to an image before the model."""

from collections.abc import Callable
from functools import lru_cache
from math import log
from typing import cast

import torch
from torch import Tensor

from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from n2n_edge.importing import function_by_name, guarded
from n2n_edge.training.settings import DistillSettings

__all__ = ["augment", "augmented", "cropped", "normalise"]

_LEAST_AREA, _PROPORTIONS = 0.25, (3 / 4, 4 / 3)
"""What a random crop keeps of an image at least, and the proportions of what it keeps."""

_Function = Callable[[Tensor, torch.Generator], object]


def augmented(images: Tensor, generator: torch.Generator, settings: DistillSettings) -> Tensor:
    """Return a batch of bytes `(N, H, W, C)` as `settings.augmentation` changes it; only `generator` decides.

    Labels that are classes stay right. Nothing is moved that tells where something is: what places, boxes or maps a
    student learns, the teacher gives for the very images that the student sees.

    Raises:
        InputError: a function of the user's raises, or gives something else than as many bytes of the same shape.
    """
    _, height, width, channels = images.shape
    name = settings.augmentation(height, width)
    if name == "none":
        return images
    if name in ("light", "standard"):
        change = augment if name == "light" else cropped
        return change(images, generator, flip=settings.flips(channels))
    where = f"‹augment› {name}: the function"
    with guarded(where):
        changed = _function(name)(images, generator)
    if not isinstance(changed, Tensor) or changed.shape != images.shape or changed.dtype != torch.uint8:
        shape = tuple(changed.shape) if isinstance(changed, Tensor) else ""
        kind = changed.dtype if isinstance(changed, Tensor) else type(changed).__name__
        raise InputError(f"{where} gives {kind} {shape}; it gets and gives torch.uint8 {tuple(images.shape)}, N H W C")
    return changed


@lru_cache(maxsize=8)
def _function(name: str) -> _Function:
    return cast("_Function", function_by_name("‹augment›", name))


def augment(images: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """Shift each image by up to an eighth of its size, black beyond the edge, and mirror half of them if `flip`.

    Takes and gives `(N, H, W, C)` of any type. Only `generator` decides, so the same generator state gives the same
    batch. At 32x32 this is the usual random crop with 4 pixels of padding.
    """
    count, height, width, _ = images.shape
    pad_rows, pad_columns = max(1, height // 8), max(1, width // 8)
    row_shifts = torch.randint(-pad_rows, pad_rows + 1, (count, 1), generator=generator)
    column_shifts = torch.randint(-pad_columns, pad_columns + 1, (count, 1), generator=generator)
    mirrored = torch.rand((count, 1), generator=generator) < 0.5
    rows = torch.arange(height).expand(count, height) + row_shifts + pad_rows
    columns = torch.arange(width).expand(count, width)
    if flip:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    columns = columns + column_shifts + pad_columns
    padded = torch.nn.functional.pad(images, (0, 0, pad_columns, pad_columns, pad_rows, pad_rows))
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def cropped(images: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """Cut a part out of each image at random, scale it to the whole's size, and mirror half of them if `flip`.

    Takes and gives bytes `(N, H, W, C)`. The part has a quarter of the area at least, and proportions of 3:4 to 4:3 in
    those of the image (torchvision's RandomResizedCrop, which goes down to 0.08 of the area: a teacher's outputs for so
    little say little, and training here is short).
    """
    count, height, width, _ = images.shape
    drawn = torch.rand((count, 5), generator=generator, dtype=torch.float64)
    area = _LEAST_AREA + (1 - _LEAST_AREA) * drawn[:, 0]
    low, high = (log(value) for value in _PROPORTIONS)
    proportion = torch.exp(low + (high - low) * drawn[:, 1])
    heights = (height * torch.sqrt(area / proportion)).round().clamp(1, height).long()
    widths = (width * torch.sqrt(area * proportion)).round().clamp(1, width).long()
    tops = ((height - heights + 1) * drawn[:, 2]).long()
    lefts = ((width - widths + 1) * drawn[:, 3]).long()
    mirrored = (drawn[:, 4] < 0.5) & flip
    changed = torch.empty_like(images)
    parts = zip(*(each.tolist() for each in (tops, lefts, heights, widths, mirrored)), strict=True)
    for index, (top, left, rows, columns, mirror) in enumerate(parts):
        part = images[index, top : top + rows, left : left + columns].permute(2, 0, 1)[None]
        scaled = torch.nn.functional.interpolate(part, size=(height, width), mode="bilinear", antialias=True)[0]
        changed[index] = (scaled.flip(-1) if mirror else scaled).permute(1, 2, 0)
    return changed


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn bytes `(N, H, W, C)` in RGB into the model's input `(N, C, H, W)` as floats, channels-last in memory."""
    offset, scale = (torch.from_numpy(value).to(images.device) for value in preprocessing.offset_and_scale)
    values = images.flip(-1).float() if preprocessing.channel_order == "bgr" else images.float()
    return values.sub_(offset).div_(scale).permute(0, 3, 1, 2)
