"""Augmentation shifts and mirrors, nothing else, and only the generator decides."""

import pytest
import torch

import n2n_edge
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from n2n_edge.training.augmentation import augment, augmented, cropped, normalise
from n2n_edge.training.settings import DistillSettings


def batch() -> torch.Tensor:
    return torch.randint(1, 256, (32, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_each_image_is_a_shift_of_itself_with_black_beyond_the_edge() -> None:
    images = batch()
    augmented = augment(images, torch.Generator().manual_seed(1), flip=False)
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
    plain = augment(images, torch.Generator().manual_seed(1), flip=False)
    flipped = augment(images, torch.Generator().manual_seed(1), flip=True)
    same = sum(torch.equal(a, b) for a, b in zip(plain, flipped, strict=True))
    assert 8 <= same <= 24


def test_the_same_generator_gives_the_same_batch() -> None:
    one, two, other = (augment(batch(), torch.Generator().manual_seed(seed), flip=True) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_normalise_scales_per_channel_to_what_a_model_takes() -> None:
    images = batch()
    inputs = normalise(images, Preprocessing((16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)))
    assert tuple(inputs.shape) == (32, 3, 16, 16)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(inputs[3, 1, 2, 5], (images[3, 2, 5, 1] / 255 - 0.4) / 0.3)


def upside_down(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return images.flip(1)


def too_small(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return images[:, :8]


def changed(images: torch.Tensor, augment: str | None, *, flip: bool | None = None) -> torch.Tensor:
    return augmented(images, torch.Generator().manual_seed(1), DistillSettings(augment=augment, flip=flip))


def test_photographs_are_cropped_and_small_images_shifted() -> None:
    small, large = batch(), torch.randint(0, 256, (4, 96, 128, 3), dtype=torch.uint8)
    assert torch.equal(changed(small, None), augment(small, torch.Generator().manual_seed(1), flip=True))
    assert torch.equal(changed(large, None), cropped(large, torch.Generator().manual_seed(1), flip=True))
    assert torch.equal(changed(large, "none"), large)


def test_a_crop_shows_a_part_of_the_image_at_its_size() -> None:
    rows = torch.arange(128).view(128, 1).expand(128, 128)
    ramps = torch.stack([rows, rows.T, rows], -1).expand(64, 128, 128, 3).to(torch.uint8).contiguous()
    parts = cropped(ramps, torch.Generator().manual_seed(0), flip=False).float()
    high = parts[:, -1, 64, 0] - parts[:, 0, 64, 0]  # rows that each crop shows
    wide = parts[:, 64, -1, 1] - parts[:, 64, 0, 1]
    shares = high * wide / 127**2
    assert 0.2 < float(shares.min()) < 0.4
    assert float(shares.max()) > 0.9
    assert float((high / wide).min()) > 0.7
    assert float((high / wide).max()) < 1.4
    mirrored = cropped(ramps, torch.Generator().manual_seed(0), flip=True)
    assert 15 < int((mirrored[:, 64, 0, 1] > mirrored[:, 64, -1, 1]).sum()) < 49


def test_a_function_of_ones_own_augments() -> None:
    images = batch()
    assert torch.equal(changed(images, f"{__name__}:upside_down"), images.flip(1))
    with pytest.raises(InputError, match="too_small: the function gives torch"):
        changed(images, f"{__name__}:too_small")
    with pytest.raises(InputError, match="has no function 'nothing'"):
        changed(images, f"{__name__}:nothing")


def test_augmentations_that_cant_be() -> None:
    with pytest.raises(InputError, match="augment heavy: give none, light, standard"):
        DistillSettings(augment="heavy")
    with pytest.raises(InputError, match="flip belongs to light and standard"):
        DistillSettings(augment="none", flip=True)
    with pytest.raises(InputError, match="a run that is resumed has to import it"):
        n2n_edge.compress(augment=lambda images, generator: images)
