"""Corrupted images: worse with severity, the same for the same seed, and never another shape."""

import numpy as np
import pytest

from n2n_edge.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from n2n_edge.data.dataset import Split


def pictures(channels: int) -> Split:
    rows, columns = np.mgrid[0:24, 0:20]
    waves = np.stack([127 + 100 * np.sin(rows / (2 + c)) * np.cos(columns / 3) for c in range(channels)], axis=-1)
    return Split(np.stack([waves, waves[::-1]]).astype(np.uint8), np.array([0, 1]))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_move_further_away_with_severity(name: str, channels: int) -> None:
    clean = pictures(channels)
    distances = []
    for severity in SEVERITIES:
        changed = corrupted(clean, name, severity)
        assert changed.images.shape == clean.images.shape
        assert changed.images.dtype == np.uint8
        assert changed.labels is clean.labels
        distances.append(float(np.abs(changed.images.astype(int) - clean.images).mean()))
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert distances[-1] > 1.5 * distances[0]


def test_the_seed_alone_decides() -> None:
    clean = pictures(3)
    one, again, other = (corrupted(clean, "noise", 3, seed).images for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


@pytest.mark.parametrize(("name", "severity"), [("rain", 1), ("noise", 0), ("noise", 6)])
def test_others_are_refused(name: str, severity: int) -> None:
    with pytest.raises(ValueError, match="noise, blur, brightness, contrast, jpeg"):
        corrupted(pictures(1), name, severity)
