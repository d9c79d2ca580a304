"""`n2n-edge gate` as a CI job sees it: exit codes, stdout, stderr."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from n2n_edge.cli.gate import gate
from n2n_edge.errors import InputError

app = typer.Typer()
app.command()(gate)

CHANNELS = 8
PARAMS = CHANNELS * 1 * 3 * 3 + CHANNELS
MACS = CHANNELS * 1 * 3 * 3 * 8 * 8


def _save_conv(path: Path, channels: int = CHANNELS) -> Path:
    weights = np.ones((channels, 1, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        "one-conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", channels, 8, 8])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.zeros(channels, np.float32), "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def model(tmp_path):
    return _save_conv(tmp_path / "model.onnx")


def _run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _run_expecting(error, *arguments):
    result = _run(*arguments)
    assert isinstance(result.exception, error), result
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_a_model_within_its_budgets_passes(model):
    result = _run(model, "--max-params", PARAMS, "--max-macs", MACS, "--max-mb", 1, "--max-memory-mb", 1)
    assert result.exit_code == 0
    assert "all 4 met" in result.stdout


def test_one_missed_budget_fails_the_job_and_is_named(model):
    result = _run(model, "--max-params", PARAMS - 1, "--max-mb", 1)
    assert result.exit_code == 1
    assert "1 of 2 missed" in result.stdout
    assert "--max-params 79" in result.stdout


def test_size_is_that_of_the_file_on_disk(model):
    document = json.loads(_run(model, "--max-mb", 1, "--json").stdout)
    assert document["budgets"][0]["reached"]["value"] == model.stat().st_size / 1e6


def test_json_is_one_document_with_provenance(model):
    result = _run(model, "--max-params", PARAMS - 1, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["schema_version"] == 1
    assert document["passed"] is False
    (budget,) = document["budgets"]
    assert budget["reached"] == {"value": PARAMS, "unit": "params", "provenance": "computed"}
    assert (budget["option"], budget["met"]) == ("--max-params", False)


def test_latency_on_a_board_is_a_prediction_and_says_so(model):
    result = _run(model, "--max-latency-ms", 1000, "--device", "raspberry-pi-4", "--json")
    (budget,) = json.loads(result.stdout)["budgets"]
    assert result.exit_code == 0
    assert budget["reached"]["provenance"] in ("analytic", "calibrated")
    assert "prediction" in budget["reason"]
    assert "predicted, not measured" in result.stderr


def test_latency_on_this_host_is_measured(model):
    (budget,) = json.loads(_run(model, "--max-latency-ms", 1e6, "--device", "cpu", "--json").stdout)["budgets"]
    assert budget["reached"]["provenance"] == "measured"
    assert budget["reached"]["n"] > 0


def test_a_model_that_grew_past_the_baseline_fails(model, tmp_path):
    bigger = _save_conv(tmp_path / "bigger.onnx", channels=2 * CHANNELS)
    assert _run(bigger, "--baseline", model).exit_code == 1
    assert _run(bigger, "--baseline", model, "--max-regression", "100%").exit_code == 0
    assert _run(model, "--baseline", bigger).exit_code == 0


def test_wrong_usage_says_what_to_give(model, tmp_path):
    assert "--max-mb" in _run_expecting(InputError, model)
    assert "--device" in _run_expecting(InputError, model, "--max-latency-ms", 5)
    assert "--baseline" in _run_expecting(InputError, model, "--max-mb", 1, "--max-regression", "5%")
    assert "--max-mb 0" in _run_expecting(InputError, model, "--max-mb", 0)
    assert "raspberry-pi-4" in _run_expecting(InputError, model, "--max-latency-ms", 5, "--device", "raspbery-pi-4")
    assert "nowhere.onnx" in _run_expecting(InputError, tmp_path / "nowhere.onnx", "--max-mb", 1)


def test_a_truncated_model_is_bad_input_not_a_failed_budget(model):
    model.write_bytes(model.read_bytes()[:100])
    assert "model.onnx" in _run_expecting(InputError, model, "--max-mb", 1)
