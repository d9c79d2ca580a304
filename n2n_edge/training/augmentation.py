"""Light augmentation of a batch, and its normalisation: everything that happens to an image before the model."""

import torch
from torch import Tensor

__all__ = ["augment", "normalise"]


def augment(images: Tensor, generator: torch.Generator, *, flip: bool, of: tuple[int, int] | None = None) -> Tensor:
    """Shift each image by up to an eighth of its size, black beyond the edge, and mirror half of them if `flip`.

    Takes and gives `(N, H, W, C)` of any type. Only `generator` decides, so the same generator state gives the same
    batch. At 32x32 this is the usual random crop with 4 pixels of padding. `of`: the images are a part of a batch, from
    which place on, and how many it has; they become what they are in the whole.
    """
    count, height, width, _ = images.shape
    start, batch = of or (0, count)
    pad_rows, pad_columns = max(1, height // 8), max(1, width // 8)
    row_shifts = torch.randint(-pad_rows, pad_rows + 1, (batch, 1), generator=generator)
    column_shifts = torch.randint(-pad_columns, pad_columns + 1, (batch, 1), generator=generator)
    mirrored = torch.rand((batch, 1), generator=generator) < 0.5
    row_shifts, column_shifts, mirrored = (
        each[start : start + count] for each in (row_shifts, column_shifts, mirrored)
    )
    rows = torch.arange(height).expand(count, height) + row_shifts + pad_rows
    columns = torch.arange(width).expand(count, width)
    if flip:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    columns = columns + column_shifts + pad_columns
    padded = torch.nn.functional.pad(images, (0, 0, pad_columns, pad_columns, pad_rows, pad_rows))
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Turn bytes `(N, H, W, C)` into the model's input `(N, C, H, W)`, channels-last: ``(x / 255 - mean) / std``."""
    return images.float().sub_(255.0 * mean).div_(255.0 * std).permute(0, 3, 1, 2)
