"""Augmentation of a batch, and its normalisation: everything that happens to an image before the model."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from n2n_edge.data.dataset import Data
from n2n_edge.data.labels.values import Floats
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from n2n_edge.importing import function_by_name, guarded
from n2n_edge.training.settings import AUGMENTATIONS, DistillSettings

__all__ = ["Augment", "Augmenter", "Part", "cropped", "normalise", "shifted"]

Part = tuple[int, int]
"""From which place on images are part of a batch, and how many it has."""

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Takes images `(N, H, W, C)` as bytes in RGB and gives as many of the same form; the generator alone decides."""

PHOTOGRAPH = 96
"""Images whose shorter side has so many pixels are cropped and scaled, smaller ones shifted."""

_LEAST_AREA, _LARGEST_RATIO = 0.35, 4 / 3


class Augmenter:
    """What settings do to training images, but for those that are seen as they are.

    The teacher sees the same image; labels follow by `moved`. Raises InputError for a function of the user's that isn't
    there.
    """

    def __init__(self, settings: DistillSettings, data: Data) -> None:
        channels, height, width = data.input_shape
        self._flip, self._chosen = settings.flips(channels), settings.augment
        if self._chosen == "auto":
            self._chosen = "standard" if min(height, width) >= PHOTOGRAPH else "light"
        own = self._chosen not in AUGMENTATIONS
        self._function = function_by_name("augmentation", self._chosen) if own else None

    def __call__(self, images: Tensor, generator: torch.Generator, of: Part | None = None) -> Tensor:
        """Return images `(N, H, W, C)` changed; those of a part become what they are in the whole batch.

        A function of the user's sees the part alone. Raises InputError for what gives no images.
        """
        return self.moved(images, generator, of)[0]

    def moved(
        self, images: Tensor, generator: torch.Generator, of: Part | None = None
    ) -> tuple[Tensor, Sequence[Floats | None] | None]:
        """Return the same, and the matrix `(2, 3)` by which each image was moved, as `transformed` takes it.

        There are none where images stay as they are; one is None where a function of the user's doesn't tell.
        """
        if self._chosen == "none":
            return images, None
        if self._function is None:
            change = _shift if self._chosen == "light" else _crop
            return change(images, generator, self._flip, of)
        with guarded(f"augmentation '{self._chosen}': the function"):
            found = self._function(images, generator)
        if not isinstance(found, Tensor) or found.dtype != torch.uint8 or found.shape != images.shape:
            form = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"augmentation '{self._chosen}' gave {form}: give a uint8 tensor of the shape of its images, "
                f"{tuple(images.shape)}"
            )
        return found, [None] * len(images)


def cropped(images: Tensor, generator: torch.Generator, *, flip: bool, of: Part | None = None) -> Tensor:
    """Scale a random part of each image to the whole, bilinearly, and mirror half of them if `flip`.

    Takes and gives bytes `(N, H, W, C)`. A part has 0.35 to all of the area, and up to 4 / 3 the proportions of the
    image, as in the random resized crop of Szegedy et al., Going Deeper with Convolutions, 2015, section 6, whose least
    area of 0.08 shows a teacher too little to teach by. `of` as for `shifted`.
    """
    return _crop(images, generator, flip, of)[0]


def _crop(images: Tensor, generator: torch.Generator, flip: bool, of: Part | None) -> tuple[Tensor, list[Floats]]:
    start, count = of or (0, len(images))
    area = torch.empty(count).uniform_(_LEAST_AREA, 1.0, generator=generator)
    ratio = torch.empty(count).uniform_(-1.0, 1.0, generator=generator).mul_(math.log(_LARGEST_RATIO)).exp_()
    sizes = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp_max_(1.0)
    centres = (torch.rand((count, 2), generator=generator) * 2 - 1) * (1 - sizes)
    mirrored = torch.rand(count, generator=generator) < 0.5
    transforms = torch.zeros(count, 2, 3)
    transforms[:, 0, 0], transforms[:, 1, 1] = sizes[:, 0], sizes[:, 1]
    transforms[:, :, 2] = centres
    if flip:
        transforms[mirrored, 0, 0] *= -1
    transforms = transforms[start : start + len(images)]
    pixels = images.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(transforms, list(pixels.shape), align_corners=False)
    found = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    moves = _inverted(transforms, images.shape[1], images.shape[2])
    return found.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous(), moves


def _inverted(transforms: Tensor, height: int, width: int) -> list[Floats]:
    """Return what takes pixels of images to where they go, from what `affine_grid` takes, places from -1 to 1."""
    rows = transforms.double().numpy()
    moves = np.zeros_like(rows)
    for axis, size in ((0, width), (1, height)):
        scale = rows[:, axis, axis]
        moves[:, axis, axis] = 1 / scale
        moves[:, axis, 2] = (scale - 1 - rows[:, axis, 2]) / scale * size / 2
    return list(moves)


def shifted(images: Tensor, generator: torch.Generator, *, flip: bool, of: Part | None = None) -> Tensor:
    """Shift each image by up to an eighth of its size, black beyond the edge, and mirror half of them if `flip`.

    Takes and gives `(N, H, W, C)` of any type. Only `generator` decides, so the same generator state gives the same
    batch. At 32x32 this is the usual random crop with 4 pixels of padding. `of`: the images are a part of a batch, from
    which place on, and how many it has; they become what they are in the whole.
    """
    return _shift(images, generator, flip, of)[0]


def _shift(images: Tensor, generator: torch.Generator, flip: bool, of: Part | None) -> tuple[Tensor, list[Floats]]:
    count, height, width, _ = images.shape
    start, batch = of or (0, count)
    pad_rows, pad_columns = max(1, height // 8), max(1, width // 8)
    row_shifts = torch.randint(-pad_rows, pad_rows + 1, (batch, 1), generator=generator)
    column_shifts = torch.randint(-pad_columns, pad_columns + 1, (batch, 1), generator=generator)
    mirrored = torch.rand((batch, 1), generator=generator) < 0.5
    row_shifts, column_shifts, mirrored = (
        each[start : start + count] for each in (row_shifts, column_shifts, mirrored & flip)
    )
    rows = torch.arange(height).expand(count, height) + row_shifts + pad_rows
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(mirrored, width - 1 - columns, columns)
    columns = columns + column_shifts + pad_columns
    padded = torch.nn.functional.pad(images, (0, 0, pad_columns, pad_columns, pad_rows, pad_rows))
    found = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    moves = np.zeros((count, 2, 3))
    moves[:, :, 2] = -torch.cat([column_shifts, row_shifts], 1).numpy()
    moves[:, 0, 0], moves[:, 1, 1] = 1.0, 1.0
    turned = mirrored[:, 0].numpy()
    moves[turned, 0, 0], moves[turned, 0, 2] = -1.0, width - moves[turned, 0, 2]
    return found, list(moves)


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn bytes `(N, H, W, C)` in RGB into the model's input `(N, C, H, W)` as floats, channels-last in memory."""
    offset, scale = (torch.from_numpy(value).to(images.device) for value in preprocessing.offset_and_scale)
    values = images.flip(-1).float() if preprocessing.channel_order == "bgr" else images.float()
    return values.sub_(offset).div_(scale).permute(0, 3, 1, 2)
