"""Preprocessing of a run: recorded in what ships, which then gives on raw files what the run itself measured."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

import n2n_edge
from n2n_edge.errors import InputError
from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.runs.accuracy import TestData, file_accuracy
from n2n_edge.runs.preprocessing import options_of, preprocessing_for
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
    graph = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["N", 2])],
        net.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
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
                height, width = int(random.integers(20, 60)), int(random.integers(60, 120))
                pixels = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
                pixels[:, : width // 3, channel] = random.integers(90, 255)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.jpg")
    return folder


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
    session = onnxruntime.InferenceSession(str(run.student), providers=["CPUExecutionProvider"])
    right = seen = 0
    for label, name in enumerate(("blue", "red")):
        for path in sorted((pictures / "test" / name).iterdir()):
            right += int(session.run(None, {"x": recorded.apply(path)})[0].argmax() == label)
            seen += 1
    own = run.report["student"]["accuracy"]
    assert (own["value"], own["n"]) == (right / seen, seen)
    assert recorded.apply(path).min() >= -1
    assert recorded.apply(path).min() < -0.5
    assert file_accuracy(run.student, TestData(str(pictures)))[1].value == right / seen
    assert run.report["data"]["preprocessing"] == recorded.to_json()
    assert f"preprocessing: {recorded.words()}" in said
    assert 'Preprocessing.of("student.onnx")' in (tmp_path / "run" / "model-card.md").read_text(encoding="utf-8")
    assert Teacher.load(run.student).layers


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
    found, normalisation = preprocessing_for(model, model.metadata_props, {})
    assert (found.resize, found.pad_color, found.mean, found.std) == (resize, (114,) * 3, (0.0,) * 3, (1.0,) * 3)
    assert normalisation is not None
    given = options_of(n2n_edge.CompressSettings(resize="squash", mean=(0.5,), std=(0.25,)))
    found, _ = preprocessing_for(model, model.metadata_props, given)
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
    graph = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", 2])],
        net.constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "t.onnx")
    pictures = photographs(tmp_path / "pictures", count=12)
    run = n2n_edge.compress(
        tmp_path / "t.onnx", data=pictures, outputs="classes", device="raspberry-pi-4", effort="quick", candidates=2,
        epochs=1, out=tmp_path / "run",
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
