"""Pictures at a network's size, as the libraries that networks are trained with bring them there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 48), (75, 100), (130, 90)])
def test_without_antialiasing_it_is_what_opencv_and_torch_do(mode: str, size: tuple[int, int]) -> None:
    scaled = Preprocessing(size, resize="squash", interpolation=mode, antialias=False).resized(PIXELS)  # type: ignore[arg-type]
    of_torch = torch.nn.functional.interpolate(
        torch.from_numpy(PIXELS).permute(2, 0, 1)[None].float(), size=size, mode=mode, align_corners=False
    )
    expected = of_torch[0].permute(1, 2, 0).clamp(0, 255).numpy()
    assert np.abs(scaled - expected).max() < 0.51  # rounded to the nearest


def test_lanczos_is_antialiased() -> None:
    with pytest.raises(InputError, match="give bilinear or bicubic"):
        Preprocessing((8, 8), interpolation="lanczos", antialias=False)


@pytest.mark.parametrize("options", [{"resize": "letterbox"}, {"crop_ratio": 0.9}])
def test_a_large_jpeg_is_where_its_pixels_are(options: dict[str, object], tmp_path: Path) -> None:
    rows = np.linspace(0, 255, 641).round().astype(np.uint8)
    picture = np.repeat(np.repeat(rows[:, None, None], 565, 1), 3, 2)
    picture[:, ::7] //= 2
    Image.fromarray(picture).save(tmp_path / "p.jpg", quality=98)
    how = Preprocessing((97, 131), **options)  # type: ignore[arg-type]
    decoded = np.asarray(Image.open(tmp_path / "p.jpg").convert("RGB"))
    np.testing.assert_array_equal(how.resized(tmp_path / "p.jpg"), how.resized(decoded))
