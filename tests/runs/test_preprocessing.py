"""Preprocessing of a run: recorded in what ships, which then gives on raw files what the run itself measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

import n2n_edge
from n2n_edge.data.preprocessing_options import options_of
from n2n_edge.errors import InputError
from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.runs.accuracy import TestData, file_accuracy
from n2n_edge.runs.preprocessing import preprocessing_for
from n2n_edge.runs.run import new_run
from n2n_edge.training.augmentation import normalise
from tests.graph.test_free_batch import Net

SIZE = 16


def teacher(path: Path, **metadata: str) -> Path:
    """Tells blue pictures from red ones: it takes BGR in -1..1, so its first channel is blue."""
    net = Net()
    y = net.op("Relu", net.conv("x", 3, 8))
    y = net.op("Relu", net.conv(y, 8, 8))
    weights = np.zeros((2, 3), np.float32)
    weights[0, 0] = weights[1, 2] = 4.0
    colour = net.op("Flatten", net.op("GlobalAveragePool", "x"))
    mixed = net.op("Flatten", net.op("GlobalAveragePool", y))
    sums = net.op("Gemm", colour, net.constant(weights, np.float32), transB=1)
    small = np.random.default_rng(1).normal(0, 0.01, (2, 8)).astype(np.float32)
    scores = net.op("Add", sums, net.op("Gemm", mixed, net.constant(small, np.float32), transB=1))
    model = net.model(scores, ["N", 3, SIZE, SIZE], ["N", 2])
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def photographs(folder: Path, count: int = 40) -> Path:
    """JPEGs of various sizes and proportions, the colour of the class at the border that a crop throws away."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, channel in (("blue", 2), ("red", 0)):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                height, width = int(random.integers(20, 32)), int(random.integers(60, 120))
                pixels = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
                pixels[:, : width // 3, channel] = random.integers(90, 255)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.jpg")
    return folder


def read_raw(path: Path, recorded: dict[str, Any]) -> np.ndarray:
    """Read a picture as a user's own program does that knows nothing but what the file's metadata record."""
    image = Image.open(path).convert("RGB")
    height, width = recorded["size"]
    scaling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[recorded["interpolation"]]
    if recorded["resize"] == "squash":
        image = image.resize((width, height), scaling)
    elif recorded["resize"] == "letterbox":
        scale = min(width / image.width, height / image.height)
        inner = image.resize((round(image.width * scale), round(image.height * scale)), scaling)
        image = Image.new("RGB", (width, height), tuple(recorded["pad_color"]))
        image.paste(inner, (round((width - inner.width) / 2 - 0.1), round((height - inner.height) / 2 - 0.1)))
    else:
        scale = int(min(height, width) / recorded["crop_ratio"]) / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), scaling)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    values = np.asarray(image).astype(np.float64)
    if recorded["channel_order"] == "bgr":
        values = values[..., ::-1]
    values = {"0..255": values, "0..1": values / 255, "-1..1": values / 127.5 - 1}[recorded["pixels"]]
    values = ((values - recorded["mean"]) / recorded["std"]).astype(np.float32)
    return values[None] if recorded["layout"] == "nhwc" else values.transpose(2, 0, 1)[None]


