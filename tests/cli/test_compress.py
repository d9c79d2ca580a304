"""The compress command: what it refuses, and how."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from n2n_edge._example import teacher_path


@pytest.fixture
def run(call: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    return call


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def image_folder(path: Path, classes: int = 10, each: int = 6, mode: str = "L") -> Path:
    generator = np.random.default_rng(0)
    shape = (16, 16) if mode == "L" else (16, 16, 3)
    for kind in range(classes):
        folder = path / f"class{kind:02d}"
        folder.mkdir(parents=True)
        for index in range(each):
            Image.fromarray(generator.integers(0, 255, shape).astype(np.uint8)).save(folder / f"{index}.png")
    return path


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    line = last_line(err)
    assert line.startswith("n2n-edge: ")
    for word in words:
        assert word in line, line


def test_no_such_teacher(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    refused(run("compress", "nowhere.onnx", "--data", "x"), "nowhere.onnx", "no such file")
    assert not (tmp_path / "n2n-run").exists()


@pytest.mark.parametrize("size", [0, 100, 5_000, 400_000])
def test_a_truncated_teacher(run, tmp_path: Path, size: int) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "cut.onnx").write_bytes(teacher_path().read_bytes()[:size])
    refused(run("compress", "cut.onnx", "--data", "x"), "cut.onnx")


def test_a_corrupt_teacher(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bad.onnx").write_bytes(b"this is no model" * 100)
    refused(run("compress", "bad.onnx", "--data", "x"), "bad.onnx")


@pytest.mark.parametrize("location", ["missing.bin", "../outside.bin", "/etc/hostname"])
def test_external_data_missing_or_outside(run, tmp_path: Path, location: str) -> None:  # type: ignore[no-untyped-def]
    model = onnx.load(teacher_path())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    (tmp_path / "outside.bin").write_bytes(b"0" * 10_000)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "external.onnx").write_bytes(model.SerializeToString())
    refused(run("compress", "models/external.onnx", "--data", "x"), "external.onnx")


def test_a_teacher_without_data(run) -> None:  # type: ignore[no-untyped-def]
    refused(run("compress", teacher_path()), "--data")


def test_an_empty_folder(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    refused(run("compress", teacher_path(), "--data", "empty", "--out", "o"), "empty")


def test_one_class_only(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    image_folder(tmp_path / "one", classes=1)
    refused(run("compress", teacher_path(), "--data", "one", "--out", "o"), "class")


def test_another_number_of_classes(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    image_folder(tmp_path / "three", classes=3)
    refused(run("compress", teacher_path(), "--data", "three", "--out", "o"), "3 classes", "10 outputs")
    assert not (tmp_path / "o").exists()  # nothing stands in the way of trying again


def test_an_image_that_cannot_be_read(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = image_folder(tmp_path / "images")
    (folder / "class03" / "2.png").write_bytes(b"not a picture")
    refused(run("compress", teacher_path(), "--data", "images", "--out", "o"), "class03", "2.png")


def test_the_wrong_number_of_channels(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    images = np.zeros((60, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "colour.npz", x=images, y=np.arange(60) % 10)
    refused(run("compress", teacher_path(), "--data", "colour.npz", "--out", "o"), "channel")


def test_an_unknown_device_names_the_nearest(run) -> None:  # type: ignore[no-untyped-def]
    refused(run("compress", "--device", "rasberry-pi4"), "rasberry-pi4", "raspberry-pi-4")


def test_a_profile_with_an_unknown_key(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from n2n_edge.devices.registry import load_profile

    (tmp_path / "mine.toml").write_text('name = "mine"\nwheels = 4\n')
    refused(run("compress", "--device", "mine.toml"), "mine.toml", "wheels")
    assert load_profile("cpu").is_host


@pytest.mark.parametrize("option", ["--max-mb", "--max-latency-ms", "--max-memory-mb", "--max-params", "--max-macs"])
@pytest.mark.parametrize("limit", ["0", "-1", "nan"])
def test_a_budget_that_is_not_positive(run, option: str, limit: str) -> None:  # type: ignore[no-untyped-def]
    refused(run("compress", f"{option}={limit}"), option)


def test_a_folder_that_holds_another_run(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "run.toml").write_text("seed = 7\n")
    refused(run("compress", "--out", "o"), "another run", "--resume")
    assert (tmp_path / "o" / "run.toml").read_text() == "seed = 7\n"


def test_resuming_nothing(run) -> None:  # type: ignore[no-untyped-def]
    refused(run("compress", "--resume", "--out", "o"), "no run to resume")


def test_resuming_with_another_setting(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "run.toml").write_text("max_mb = 0.5\n")
    refused(run("compress", "--resume", "--out", "o", "--max-mb", "0.4"), "--max-mb", "0.5")


def test_a_model_in_which_nothing_can_be_touched(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    weight = numpy_helper.from_array(np.ones((10, 1, 16, 16), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10, 1, 1])],
        [weight],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "one.onnx"
    )
    refused(run("compress", "one.onnx", "--data", "builtin:digits", "--out", "o"), "nothing in this model")


def test_wrong_usage_is_exit_2(run) -> None:  # type: ignore[no-untyped-def]
    code, _, _ = run("compress", "--no-such-option")
    assert code == 2


def test_the_version(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("n2n-edge ")
