"""Augmentation shifts and mirrors, nothing else, and only the generator decides."""

import torch

from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.training.augmentation import augment, normalise


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