def test_the_student_gives_on_raw_files_what_the_run_measured(tmp_path: Path) -> None:
    pictures = photographs(tmp_path / "pictures")
    said: list[str] = []

    class Listening(n2n_edge.RunCallback):
        def on_message(self, text: str) -> None:
            said.append(text)

    run = n2n_edge.compress(
        teacher(tmp_path / "t.onnx"), data=pictures, resize="letterbox", channels="bgr", pixels="-1..1",
        pad_color=(10, 20, 30), device="raspberry-pi-4", effort="quick", candidates=2, epochs=1, out=tmp_path / "run",
        callbacks=[Listening()],
    )  # fmt: skip

    recorded = n2n_edge.Preprocessing.of(run.student)
    metadata = json.loads(load_model(run.student).metadata_props["n2n_edge.preprocessing"])
    session = onnxruntime.InferenceSession(str(run.student), providers=["CPUExecutionProvider"])
    trained = n2n_edge.load_student(run.student).eval()
    right = seen = 0
    for label, name in enumerate(("blue", "red")):
        for path in sorted((pictures / "test" / name).iterdir()):
            scores = session.run(None, {"x": read_raw(path, metadata)})[0]
            bytes_seen = torch.from_numpy(recorded.resized(path))[None]
            np.testing.assert_allclose(trained(normalise(bytes_seen, recorded)).detach(), scores, atol=1e-4)
            right += int(scores.argmax() == label)
            seen += 1
    own = run.report["student"]["accuracy"]
    assert (own["value"], own["n"]) == (right / seen, seen)
    _, gated, of_teacher, notes, _ = file_accuracy(run.student, TestData(str(pictures)), baseline=tmp_path / "t.onnx")
    assert of_teacher is not None
    assert (gated.value, of_teacher.value) == (right / seen, run.report["teacher"]["accuracy"]["value"])
    assert [note.code for note in notes] == ["preprocessing-assumed", "paired-difference"]
    assert run.report["data"]["preprocessing"] == recorded.to_json()
    assert any(text.startswith(f"preprocessing: {recorded.words()} (resize, pad_color, channels") for text in said)
    assert 'Preprocessing.of("student.onnx")' in (tmp_path / "run" / "model-card.md").read_text(encoding="utf-8")
    assert Teacher.load(run.student).layers


@pytest.mark.parametrize(
    "options",
    [
        {"resize": "squash", "layout": "nhwc"},
        {"crop_ratio": 0.875, "interpolation": "bicubic", "mean": (0.485, 0.456, 0.406), "std": (0.2, 0.3, 0.4)},
        {"resize": "letterbox", "pixels": "0..255", "channel_order": "bgr", "mean": (104.0, 117.0, 123.0)},
    ],
)
def test_pictures_are_read_as_their_metadata_say(options: dict[str, Any], tmp_path: Path) -> None:
    preprocessing = n2n_edge.Preprocessing((SIZE, SIZE), **options)
    for path in sorted((photographs(tmp_path / "pictures", 5) / "test" / "blue").iterdir()):
        np.testing.assert_allclose(preprocessing.apply(path), read_raw(path, preprocessing.to_json()), atol=1e-4)


