"""A latency that a gate asks for is of one runtime, and says of which."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest
from typer.testing import CliRunner

from n2n_edge.cli.app import app
from n2n_edge.errors import InputError
from n2n_edge.measure import runtimes
from n2n_edge.measure.runtimes import ConversionError, Runtime
from tests.gating.models import save_conv

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/gate.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


def gated(*words: object) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["gate", *map(str, words), "--json"])
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    return done.exit_code, document


def refused(*words: object) -> str:
    done = CliRunner().invoke(app, ["gate", *map(str, words)])
    assert isinstance(done.exception, InputError)
    text = done.exception.on_command_line()
    assert "\n" not in text
    return text


def made_for(path: Path, runtime: str) -> Path:
    """Write a small model that says it was made for a runtime, as students do."""
    proto = onnx.load(save_conv(path))
    entry = proto.metadata_props.add()
    entry.key, entry.value = "n2n_edge.profile", json.dumps({"runtime": runtime})
    onnx.save(proto, path)
    return path


def test_a_prediction_is_of_the_runtime_that_is_asked_for(tmp_path: Path) -> None:
    model = save_conv(tmp_path / "model.onnx")
    asked = (model, "--device", "raspberry-pi-5", "--max-latency-ms", 100)

    (_, own), (_, ncnn) = gated(*asked), gated(*asked, "--runtime", "ncnn")

    (first,), (second,) = own["budgets"], ncnn["budgets"]
    assert (first["reached"]["runtime"], second["reached"]["runtime"]) == ("onnxruntime", "ncnn")
    assert "on raspberry-pi-5 under ncnn" in second["reason"]
    wide, narrow = (one["reached"]["high"] / one["reached"]["value"] for one in (first, second))
    assert narrow < wide
    assert "other-runtime" in own["warning_codes"]
    assert "other-runtime" not in ncnn["warning_codes"]


def test_what_is_timed_is_what_the_file_was_converted_to(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino isn't installed")
    model = save_conv(tmp_path / "model.onnx")

    code, document = gated(
        model, "--device", "cpu", "--max-latency-ms", 1e-6, "--runtime", "openvino", "--max-time", 0.01
    )

    assert code == 3  # so short a time leaves it open
    assert [(one["cost"], one["outcome"]) for one in document["unanswered"]] == [("latency_ms", "inconclusive")]


@pytest.mark.slow
def test_two_models_are_timed_in_turns_under_one_runtime(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino isn't installed")
    model = save_conv(tmp_path / "model.onnx")

    code, document = gated(
        model, "--baseline", model, "--max-regression", "10000%", "--runtime", "openvino", "--max-time", 0.01
    )

    (ratio,) = [one for one in document["regressions"] if one["cost"] == "latency_ms"]
    assert code == 3  # so short a time leaves it open
    assert ratio["reached"]["runtime"].startswith("openvino 2")
    assert ratio["baseline"]["runtime"] == ratio["reached"]["runtime"]
    assert "under openvino 2" in ratio["reason"]


def test_a_model_that_cannot_be_converted_is_one_line_and_hides_no_other_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: Path, folder: Path, inputs: object) -> None:
        raise ConversionError("it can't be converted for ncnn: no such operator")

    monkeypatch.setitem(runtimes.RUNTIMES, "ncnn", Runtime("ncnn", (), (".param",), refuse))
    model = save_conv(tmp_path / "model.onnx")

    code, document = gated(
        model, "--device", "cpu", "--max-latency-ms", 5, "--max-mb", 1, "--runtime", "ncnn", "--max-time", 1
    )

    assert code == 3
    assert [budget["outcome"] for budget in document["budgets"]] == ["pass"]
    (open_one,) = document["unanswered"]
    assert open_one["reason"].endswith("(ncnn): it can't be converted for ncnn: no such operator")


def test_latencies_of_different_runtimes_are_not_compared(tmp_path: Path) -> None:
    model = made_for(tmp_path / "model.onnx", "ncnn")
    baseline = made_for(tmp_path / "main.onnx", "onnxruntime")

    line = refused(model, "--baseline", baseline)

    assert "made for ncnn, its baseline" in line
    assert line.endswith("give the --runtime under which both are timed")
    assert gated(model, "--baseline", baseline, "--static")[0] == 0


def test_a_file_that_was_made_for_another_runtime_is_said_to_be(tmp_path: Path) -> None:
    model = made_for(tmp_path / "model.onnx", "ncnn")
    asked = (model, "--device", "raspberry-pi-5", "--max-latency-ms", 100)

    assert "made-for-runtime" in gated(*asked)[1]["warning_codes"]
    assert "made-for-runtime" not in gated(*asked, "--runtime", "ncnn")[1]["warning_codes"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--runtime", "tvm"), "no such runtime; give onnxruntime, ncnn, openvino"),
        (("--runtime", "ncnn", "--providers", "cuda"), "they are ONNX Runtime's own"),
    ],
)
def test_wrong_usage_of_runtimes_is_one_line(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    model = save_conv(tmp_path / "model.onnx")

    assert told in refused(model, "--device", "cpu", "--max-latency-ms", 5, *words)
