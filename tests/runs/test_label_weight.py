"""Labels join the loss of a run as `label_weight` says, and the run says so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import n2n_edge
from n2n_edge.errors import InputError
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.search.driver import Progress
from tests.runs.small import teacher_file

SIZE, IMAGES = 12, 40
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter, images with masks, and images without."""
    out = tmp_path_factory.mktemp("labels")
    teacher_file(out / "teacher.onnx", head="map")
    random = np.random.default_rng(0)
    for name in ("data/images", "data/masks", "more"):
        (out / name).mkdir(parents=True)
    for place in range(IMAGES):
        pixels = random.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(out / "data" / "images" / f"{place}.png")
        Image.fromarray((pixels[..., 0] > 128).astype(np.uint8)).save(out / "data" / "masks" / f"{place}.png")
        Image.fromarray(255 - pixels).save(out / "more" / f"{place}.png")
    return out


class StopError(Exception):
    """Stands for a kill."""


class Messages(RunCallback):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_message(self, text: str) -> None:
        self.said.append(text)


class Listening(Messages):
    """Ends a run with its first candidate's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.loss: float | None = None

    def on_trial(self, progress: Progress) -> None:
        self.loss = progress.trial.loss
        raise StopError


def begun(folder: Path, out: Path, **given: Any) -> tuple[str, float]:
    """Begin a run; return what it said of labels, and its first candidate's loss."""
    listening = Listening()
    with pytest.raises(StopError):
        n2n_edge.compress(
            folder / "teacher.onnx", folder / "data", device="raspberry-pi-4", max_params=4000, effort="quick",
            candidates=1, task="segmentation", out=out, callbacks=[listening], **PLAIN, **given,
        )  # fmt: skip
    assert listening.loss is not None
    (text,) = [text for text in listening.said if text.startswith("labels:")]
    return text, listening.loss


def test_a_candidate_learns_from_masks_as_much_as_was_asked(folder: Path, tmp_path: Path) -> None:
    said, losses = zip(
        *(begun(folder, tmp_path / str(weight), label_weight=weight) for weight in (0.0, 1.0)), strict=True
    )
    assert said == (
        "labels: for scores alone, as asked",
        "labels: 100% of the loss of an image that has one, the teacher the rest",
    )
    assert losses[0] != losses[1]


def test_images_without_masks_join_them(folder: Path, tmp_path: Path) -> None:
    text, loss = begun(folder, tmp_path / "mixed", unlabelled=[folder / "more"])
    assert text == "labels: 10% of the loss of an image that has one, the teacher the rest"
    assert np.isfinite(loss)


def test_more_than_all_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label_weight 1\.5: give a number from 0 to 1"):
        n2n_edge.compress(folder / "teacher.onnx", folder / "data", label_weight=1.5, out=tmp_path / "never")


def test_numbers_join_where_an_image_stays_as_it_is_and_the_run_says_so(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        images=random.integers(0, 255, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8),
        labels=random.random((IMAGES, 4), dtype=np.float32),
    )
    listening = Messages()
    run = n2n_edge.compress(
        teacher_file(tmp_path / "teacher.onnx"), tmp_path / "data.npz", device="raspberry-pi-4", max_params=4000,
        effort="quick", candidates=1, epochs=3, task="regression", out=tmp_path / "run", callbacks=[listening], **PLAIN,
    )  # fmt: skip
    assert run.student.exists()
    (text,) = [text for text in listening.said if text.startswith("labels:")]
    assert "they don't follow augmentation and teach in the first epoch alone" in text
