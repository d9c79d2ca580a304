"""A distiller and a candidate that are sent to another process give there what they give here, without any file."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from n2n_edge.data import source_folder
from n2n_edge.data.dataset import Data, load_data
from n2n_edge.errors import InputError
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.search.evaluations import Candidate
from n2n_edge.search.precision import CandidatePrecision
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.settings import DistillSettings
from tests.training.small import small_cnn

SETTINGS = DistillSettings(batch_size=16, calibration_images=24, device="cpu", precision="fp32", threads=1)


@pytest.fixture
def streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """Images of a folder that are decoded when they are needed."""
    monkeypatch.setattr(source_folder, "AT_ONCE_BYTES", 0)
    random = np.random.default_rng(2)
    for index in range(90):
        path = tmp_path / "images" / f"kind{index % 3}" / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((random.integers(0, 120, (16, 16)) + 40 * (index % 3)).astype(np.uint8)).save(path)
    return load_data(str(tmp_path / "images"), input_shape=(1, 16, 16), classes=3)


@pytest.mark.parametrize("streams", [False, True])
def test_what_is_sent_evaluates_the_same(streamed: Data, striped_data: Data, tmp_path: Path, streams: bool) -> None:
    teacher = Teacher(small_cnn(width=8, classes=3))
    group = next(group for group in teacher.groups if group.shrinkable)
    narrow = teacher.full.resize(group.name, 5)
    precision = CandidatePrecision(teacher, "int8")
    model, kept = build(teacher, narrow), surviving(teacher, narrow)
    candidate = Candidate(model, kept, 3, precision.always, precision)
    data = streamed if streams else striped_data
    assert data.streams is streams
    short = ShortDistiller(teacher.model, data, 48, SETTINGS, passes=2, validation_images=20, feature_images=16)
    here = replace(candidate.evaluated(short), seconds=0.0, training_seconds=0.0)
    sent = pickle.dumps((short, candidate))
    shutil.rmtree(tmp_path / "images")
    distiller, arrived = pickle.loads(sent)
    assert replace(arrived.evaluated(distiller), seconds=0.0, training_seconds=0.0) == here
    assert 0 < here.accuracy <= 1
    assert here.loss != Candidate(model, kept, 3).evaluated(short).loss  # which ships as floats
    if streams:
        assert str(tmp_path).encode() not in sent  # no file is named
        drawn = set(distiller._data.train.images.store._rows.tolist())
        other = next(row for row in distiller._data.train.images.rows.tolist() if row not in drawn)
        with pytest.raises(InputError, match="wasn't drawn"):
            distiller._data.train.images.store.image(other)
