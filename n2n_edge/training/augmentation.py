"""Light augmentation of a batch, and its normalisation: everything that happens to an image before the model."""

import torch
from torch import Tensor

from n2n_edge.data.preprocessing import Preprocessing

__all__ = ["augment", "normalise"]


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


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn bytes `(N, H, W, C)` in RGB into the model's input `(N, C, H, W)` as floats, channels-last in memory."""
    offset, scale = (torch.from_numpy(value).to(images.device) for value in preprocessing.offset_and_scale)
    values = images.flip(-1).float() if preprocessing.channel_order == "bgr" else images.float()
    return values.sub_(offset).div_(scale).permute(0, 3, 1, 2)
