"""Images of large folders: decoded when they are needed, the same as those that are read at once."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from n2n_edge.data import source_folder
from n2n_edge.data.dataset import Data, Split, load_data
from n2n_edge.data.loading import Loading
from n2n_edge.data.pixels import Conversions
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.streaming import Pictures, Store, batches_of
from n2n_edge.errors import InputError
from n2n_edge.training.batches import training_batches
from n2n_edge.training.settings import DistillSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.RandomState(0)
    for index in range(240):
        path = tmp_path / "images" / str(index % 2) / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (20, 24, 3)).astype(np.uint8)).save(path)
    return tmp_path / "images"


def load(images: Path, /, **loading: object) -> Data:
    return load_data(str(images), input_shape=(3, 16, 16), classes=2, loading=Loading(**loading))  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_gb", [0.0, 50_000 / 1e9, 1.0])
def test_what_streams_is_what_is_read_at_once(folder, monkeypatch, workers, cache_gb):
    whole = load(folder)
    monkeypatch.setattr(source_folder, "AT_ONCE_BYTES", 0)
    streamed = load(folder, workers=workers, cache_gb=cache_gb)
    assert isinstance(streamed.train.images, Pictures)
    order = [np.array([5, 3, 7]), np.array([100]), np.array([3, 5]), np.array([0, 1]), np.array([2])]
    for _ in range(2):
        np.testing.assert_array_equal(np.asarray(streamed.test.images[1:]), whole.test.images[1:])
        for chosen, images in zip(order, batches_of(streamed.train.images, order), strict=True):
            np.testing.assert_array_equal(images, whole.train.images[chosen])
    np.testing.assert_array_equal(streamed.train.labels, whole.train.labels)
    copy = pickle.loads(pickle.dumps(streamed))
    np.testing.assert_array_equal(copy.train.images[order[0]], whole.train.images[order[0]])


def test_a_kept_image_is_not_decoded_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(source_folder, "AT_ONCE_BYTES", 0)
    data = load(folder, cache_gb=1.0, folder=tmp_path / "cache")
    first = np.asarray(data.train.images)
    again = load(folder, cache_gb=1.0, folder=tmp_path / "cache")
    monkeypatch.setattr(source_folder, "read_picture", None)
    np.testing.assert_array_equal(np.asarray(again.train.images), first)


@pytest.mark.parametrize("at_once", [0, 10**9])
def test_one_unreadable_image_of_many_is_named_and_passed_over(folder, monkeypatch, at_once):
    monkeypatch.setattr(source_folder, "AT_ONCE_BYTES", at_once)
    (folder / "1" / "001.png").write_bytes(b"nothing")
    data = load(folder)
    assert "passed over: 1 unreadable images" in data.counts
    assert "001.png" in data.counts
    assert len(data.train) + len(data.validation) + len(data.test) == 239
    with pytest.raises(InputError, match=r"001\.png"):
        load(folder, strict=True)
    for name in ("003", "005"):
        (folder / "1" / f"{name}.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"001\.png.*003\.png.*3 of 240 images"):
        load(folder)


def test_an_image_that_breaks_off_is_replaced_by_another_of_its_class(folder, monkeypatch):
    monkeypatch.setattr(source_folder, "AT_ONCE_BYTES", 0)
    broken = folder / "1" / "001.png"
    broken.write_bytes(broken.read_bytes()[:400])
    data = load(folder)
    for split in (data.train, data.validation, data.test):
        np.asarray(split.images)
    (notice,) = data.unreadable()
    assert notice.code == "unreadable-images"
    assert "001.png" in notice.text


def test_a_digest_notices_changed_bytes(folder, monkeypatch):
    monkeypatch.setattr(source_folder, "AT_ONCE_BYTES", 0)
    first = load(folder).digest()
    assert load(folder).digest() == first
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(folder / "1" / "001.png")
    assert load(folder).digest() != first


def test_what_a_process_takes_of_its_batches_is_all_that_it_reads():
    read: list[str] = []

    def decode(path: str, _noted: Conversions) -> NDArray[np.uint8]:
        read.append(path)
        return np.random.RandomState(int(path)).randint(0, 256, (16, 16, 3)).astype(np.uint8)

    names, kinds = [str(index) for index in range(200)], np.arange(200) % 2
    store = Store(names, kinds, np.zeros((200, 16), np.uint8), (3, 16, 16), decode, Loading(cache_gb=0.0), "it")
    split = Split(Pictures(store), kinds)
    data = Data(split, split, split, ("0", "1"), Preprocessing((16, 16)))
    settings = DistillSettings(batch_size=50)
    for epoch in (1, 2):  # the second is augmented
        whole = list(training_batches(data, settings, epoch))
        parts = []
        for rank in range(2):
            read.clear()
            parts.append(list(training_batches(data, settings, epoch, (rank, 2))))
            assert len(set(read)) == len(read) == 100
        for batch, first, second in zip(whole, *parts, strict=True):
            assert torch.equal(batch.inputs, torch.cat([first.inputs, second.inputs]))
            assert batch.labels is not None
            assert first.labels is not None
            assert torch.equal(batch.labels[:25], first.labels)


def test_scanning_is_told_of_to_the_end(folder, monkeypatch):
    for at_once in (0, 10**9):
        monkeypatch.setattr(source_folder, "AT_ONCE_BYTES", at_once)
        told: list[tuple[int, int]] = []
        load(folder, on_scan=lambda done, total, told=told: told.append((done, total)))
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"workers": -1}, "data_workers -1"),
        ({"cache_gb": -0.5}, "cache_gb -0.5"),
        ({"cache_gb": float("nan")}, "cache_gb nan"),
    ],
)
def test_settings_that_there_cannot_be_are_refused(given, text):
    with pytest.raises(InputError, match=text):
        Loading(**given)