def test_images_of_a_dataset_are_brought_to_size_as_the_options_say(tmp_path: Path) -> None:
    picture = np.full((20, 40, 3), 200, np.uint8)
    settings = {"weights": None, "input_shape": None, "device": "cpu", "resize": "letterbox", "pad_color": (7,)}
    run = new_run(tmp_path / "run", {**settings, "teacher": teacher(tmp_path / "t.onnx"), "data": [(picture, 0)] * 3})
    kept = np.load(run.settings.data)["x_train"]
    assert (kept[0, 0, 0, 0], kept[0, SIZE // 2, 0, 0]) == (7, 200)


def test_a_crop_of_the_centre_is_torchvisions(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (75, 100, 3), dtype=np.uint8))
    image.save(tmp_path / "p.png")
    pixels = n2n_edge.Preprocessing((28, 28), crop_ratio=0.875).apply(tmp_path / "p.png")
    scaled = image.resize((int(32 * 100 / 75), 32), Image.Resampling.BILINEAR)
    left = round((scaled.width - 28) / 2)
    expected = np.asarray(scaled.crop((left, 2, left + 28, 30)), np.float32).transpose(2, 0, 1) / 255
    assert np.allclose(pixels[0], expected, atol=1e-6)


@pytest.mark.parametrize(("task", "resize"), [("detect", "letterbox"), ("classify", "center-crop")])
def test_metadata_of_ultralytics_tell_how_pictures_come_in(tmp_path: Path, task: str, resize: str) -> None:
    metadata = {"imgsz": "[16, 16]", "stride": "32", "names": "{0: 'a'}", "task": task}
    model = load_model(teacher(tmp_path / "t.onnx", **metadata))
    chosen = preprocessing_for(model, model.metadata_props, {})
    found = chosen.preprocessing
    assert (found.resize, found.pad_color, found.mean, found.std) == (resize, (114,) * 3, (0.0,) * 3, (1.0,) * 3)
    assert chosen.normalisation is not None
    assert chosen.origin == "from Ultralytics' metadata"
    given = options_of(n2n_edge.CompressSettings(resize="squash", mean=(0.5,), std=(0.25,)))
    chosen = preprocessing_for(model, model.metadata_props, given)
    found = chosen.preprocessing
    assert chosen.origin == "resize, mean, std given; the rest from Ultralytics' metadata"
    assert (found.resize, found.crop_ratio, found.mean, found.std) == ("squash", None, (0.5,) * 3, (0.25,) * 3)


def test_mean_and_std_in_bytes_do_the_same_as_in_fractions() -> None:
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    one = n2n_edge.Preprocessing((8, 8), pixels="0..255", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    other = n2n_edge.Preprocessing((8, 8), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert np.allclose(one.inputs(images), other.inputs(images), atol=1e-5)
    assert np.allclose(one.unit_mean_and_std, (other.mean, other.std))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resize": "stretch"}, "center-crop, squash, letterbox"),
        ({"channels": "gbr"}, "‹channels› gbr: give one of rgb, bgr"),
        ({"pixels": "0..2"}, "0..1, 0..255, -1..1"),
        ({"crop_ratio": 0.9, "resize": "squash"}, "‹crop_ratio› belongs to center-crop"),
        ({"crop_ratio": 1.5}, "‹crop_ratio› 1.5"),
        ({"pad_color": (3,), "resize": "squash"}, "‹pad_color› belongs to letterbox, and ‹resize› is squash"),
        ({"augment": "none", "flip": True}, "‹flip› belongs to light and standard"),
        ({"augment": "heavy"}, "‹augment› heavy: give auto, none, light, standard"),
        ({"pad_color": (300,)}, "‹pad_color› 300"),
        ({"mean": (123.0,), "std": (58.0,)}, "give ‹pixels› 0..255"),
    ],
)
def test_options_that_cant_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as raised:
        n2n_edge.CompressSettings(**options)  # type: ignore[arg-type]
    assert words in raised.value.text


def test_a_network_that_takes_bytes_is_trained_and_ships_so(tmp_path: Path) -> None:
    net = Net()
    y = net.op("Mul", net.op("Cast", "x", to=TensorProto.FLOAT), net.constant(np.float32(1 / 255), np.float32))
    y = net.op("Relu", net.conv(net.op("Relu", net.conv(y, 3, 8)), 8, 8))
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    y = net.op("Gemm", y, net.constant(np.random.default_rng(0).normal(0, 1, (2, 8)), np.float32), transB=1)
    onnx.save(net.model(y, ["N", 3, SIZE, SIZE], ["N", 2], kind=TensorProto.UINT8), tmp_path / "t.onnx")
    pictures = photographs(tmp_path / "pictures", count=12)
    run = n2n_edge.compress(
        tmp_path / "t.onnx", data=pictures, task="classification", device="raspberry-pi-4", effort="quick",
        candidates=2, epochs=1, out=tmp_path / "run",
    )  # fmt: skip
    recorded = n2n_edge.Preprocessing.of(run.student)
    image = recorded.apply(pictures / "test" / "red" / "0.jpg")
    assert (recorded.dtype, image.dtype) == ("uint8", np.uint8)
    session = onnxruntime.InferenceSession(str(run.student), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": image})[0].shape == (1, 2)
    own = run.report["student"]["accuracy"]
    assert file_accuracy(run.student, TestData(str(pictures)))[1].value == own["value"]
    model = load_model(tmp_path / "t.onnx")
    with pytest.raises(InputError, match="the network takes bytes"):
        preprocessing_for(model, {}, {"mean": (0.5,), "std": (0.2,)})
