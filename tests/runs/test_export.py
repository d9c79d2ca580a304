"""Models in the forms of other runtimes: files, parity, and what can't be written."""

import json
from pathlib import Path

import jsonschema
import onnxruntime
import pytest
from typer.testing import CliRunner

import n2n_edge
from n2n_edge.cli.app import app
from n2n_edge.errors import InputError
from n2n_edge.measure import runtimes
from n2n_edge.measure.runtimes import ConversionError, Runtime
from tests.measure.small_models import write_conv_model
from tests.runs.small import images_npz, teacher_file

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/export.json").read_text(encoding="utf-8"))


def test_a_model_is_written_in_float16_beside_it(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx")

    found = n2n_edge.export(path, ["fp16"])

    (half,) = found.exported
    assert half.files == (tmp_path / "model-fp16.onnx",)
    assert half.size_mb == half.files[0].stat().st_size / 1e6
    assert 0 < half.parity.difference < half.parity.tolerance
    onnxruntime.InferenceSession(str(half.files[0]), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("form", "suffixes"), [("ncnn", (".param", ".bin")), ("openvino", (".xml", ".bin"))])
def test_a_model_is_written_for_a_runtime(tmp_path: Path, form: str, suffixes: tuple[str, ...]) -> None:
    pytest.importorskip(form, reason=f"{form} isn't installed")
    path = write_conv_model(tmp_path / "model.onnx")

    done = CliRunner().invoke(app, ["export", str(path), "--to", form, "--out", str(tmp_path / "board"), "--json"])

    assert done.exit_code == 0
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    (exported,) = document["exported"]
    assert exported["files"] == [f"model.{form}{suffix}" for suffix in suffixes]
    assert all((tmp_path / "board" / name).is_file() for name in exported["files"])
    assert exported["runtime"].startswith(f"{form} ")
    assert exported["parity"]["largest_difference"] < 1e-4


def test_real_images_go_in_as_the_data_say(tmp_path: Path) -> None:
    path, images = teacher_file(tmp_path / "teacher.onnx"), images_npz(tmp_path / "images.npz")

    found = n2n_edge.export(path, ["fp16"], data=str(images))

    assert found.exported[0].parity.inputs == "real"


def test_what_cannot_be_converted_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Path, folder: Path, inputs: object) -> None:
        raise ConversionError("it can't be converted for ncnn: no such operator")

    monkeypatch.setitem(runtimes.RUNTIMES, "ncnn", Runtime("ncnn", (), (".param",), refuse))
    path = write_conv_model(tmp_path / "model.onnx")

    done = CliRunner().invoke(app, ["export", str(path), "--to", "fp16,ncnn", "--json"])

    assert done.exit_code == 1
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert [each["form"] for each in document["exported"]] == ["fp16"]
    assert set(document["failures"]) == {"ncnn"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model-fp16.onnx", "model.onnx"]
    assert done.stderr.splitlines()[-1].endswith("(ncnn): it can't be converted for ncnn: no such operator")


@pytest.mark.parametrize(("form", "words"), [("", "in which form"), ("tvm", "no such"), ("onnxruntime", "as it is")])
def test_an_unknown_form_is_bad_input(tmp_path: Path, form: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        n2n_edge.export(write_conv_model(tmp_path / "model.onnx"), [form])
