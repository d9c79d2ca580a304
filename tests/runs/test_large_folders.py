"""Runs on images that are decoded when they are needed: what they say, and what they leave."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import n2n_edge
from n2n_edge.data import source_folder
from n2n_edge.errors import InputError
from n2n_edge.runs.callbacks import RunCallback
from tests.runs.small import CLASSES, teacher_file
from tests.runs.stopping import StopError


class Following(RunCallback):
    def __init__(self, out: Path, stop: bool = False) -> None:
        self.out, self.stop = out, stop
        self.texts: list[str] = []
        self.scanned: list[tuple[int, int]] = []
        self.kept: set[str] = set()

    def on_message(self, text: str) -> None:
        self.texts.append(text)

    def on_scan(self, done: int, total: int) -> None:
        self.scanned.append((done, total))

    def on_trial(self, *_arguments: object, **_named: object) -> None:
        self.kept = {path.name for path in (self.out / ".decoded").glob("*")}
        if self.stop:
            raise StopError


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(source_folder, "AT_ONCE_BYTES", 0)
    random = np.random.default_rng(2)
    for index in range(120):
        path = tmp_path / "images" / f"kind{index % CLASSES}" / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 120, (14, 12, 3)) + 30 * (index % CLASSES)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    teacher = teacher_file(tmp_path / "teacher.onnx")
    return {
        "teacher": str(teacher), "data": str(tmp_path / "images"), "max_params": 3000.0, "effort": "quick",
        "candidates": 2, "epochs": 1, "train_device": "cpu", "train_precision": "fp32", "mean": (0.5,), "std": (0.5,),
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_shows_its_scan_and_its_cache_and_leaves_no_decoded_images(given, tmp_path, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns of each picture, and warnings are errors here
    follower = Following(out)
    run = n2n_edge.compress(out=out, callbacks=[follower], **given)
    assert run.met
    assert follower.scanned[-1] == (120, 120)
    (plan,) = [text for text in follower.texts if text.startswith("plan: ")]
    assert "images take 0.0 GB of memory, up to 0.0 GB of disk decoded" in plan
    assert len(follower.kept) == 1
    assert not (out / ".decoded").exists()
    without = n2n_edge.compress(out=tmp_path / "other", cache_gb=0.0, data_workers=0, **given)
    assert without.student.read_bytes() == run.student.read_bytes()


def test_a_run_that_ends_early_leaves_no_decoded_images_and_goes_on_with_other_workers(given, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(StopError):
        n2n_edge.compress(out=out, callbacks=[Following(out, stop=True)], **given)
    assert not (out / ".decoded").exists()
    (out / ".decoded").mkdir()
    stale = out / ".decoded" / "0123456789abcdef.pixels"
    stale.write_bytes(b"of a killed run")
    follower = Following(out)
    run = n2n_edge.compress(out=out, resume=True, callbacks=[follower], data_workers=1, cache_gb=0.0)
    assert run.settings.data_workers == 1
    assert follower.kept == set()
    assert not (out / ".decoded").exists()


def test_data_that_are_refused_leave_no_folder(given, tmp_path):
    for name in ("000.png", "004.png", "008.png"):
        (tmp_path / "images" / "kind0" / name).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"000\.png.*3 of 120 images"):
        n2n_edge.compress(out=tmp_path / "run", **given)
    for name in ("004.png", "008.png"):
        (tmp_path / "images" / "kind0" / name).unlink()
    with pytest.raises(InputError, match=r"000\.png"):
        n2n_edge.compress(out=tmp_path / "run", strict_data=True, **given)
    assert not (tmp_path / "run").exists()
