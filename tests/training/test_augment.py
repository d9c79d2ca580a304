"""Augmentation shifts small images and crops photographs, and only the generator decides."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from n2n_edge.importing import name_of_function
from n2n_edge.training.augmentation import Augmenter, cropped, normalise, shifted
from n2n_edge.training.settings import DistillSettings


def batch() -> torch.Tensor:
    return torch.randint(1, 256, (32, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_each_image_is_a_shift_of_itself_with_black_beyond_the_edge() -> None:
    images = batch()
    augmented = shifted(images, torch.Generator().manual_seed(1), flip=False)
    padded = torch.nn.functional.pad(images, (0, 0, 2, 2, 2, 2))
    shifts = set()
    for image, source in zip(augmented, padded, strict=True):
        found = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(image, source[row : row + 16, column : column + 16])
        ]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 5


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = batch()
    plain = shifted(images, torch.Generator().manual_seed(1), flip=False)
    flipped = shifted(images, torch.Generator().manual_seed(1), flip=True)
    same = sum(torch.equal(a, b) for a, b in zip(plain, flipped, strict=True))
    assert 8 <= same <= 24


def test_the_same_generator_gives_the_same_batch() -> None:
    one, two, other = (shifted(batch(), torch.Generator().manual_seed(seed), flip=True) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_normalise_scales_per_channel_to_what_a_model_takes() -> None:
    images = batch()
    inputs = normalise(images, Preprocessing((16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)))
    assert tuple(inputs.shape) == (32, 3, 16, 16)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(inputs[3, 1, 2, 5], (images[3, 2, 5, 1] / 255 - 0.4) / 0.3)


def ramps(size: int = 128) -> torch.Tensor:
    """Images whose red grows to the right and green downwards: a part of one tells where it was cut out."""
    place = torch.arange(size, dtype=torch.float32) * 255 / (size - 1)
    image = torch.stack(
        [place.expand(size, size), place[:, None].expand(size, size), torch.full((size, size), 99.0)], 2
    )
    return image.round().to(torch.uint8).expand(64, size, size, 3)


@pytest.mark.parametrize("flip", [False, True])
def test_a_part_of_each_photograph_is_scaled_to_the_whole(flip: bool) -> None:
    images = ramps()
    found = cropped(images, torch.Generator().manual_seed(0), flip=flip).float()
    assert found.shape == images.shape
    wide = (found[:, 64, -1, 0] - found[:, 64, 0, 0]) / 255
    high = (found[:, -1, 64, 1] - found[:, 0, 64, 1]) / 255
    assert bool(((wide < 0).sum() > 20) == flip)
    assert (high > 0).all()  # never upside down
    area, ratio = wide.abs() * high, wide.abs() / high
    assert 0.3 < float(area.min()) < 0.5
    assert 0.85 < float(area.max()) <= 1
    assert 0.7 < float(ratio.min()) < 0.85
    assert 1.18 < float(ratio.max()) < 1.4
    assert (found[..., 2] == 99).all()


def data_of(size: int) -> Data:
    split = Split(np.zeros((4, size, size, 3), np.uint8), None)
    return Data(train=split, validation=split, test=split, class_names=(), preprocessing=Preprocessing((size, size)))


@pytest.mark.parametrize(
    ("size", "chosen", "change"), [(32, "auto", shifted), (128, "auto", cropped), (128, "light", shifted)]
)
def test_the_size_of_the_images_decides_what_is_done_to_them(size, chosen, change) -> None:
    settings = DistillSettings(augment=chosen)
    images = ramps(size)
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    assert torch.equal(Augmenter(settings, data_of(size))(images, one), change(images, other, flip=True))
    plain = Augmenter(replace(settings, augment="none"), data_of(size))
    assert torch.equal(plain(images, one), images)


def darker(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return images // 2


def of_another_type(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return images / 2


def test_a_function_of_ones_own_augments() -> None:
    name = name_of_function("augment", darker)
    images = ramps(32)
    found = Augmenter(DistillSettings(augment=name), data_of(32))(images, torch.Generator())
    assert torch.equal(found, images // 2)
    other = Augmenter(DistillSettings(augment=name_of_function("augment", of_another_type)), data_of(32))
    with pytest.raises(InputError, match=r"gave torch\.float32 .* give a uint8 tensor"):
        other(images, torch.Generator())


def test_functions_that_a_resumed_run_couldnt_find_are_refused() -> None:
    with pytest.raises(InputError, match="at the top of a module"):
        name_of_function("augment", lambda images, generator: images)
    with pytest.raises(InputError, match=r"none, light, standard, or package\.module:function"):
        DistillSettings(augment="strong")
