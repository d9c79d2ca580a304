"""Decoded images in a file: under its limit, and shared."""

from pathlib import Path

import numpy as np
import pytest

from n2n_edge.data.pixel_cache import KEPT, PixelCache

ROWS, ROW_BYTES = 400, 100


def image(row: int) -> np.ndarray:
    return np.full(ROW_BYTES, row % 251, np.uint8)


@pytest.mark.parametrize("shared", [False, True])
def test_no_more_is_kept_than_the_limit_allows(shared: bool, tmp_path: Path) -> None:
    cache = PixelCache(tmp_path / "it.pixels" if shared else None, ROWS, ROW_BYTES, ROWS + 30 * ROW_BYTES)
    for row in range(ROWS):
        cache.put(row, image(row), KEPT)
    kept = [row for row in range(ROWS) if cache.get(row) is not None]
    assert kept == list(range(30))
    assert cache.bytes == ROWS + 30 * ROW_BYTES
    for row in kept:
        np.testing.assert_array_equal(cache.get(row), image(row))


def test_without_room_for_an_image_there_is_no_file(tmp_path: Path) -> None:
    cache = PixelCache(tmp_path / "it.pixels", ROWS, ROW_BYTES, ROWS + ROW_BYTES - 1)
    cache.put(0, image(0), KEPT)
    assert cache.get(0) is None
    assert cache.bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_processes_see_what_others_keep_and_share_the_limit(tmp_path: Path) -> None:
    limit = ROWS + 200 * ROW_BYTES
    first, second = (PixelCache(tmp_path / "it.pixels", ROWS, ROW_BYTES, limit) for _ in range(2))
    for row in range(0, ROWS, 2):
        first.put(row, image(row), KEPT)
        second.put(row + 1, image(row + 1), KEPT)
    third = PixelCache(tmp_path / "it.pixels", ROWS, ROW_BYTES, limit)
    kept = np.flatnonzero(third.marks)
    assert 200 <= len(kept) < 200 + 2 * 64
    assert sum(second.get(int(row)) is not None for row in kept if row % 2 == 0) > 30
    for row in kept:
        np.testing.assert_array_equal(third.get(int(row)), image(int(row)))
