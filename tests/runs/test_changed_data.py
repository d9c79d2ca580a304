"""A run goes on with the data that it was begun with, and notices any others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import n2n_edge
from n2n_edge._example import teacher_path
from n2n_edge.data.dataset import load_data
from n2n_edge.errors import InputError
from n2n_edge.search.store import Journal
from tests.data.datasets import items_of
from tests.runs.stopping import begun

LABELS = np.arange(120) % 10


def images(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (120, 16, 16)).astype(np.uint8)


def test_a_resumed_run_notices_other_data(tmp_path):
    data, out = tmp_path / "data.npz", tmp_path / "run"
    np.savez(data, x=images(0), y=LABELS)
    given = {"max_params": 20_000, "effort": "quick", "candidates": 2, "epochs": 1, "policy": "random"}
    begun(out, teacher=teacher_path(), data=str(data), mean=(0.0,), std=(1.0,), **given)
    np.savez(tmp_path / "again.npz", y=LABELS, x=images(0))
    (tmp_path / "again.npz").replace(data)
    begun(out, resume=True)  # the same images and labels
    for x, y in ((images(1), LABELS), (images(0), (LABELS + 3) % 10)):
        np.savez(data, x=x, y=y)
        with pytest.raises(InputError, match="the data have changed since this run began"):
            n2n_edge.compress(out=out, resume=True)
    with Journal.open(out / "journal.sqlite") as journal:
        journal.set_meta("data_sha256", None)  # as an older version left it
    begun(out, resume=True)


def as_npz(root: Path, x: np.ndarray, y: np.ndarray, _patch: pytest.MonkeyPatch) -> str:
    np.savez(root / "x.npz", x=x, y=y)
    return str(root / "x.npz")


def as_folder(root: Path, x: np.ndarray, y: np.ndarray, _patch: pytest.MonkeyPatch) -> str:
    shutil.rmtree(root / "images", ignore_errors=True)
    for index, (image, label) in enumerate(zip(x, y, strict=True)):
        folder = root / "images" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return str(root / "images")


def as_function(_root: Path, x: np.ndarray, y: np.ndarray, patch: pytest.MonkeyPatch) -> str:
    return items_of(patch, list(zip(x, y.tolist(), strict=True)))


@pytest.mark.parametrize("write", [as_npz, as_folder, as_function])
def test_a_digest_is_of_what_images_and_labels_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., str]
) -> None:
    def digest(x: np.ndarray, y: np.ndarray, seed: int = 0) -> str:
        spec = write(tmp_path, x, y, monkeypatch)
        return load_data(spec, input_shape=(1, 16, 16), classes=10, seed=seed).digest()

    one_pixel = images(0)
    one_pixel[60, 8, 8] ^= 1
    first = digest(images(0), LABELS)
    assert digest(images(0), LABELS) == first
    others = {digest(one_pixel, LABELS), digest(images(0), (LABELS + 1) % 10), digest(images(0), LABELS, seed=1)}
    assert len({first, *others}) == 4
