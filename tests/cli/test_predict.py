"""The predict command: figures with their evidence, and what it refuses."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.app import main
from n2n_edge.cli.predict import predict
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.load import load_model
from n2n_edge.latency.model import LatencyModel
from tests.cli.outputs import document_of, line_of
from tests.latency.made_up import CALIBRATED_TOML
from tests.measure.small_models import write_conv_model
from tests.quantized import floats, quantized

app = typer.Typer()
app.command()(predict)

Refusal = Callable[..., str]


@pytest.fixture(autouse=True)
def plain_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    return write_conv_model(tmp_path / "small.onnx", 16, 64)


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Give a function that runs the whole command, expects exit code 2, and returns the one line on stderr."""

    def call(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["n2n-edge", "predict", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        assert (stopped.value.code, captured.out) == (2, "")
        assert captured.err.startswith("n2n-edge: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return call


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def document(*arguments: object) -> dict[str, Any]:
    return document_of(run(*arguments, "--json"))


def test_a_prediction_comes_with_its_interval_and_its_evidence(model_path: Path) -> None:
    result = run(model_path, "--device", "raspberry-pi-4")
    found = LatencyModel(load_profile("raspberry-pi-4")).estimate(load_model(model_path))

    assert result.exit_code == 0, result.output
    assert "small.onnx on raspberry-pi-4, 4 threads, fp32" in result.stdout
    assert "nine of ten between" in result.stdout
    latency = line_of(result, "latency")
    assert f"{found.figure.value:.3g} ms (calibrated)" in latency
    assert f"{found.figure.low:.3g} and {found.figure.high:.3g} ms" in latency
    assert "mJ (calibrated)" in line_of(result, "energy")
    assert f"{found.memory.value:.1f} MB" in line_of(result, "memory", "fits into 3500 MB")
    assert "100.0%" not in line_of(result, "w1")
    assert f"evidence: {found.basis.evidence.models} models timed with ncnn on raspberry-pi-4" in result.stdout
    assert "source: " in result.stdout
    assert "measured" not in result.stdout


def test_doubts_are_told(model_path: Path) -> None:
    elsewhere = run(model_path, "--device", "cortex-a76", "--threads", "1")
    narrow = run(model_path, "--device", "jetson", "--precision", "int8")

    assert "cortex-a76, 1 thread, fp32" in elsewhere.stdout
    assert "ms (analytic)" in line_of(elsewhere, "latency")
    assert "less certain: cortex-a76 has no measurements" in elsewhere.stdout
    assert "jetson-orin-nano, GPU, int8" in narrow.stdout
    assert "ms (analytic)" in line_of(narrow, "latency")
    assert "less certain: int8 was not timed on jetson-orin-nano" in narrow.stdout
    assert "energy" not in narrow.stdout


def test_what_does_not_fit_is_told(model_path: Path, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.toml"
    tiny.write_text(CALIBRATED_TOML.replace("usable_memory_mb = 3500.0", "usable_memory_mb = 50.0"))

    assert "does not fit into 50 MB" in line_of(run(model_path, "--device", tiny), "memory")
    assert document(model_path, "--device", tiny)["memory_mb"]["fits"] is False


def test_json_is_one_document_of_figures(model_path: Path) -> None:
    found = document(model_path, "--device", "rpi4")

    assert set(found) == {
        "schema_version", "model", "device", "runtime", "threads", "precision", "latency_ms", "energy_mj", "memory_mb",
        "evidence", "by_precision", "layers", "nodes",
    }  # fmt: skip
    assert found["schema_version"] == 1
    told = [found[name] for name in ("model", "device", "runtime", "threads", "precision")]
    assert told == [str(model_path), "raspberry-pi-4", "onnxruntime", 4, "fp32"]
    for name, unit in (("latency_ms", "ms"), ("energy_mj", "mJ")):
        figure = found[name]
        runtime = {"runtime"} if name == "latency_ms" else set()
        assert set(figure) == {"value", "unit", "provenance", "low", "high", "n"} | runtime
        assert figure["unit"] == unit
        assert 0 < figure["low"] < figure["value"] < figure["high"]
        assert figure["n"] >= 3
    assert found["latency_ms"]["provenance"] == "calibrated"
    assert found["energy_mj"]["provenance"] == "calibrated"
    assert "energy_mj" not in document(model_path, "--device", "rpi4", "--threads", "1")  # nobody measured that
    assert {"value", "unit", "provenance", "usable_mb", "fits"} == set(found["memory_mb"])
    assert (found["memory_mb"]["provenance"], found["memory_mb"]["fits"]) == ("analytic", True)
    assert found["evidence"]["measured_on"] == "raspberry-pi-4"
    assert {"runtime", "threads", "precisions", "models", "median_error", "p90_error", "source", "notes"} < set(
        found["evidence"]
    )


def test_layers_and_nodes_sum_up_to_the_whole(model_path: Path) -> None:
    found = document(model_path, "--device", "jetson")

    assert "energy_mj" not in found
    assert [node["op_type"] for node in found["nodes"]] == ["Conv", "BatchNormalization", "Relu", "Conv", "Add", "Relu"]
    assert [node["kernel"] for node in found["nodes"]] == [
        "conv_3x3", "fused", "fused", "conv_3x3", "residual", "fused",
    ]  # fmt: skip
    for rows in (found["layers"], found["nodes"]):
        assert sum(row["latency_ms"] for row in rows) == pytest.approx(found["latency_ms"]["value"], abs=1e-5)
    assert {node["layer"] for node in found["nodes"]} == {layer["name"] for layer in found["layers"]}


def test_threads_and_precision_change_the_prediction(model_path: Path) -> None:
    slow, usual, small = (
        document(model_path, "--device", "raspberry-pi-4", *options)["latency_ms"]["value"]
        for options in (["--threads", "1"], [], ["--precision", "int8"])
    )

    assert slow > usual
    assert small != usual


def test_a_profile_may_be_a_file(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(CALIBRATED_TOML)

    found = document(model_path, "--device", path)

    assert (found["device"], found["threads"], found["evidence"]["source"]) == ("made-up", 4, "made up")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "rasberry-pi-4"], "unknown device 'rasberry-pi-4' (nearest: raspberry-pi-4"),
        (["--device", "nothing.toml"], "nothing.toml: no such profile file"),
        (["--device", "rpi4", "--precision", "fp64"], "--precision fp64: unknown; give one of fp32, fp16, int8"),
        (["--device", "rpi4", "--threads", "5"], "5 threads: raspberry-pi-4 has 4 cores; give 1 to 4"),
        (["--device", "rpi4", "--threads", "0"], "0 threads: raspberry-pi-4 has 4 cores; give 1 to 4"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(
    refusal: Refusal, model_path: Path, options: list[str], says: str
) -> None:
    assert says in refusal(model_path, *options)
    assert says in refusal(model_path, *options, "--json")


def test_a_missing_file_is_one_line_and_exit_code_2(refusal: Refusal, tmp_path: Path) -> None:
    assert "nowhere.onnx: no such file" in refusal(tmp_path / "nowhere.onnx", "--device", "rpi4")


def test_a_file_that_is_no_model_is_one_line_and_exit_code_2(refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"this is no model" * 100)

    assert "bad.onnx" in refusal(path, "--device", "rpi4")


def test_a_profile_with_a_mistake_is_named_with_its_line(refusal: Refusal, model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(CALIBRATED_TOML.replace("cores = 4\n", "cores = 4\nturbo = true\n", 1))

    assert f"{path}: line 5: field 'turbo': unknown key" in refusal(model_path, "--device", path)


def test_a_device_has_to_be_named(model_path: Path) -> None:
    assert run(model_path).exit_code == 2


def test_several_models_on_several_devices_are_a_table(model_path: Path, tmp_path: Path) -> None:
    other = write_conv_model(tmp_path / "other.onnx", 8, 64)
    words = [model_path, other, "--device", "rpi4", "--device", "jetson", "--device", "raspberry-pi-4"]
    result = run(*words)

    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if "fits into" in line]
    assert len(rows) == 4  # a device that is named twice counts once
    for line, device in zip(rows, ("raspberry-pi-4", "jetson-orin-nano") * 2, strict=True):
        assert device in line
    documents = document(*words)
    assert (documents["schema_version"], documents["kind"]) == (1, "predictions")
    told = [(one["model"], one["device"]) for one in documents["predictions"]]
    assert told == [
        (str(path), name) for path in (model_path, other) for name in ("raspberry-pi-4", "jetson-orin-nano")
    ]
    assert documents["predictions"][1] == document(model_path, "--device", "jetson")


def test_one_wrong_model_or_device_of_several_is_an_error(model_path: Path, refusal: Refusal) -> None:
    assert "no such file" in refusal(model_path, "missing.onnx", "--device", "rpi4")
    assert "unknown device 'rasp'" in refusal(model_path, "--device", "rpi4", "--device", "rasp")


def test_a_quantized_file_is_predicted_by_precision(tmp_path: Path) -> None:
    path = quantized(floats(tmp_path / "float.onnx"), "pairs")

    found, shown = document(path, "--device", "raspberry-pi-4"), run(path, "--device", "raspberry-pi-4")

    assert found["precision"] == "int8"
    assert [part["precision"] for part in found["by_precision"]] == ["int8", "fp32"]
    integers, rest = found["by_precision"]
    assert integers["evidence"]["precisions"] == ["int8"]
    assert rest["evidence"]["precisions"] == ["fp32"]
    assert integers["macs"] > 0
    assert rest["macs"] == 0
    assert found["latency_ms"]["value"] == pytest.approx(sum(part["latency_ms"]["value"] for part in (integers, rest)))
    assert {node["precision"] for node in found["nodes"] if node["op_type"] == "Conv"} == {"int8"}
    assert "int8 and fp32" in " ".join(shown.stdout.split())
    assert "7 models on raspberry-pi-4" in shown.stdout
