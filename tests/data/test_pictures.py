"""Pictures of every kind: what bytes are made of them, and what is said of those that had to be converted."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from n2n_edge.data.dataset import load_data
from n2n_edge.data.pictures import read_picture, upright_size
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.source_folder import read
from n2n_edge.errors import InputError
from tests.data.datasets import items_of

RAMP = np.linspace(0, 255, 32).astype(np.uint8)[None].repeat(32, 0)  # dark on the left, bright on the right
COLOUR = np.stack([RAMP, RAMP.T, 255 - RAMP], -1)
WIDE = RAMP.astype(np.uint16) * 257


def exact(path: Path) -> np.ndarray:
    return read(path.parent, Preprocessing((32, 32), channels=1)).train.images[0, ..., 0].astype(int)


def write_pgm(path: Path, values: np.ndarray, highest: int) -> None:
    path.write_bytes(f"P5 32 32 {highest}\n".encode() + values.astype(">u2").tobytes())


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("wide.png", lambda path: Image.fromarray(WIDE).save(path)),
        ("wide.tiff", lambda path: Image.fromarray(WIDE).save(path)),
        ("bigendian.tif", lambda path: Image.fromarray(WIDE.astype(">u2")).save(path)),
        ("wide.pgm", lambda path: write_pgm(path, WIDE, 65535)),
        ("twelve.pgm", lambda path: write_pgm(path, np.rint(RAMP * (4095 / 255)), 4095)),
        ("floats.tiff", lambda path: Image.fromarray(RAMP.astype(np.float32) / 255).save(path)),
        ("shifted.png", lambda path: Image.fromarray(RAMP.astype(np.uint16) << 8).save(path)),
    ],
)
def test_more_than_8_bits_are_scaled(tmp_path, name, write):
    write(tmp_path / name)
    assert np.abs(exact(tmp_path / name) - RAMP).max() <= 1


def test_dark_pictures_widened_from_8_bits_are_scaled(tmp_path):
    Image.fromarray(WIDE // 16 // 257 * 257).save(tmp_path / "dark.png")
    assert exact(tmp_path / "dark.png").max() == 15


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("twelve.png", RAMP.astype(np.uint16) * 16 + 3),
        ("fourteen.png", RAMP.astype(np.uint16) * 64 + 3),
        ("integers.tiff", RAMP.astype(np.int32) * 257),
        ("negative.tiff", RAMP.astype(np.int32) - 300),
        ("small.tiff", RAMP.astype(np.int32)),
        ("bytes.tiff", RAMP.astype(np.float32)),
        ("nan.tiff", np.full((32, 32), np.nan, np.float32)),
        ("around.tiff", RAMP.astype(np.float32) / 127.5 - 1),
    ],
)
def test_pictures_of_an_unknown_range_are_refused_by_name(tmp_path, name, image):
    Image.fromarray(image).save(tmp_path / name)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        exact(tmp_path / name)


@pytest.mark.parametrize("mode", ["wide", "floats"])
def test_items_of_a_dataset_are_scaled_like_pictures(monkeypatch, mode):
    image = Image.fromarray(WIDE if mode == "wide" else RAMP.astype(np.float32) / 255)
    data = load_data(items_of(monkeypatch, [image] * 20), input_shape=(1, 32, 32), classes=None)
    assert np.abs(data.train.images[0, ..., 0].astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize(
    "array",
    [
        WIDE,
        RAMP.astype(np.float32) / 255,
        RAMP.astype(np.float64) / 255,
        RAMP.astype(np.int64),
        WIDE.astype(">u2"),
        RAMP,
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("source", ["npz", "function"])
def test_arrays_of_every_range_that_can_be_told(tmp_path, monkeypatch, source, array):
    images = np.repeat(array[None], 20, 0)
    np.savez(tmp_path / "x.npz", x=images)
    spec = str(tmp_path / "x.npz") if source == "npz" else items_of(monkeypatch, list(images))
    data = load_data(spec, input_shape=(1, 32, 32), classes=None)
    assert np.abs(data.train.images[0, ..., 0].astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (RAMP.astype(np.float32), "divide by 255"),
        (RAMP.astype(np.float32) / 127.5 - 1, "add 1 and divide by 2"),
        (WIDE.astype(np.int32), "int32 values from 0 to 65535"),
        (RAMP.astype(np.uint16) * 16 + 3, "12 of 16 bits"),
        (RAMP - 300.0, "give bytes"),
        (RAMP.astype(np.complex64), "complex"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("source", ["npz", "function"])
def test_arrays_of_an_unknown_range_are_refused(tmp_path, monkeypatch, source, array, words):
    images = np.repeat(array[None], 20, 0)
    np.savez(tmp_path / "x.npz", x=images)
    spec = str(tmp_path / "x.npz") if source == "npz" else items_of(monkeypatch, list(images))
    with pytest.raises(InputError, match=words):
        load_data(spec, input_shape=(1, 32, 32), classes=None)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_pictures_are_turned_upright_and_counted(tmp_path, suffix, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(COLOUR, turns)).save(tmp_path / f"x{suffix}", exif=exif, quality=95)
    source = read(tmp_path, Preprocessing((32, 32)))
    assert np.abs(source.train.images[0].astype(int) - COLOUR).mean() < 4
    told = orientation != 1 and suffix != ".tiff"  # Pillow itself turns these for every reader
    assert ("1 turned upright" in source.conversions.words()) == told


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", ["center-crop", "squash"])
def test_large_photographs_are_decoded_small_and_lie_where_they_did(tmp_path, monkeypatch, orientation, resize):
    rows, columns = np.mgrid[0:301, 0:269]
    blobs = [127 + 127 * np.sin(rows / a) * np.cos(columns / b) for a, b in ((21, 17), (13, 29), (33, 11))]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack(blobs, -1).astype(np.uint8)).save(tmp_path / "x.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "x.jpg") as image:
        ImageOps.exif_transpose(image).save(tmp_path / "x.png")
    decoded = []
    load = JpegImageFile.load
    monkeypatch.setattr(JpegImageFile, "load", lambda image: decoded.append(image.size) or load(image))
    small, all_pixels = (read_picture(tmp_path / f"x.{kind}", Preprocessing((16, 16), resize=resize)) for kind in
                         ("jpg", "png"))  # fmt: skip
    assert decoded[-1] == (68, 76)  # of 67.25 and 75.25
    shift = np.abs(small.astype(int) - all_pixels)
    assert shift.max() < 10
    assert shift.mean() < 1  # 6 and more where what lies beyond the edge, or its side, is taken for the picture


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
def test_sizes_are_told_undecoded_as_pictures_are_turned(tmp_path, suffix):
    for orientation in (*range(1, 9), 77):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (6, 4)).save(tmp_path / f"x{suffix}", exif=exif)
        with Image.open(tmp_path / f"x{suffix}") as image:
            size = upright_size(image)
        with Image.open(tmp_path / f"x{suffix}") as image:
            assert size == ImageOps.exif_transpose(image).size[::-1]


def test_a_damaged_orientation_says_nothing(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\0" * 200, quality=95)
    assert np.abs(read(tmp_path, Preprocessing((32, 32))).train.images[0].astype(int) - COLOUR).mean() < 4


def test_one_line_counts_what_was_converted_and_passed_over(tmp_path):
    opaque = np.dstack([COLOUR, np.full((32, 32), 255, np.uint8)])
    Image.fromarray(COLOUR).save(tmp_path / "a.jfif", format="JPEG")
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    opaque[:4, :4, 3] = 0
    Image.fromarray(opaque).save(tmp_path / "transparent.png")
    Image.fromarray(RAMP).save(tmp_path / "grey.jpe", format="JPEG")
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "more.txt").write_text("x")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nothing.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    data = load_data(str(tmp_path), input_shape=(3, 32, 32), classes=None)
    text = data.counts
    assert text.startswith("3 training, 1 validation, 1 test images, without labels; ")
    for words in (
        "1 with transparent parts", "1 converted to colour", "1 of several frames", "passed over: ", "2 .txt files",
        "3 links to nothing, pipes or devices",
    ):  # fmt: skip
        assert words in text
    assert "\n" not in text


def test_large_and_odd_pictures_warn_of_nothing(tmp_path):
    Image.new("L", (13000, 8000)).save(tmp_path / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(tmp_path, Preprocessing((8, 8), channels=1)).train.images) == 1


def test_avif_is_read_where_pillow_can(tmp_path):
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    Image.fromarray(COLOUR).save(tmp_path / "x.avif")
    assert len(read(tmp_path, Preprocessing((32, 32))).train.images) == 1
