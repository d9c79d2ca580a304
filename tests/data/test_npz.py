"""Hostile and odd .npz files: one line each, and nothing unpacked that can't be images."""

import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from n2n_edge.data.dataset import load_data
from n2n_edge.errors import InputError

X, Y = np.zeros((50, 8, 8), np.uint8), np.arange(50) % 10


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


def declared(shape: str, kind: str = "|u1") -> bytes:
    return header(f"{{'descr':'{kind}','fortran_order':False,'shape':{shape}}}")


def write(path: Path, member: bytes, name: str = "x_train.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, member)
    return path


def load(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data(str(path), input_shape=(1, 8, 8), classes=10)


MEMBERS = {
    "rows without end": declared("(99999999999,28,28)"),
    "more than memory": declared(f"({10**30},1,1)"),
    "header is code": header("__import__('os').system('id')"),
    "header does not end": header("("),
    "header nested deeply": header("(" * 9000),
    "negative": declared("(-5,8,8)"),
    "no shape": declared("8"),
    "truth values": declared("(True,8,8)") + b"\0" * 100,
    "fractions": declared("(2.5,8,8)"),
    "unknown type": declared("(5,8,8)", "|q7"),
    "objects": declared("(5,8,8)", "|O"),
    "no array": b"hello",
    "empty": b"",
    "cut off": declared("(50,8,8)") + b"\0" * 100,
    "unknown version": b"\x93NUMPY\x09\0" + b"\0" * 100,
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_are_no_images(tmp_path, name):
    path = write(tmp_path / "x.npz", MEMBERS[name])
    with pytest.raises(InputError, match=r"x\.npz") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", ["(2500000000,)", "(1562500,8,8)"], ids=["flat", "images"])
def test_an_archive_that_unpacks_to_far_more_than_it_holds(tmp_path, shape):
    path = write(tmp_path / "x.npz", declared(shape) + b"\0" * 100_000_000)
    with pytest.raises(InputError, match=r"no images|must be \(N, H, W\)"):
        load(path)


def test_more_than_the_memory_that_is_free(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", x_train=X, y_train=Y)
    monkeypatch.setattr("n2n_edge.data.npz.psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    with pytest.raises(InputError, match="of memory are free"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize("place", [6, 8, 10])
def test_an_unknown_version_or_method_of_the_archive(tmp_path, place):
    np.savez_compressed(tmp_path / "x.npz", x_train=X, y_train=Y)
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    central = raw.rfind(b"PK\1\2")
    for start in (0, central, raw.find(b"PK\1\2")):
        raw[start + place : start + place + 2] = b"\xff\x7f"
    (tmp_path / "x.npz").write_bytes(raw)
    with pytest.raises(InputError, match=r"x\.npz"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": np.array(3), "y_train": np.array(3)},
        {"x_train": np.zeros(5), "y_train": np.zeros(5)},
        {"x_train": np.zeros((5, 1, 8, 8, 1)), "y_train": Y[:5]},
        {"x_train": np.zeros((50, 0, 0), np.uint8), "y_train": Y},
        {"x_train": np.full((50, 8, 8), "a"), "y_train": Y},
        {"x_train": np.zeros((50, 8, 8), [("a", "u1")]), "y_train": Y},
        {"x_train": np.zeros((50, 8, 8), "M8[s]"), "y_train": Y},
        {"x_train": X + 1j, "y_train": Y},
        {"x_train": np.full((50, 8, 8), np.inf), "y_train": Y},
        {"x_train": np.full((50, 8, 8), 2**60), "y_train": Y},
        {"x_train": X, "y_train": np.zeros((50, 0))},
        {"x_train": X, "y_train": np.full(50, np.nan)},
        {"x_train": X, "y_train": np.full(50, np.inf)},
        {"x_train": X, "y_train": np.full(50, 2**63 - 1)},
        {"x_train": X, "y_train": np.full(50, 2**64 - 1, np.uint64)},
        {"x_train": X, "y_train": Y + 1j},
        {"x_train": X, "y_train": np.array(7)},
        {"x_train": X, "y_train": Y[:49]},
        {"x_train": X, "y_train": Y, "x_test": X[:0], "y_test": Y[:0]},
    ],
    ids=lambda arrays: ", ".join(f"{name} {array.dtype}{array.shape}" for name, array in arrays.items()),
)
def test_arrays_that_are_no_images_or_labels(tmp_path, arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError) as caught:
        load(tmp_path / "x.npz")
    assert "\n" not in str(caught.value)


def test_arrays_that_are_not_asked_for_are_not_read(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=X, y_train=Y, extra=np.array([{}], dtype=object))
    data = load_data(str(tmp_path / "x.npz"), input_shape=(1, 8, 8), classes=10)
    assert "passed over: 1 other arrays" in data.counts


def test_arrays_in_fortran_order_and_bools(tmp_path):
    images = np.asfortranarray(np.random.RandomState(0).rand(50, 8, 8) > 0.5)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=Y, x_test=images[:9], y_test=Y[:9])
    data = load_data(str(tmp_path / "x.npz"), input_shape=(1, 8, 8), classes=10)
    np.testing.assert_array_equal(data.test.images[..., 0], images[:9] * 255)


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ((50, 3, 8, 3), None),
        ((50, 3, 8, 8), (8, 8)),
        ((50, 8, 8, 3), (8, 8)),
        ((50, 3, 16, 3), None),
        ((50, 5, 5, 3), (5, 5)),
    ],
    ids=str,
)
def test_which_axis_holds_the_channels_is_told_or_asked(tmp_path, shape, taken):
    np.savez(tmp_path / "x.npz", x_train=np.zeros(shape, np.uint8), y_train=Y)
    if taken is None:
        with pytest.raises(InputError, match="second or the last axis"):
            load_data(str(tmp_path / "x.npz"), input_shape=(3, 8, 8), classes=10)
    else:
        data = load_data(str(tmp_path / "x.npz"), input_shape=(3, *taken), classes=10)
        assert data.input_shape == (3, *taken)
