import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.bench import bench
from n2n_edge.errors import InputError
from tests.measure.small_models import write_conv_model, write_failing_model

QUICK = ["--min-time", "0", "--max-time", "0.1", "--threads", "1"]

app = typer.Typer()
app.command()(bench)


@pytest.fixture(autouse=True)
def plain_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def test_a_table_of_what_was_measured(tmp_path: Path) -> None:
    result = run(write_conv_model(tmp_path / "small.onnx"), *QUICK)

    assert result.exit_code == 0, result.output
    for text in ("measured on this host", "small.onnx", "p50 ms", "p90", "p99", "min ms", "RSS growth", "memory bound"):
        assert text in result.stdout
    assert "analytic" not in result.stdout


def test_json_is_one_document_of_figures(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "small.onnx")

    result = run(path, *QUICK, "--json")

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema_version"] == 1
    assert {"cpu", "os", "onnxruntime"} <= set(document["environment"])
    (model,) = document["models"]
    assert str(path) == model["path"]
    measured = {"p50_ms", "p90_ms", "p99_ms", "min_ms", "max_ms", "first_run_ms", "session_ms", "rss_growth_mb"}
    computed = {"size_mb", "params", "macs", "memory_bound_mb"}
    assert {"measured"} == {model[name]["provenance"] for name in measured}
    assert {"computed"} == {model[name]["provenance"] for name in computed}
    assert {"value", "unit", "provenance", "low", "high", "n"} == set(model["p50_ms"])
    assert path.stat().st_size / 1e6 == model["size_mb"]["value"]
    assert "predicted_latency_ms" not in model


def test_a_board_is_predicted_and_never_passes_as_measured(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "small.onnx")

    document = json.loads(run(path, *QUICK, "--device", "jetson", "--json").stdout)
    table = run(path, *QUICK, "--device", "jetson").stdout

    (model,) = document["models"]
    assert (model["target"], model["p50_ms"]["provenance"]) == ("host", "measured")
    assert list(model["predicted_latency_ms"]) == ["jetson-orin-nano"]
    assert model["predicted_latency_ms"]["jetson-orin-nano"]["provenance"] == "analytic"
    assert model["providers"] == ["CPUExecutionProvider"]
    before, after = table.split("predicted, not measured")
    assert "jetson-orin-nano" not in before
    assert "jetson-orin-nano" in after
    assert "analytic" in after


def test_warnings_are_printed(tmp_path: Path) -> None:
    result = run(write_conv_model(tmp_path / "four.onnx", batch=4), *QUICK)

    assert "four.onnx: warning: input 'x' has a fixed first axis of 4" in result.stdout


def test_one_failing_model_does_not_keep_the_others_from_being_measured(tmp_path: Path) -> None:
    good = write_conv_model(tmp_path / "good.onnx")
    bad = write_failing_model(tmp_path / "bad.onnx")

    result = run(bad, good, *QUICK, "--json")

    assert result.exit_code == 3
    assert "n2n-edge: " in result.stderr
    assert result.stderr.count("\n") == 1
    measured, failed = json.loads(result.stdout)["models"]
    assert (str(good), str(bad)) == (measured["path"], failed["path"])
    assert "the run failed" in failed["error"]


def test_a_corrupt_file_is_one_line_and_no_document(tmp_path: Path) -> None:
    path = tmp_path / "corrupt.onnx"
    path.write_bytes(write_conv_model(tmp_path / "good.onnx").read_bytes()[:150])

    result = run(path, *QUICK, "--json")

    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith(str(path))
    assert "\n" not in str(result.exception)
    assert result.stdout == ""


def test_an_unknown_device(tmp_path: Path) -> None:
    result = run(write_conv_model(tmp_path / "small.onnx"), "--device", "rasberry-pi-4")

    assert isinstance(result.exception, InputError)
    assert "nearest: raspberry-pi-4" in str(result.exception)


def test_a_time_that_is_not_positive(tmp_path: Path) -> None:
    result = run(write_conv_model(tmp_path / "small.onnx"), "--max-time", "0")

    assert isinstance(result.exception, InputError)
    assert "--max-time 0" in str(result.exception)
