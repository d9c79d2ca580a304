"""`n2n-edge gate` as a CI job sees it: exit codes, stdout, stderr."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from n2n_edge._example import teacher_path
from n2n_edge.cli.gate import gate
from n2n_edge.data import source_digits
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from tests.gating.models import CHANNELS, MACS, PARAMS, save_conv
from tests.measure.small_models import write_sized_model
from tests.quantized import floats, quantized

app = typer.Typer()
app.command()(gate)


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """No budget file and no CI around, whatever the tests run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


@pytest.fixture
def model(tmp_path):
    return save_conv(tmp_path / "model.onnx")


def _run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _run_expecting(error, *arguments):
    result = _run(*arguments)
    assert isinstance(result.exception, error), result
    text = result.exception.on_command_line()
    assert "\n" not in text
    return text


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
    bigger = save_conv(tmp_path / "bigger.onnx", channels=2 * CHANNELS)
    assert _run(bigger, "--baseline", model, "--static").exit_code == 1
    assert _run(bigger, "--baseline", model, "--static", "--max-regression", "100%").exit_code == 0
    assert _run(model, "--baseline", bigger, "--static").exit_code == 0


def test_a_model_many_times_slower_than_its_baseline_fails_for_certain(model, tmp_path):
    slower = save_conv(tmp_path / "slower.onnx", channels=256, size=64)
    result = _run(
        slower, "--baseline", model, "--max-regression", "999999%", "--max-regression", "latency_ms=100%", "--json"
    )
    document = json.loads(result.stdout)
    ratio = next(row for row in document["regressions"] if row["cost"] == "latency_ms")
    assert result.exit_code == 1
    assert ratio["outcome"] == "fail"
    assert ratio["ratio"]["low"] > 2
    assert ratio["noise_floor"]["n"] == ratio["ratio"]["n"] >= 8
    assert all(row["outcome"] == "pass" for row in document["regressions"] if row is not ratio)


@pytest.mark.slow
def test_a_model_beside_itself_never_fails(model):
    result = _run(model, "--baseline", model, "--max-regression", "latency_ms=25%", "--max-time", 0.4, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == document["exit_code"]
    assert document["outcome"] in ("pass", "inconclusive")


def test_time_that_is_too_short_leaves_the_ratio_open_and_says_so(model):
    result = _run(model, "--baseline", model, "--max-time", 0.0001)
    assert result.exit_code == 3
    assert "inconclusive: 1 of 5 can't be told here" in result.stdout
    assert "--max-time" in " ".join(result.stdout.split())


def test_a_model_that_the_runtime_cannot_time_is_inconclusive_not_failed(model, monkeypatch):
    def broken(*_, **__):
        raise UnsuitableEnvironmentError("board: no ssh here")

    monkeypatch.setattr("n2n_edge.gating.timing.open_place", broken)
    result = _run(model, "--max-mb", 1, "--max-latency-ms", 5, "--target", "ssh://pi@board", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 3
    assert document["unanswered"][0]["reason"] == "board: no ssh here"
    assert document["budgets"][0]["outcome"] == "pass"


def test_a_latency_beyond_doubt_is_judged_by_its_interval(model):
    result = _run(model, "--max-latency-ms", 1e-6, "--target", "host", "--max-time", 2, "--json")
    (budget,) = json.loads(result.stdout)["budgets"]
    assert result.exit_code == 1
    assert (budget["outcome"], budget["reached"]["provenance"]) == ("fail", "measured")
    assert budget["reached"]["low"] > budget["limit"]


def test_operators_outside_the_list_are_named(model, tmp_path):
    assert _run(model, "--allowed-ops", "Conv,Relu").exit_code == 0
    result = _run(model, "--allowed-ops", "Relu", "--allowed-ops", "Gemm", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["operators"]["others"] == {"Conv": 1}
    (tmp_path / "ops.txt").write_text("# what the compiler takes\nConv  # 3x3\nRelu\n")
    assert _run(model, "--allowed-ops", f"@{tmp_path / 'ops.txt'}").exit_code == 0
    assert "ops" in _run_expecting(InputError, model, "--allowed-ops", "@nowhere.txt")
    assert "Conv-2" in _run_expecting(InputError, model, "--allowed-ops", "Conv-2")


def test_static_leaves_out_what_has_to_be_run_and_says_so(model):
    result = _run(model, "--max-mb", 1, "--max-latency-ms", 5, "--target", "host", "--baseline", model, "--static")
    assert result.exit_code == 0
    assert "--max-latency-ms 5: not checked" in result.stderr
    assert "--max-regression latency_ms=5%: not checked" in result.stderr
    assert "leaves nothing" in _run_expecting(InputError, model, "--max-latency-ms", 5, "--target", "host", "--static")


def test_wrong_usage_says_what_to_give(model, tmp_path):
    assert "--max-mb" in _run_expecting(InputError, model)
    assert "--init" in _run_expecting(InputError)
    assert "--target ssh" in _run_expecting(
        InputError, model, "--max-latency-ms", 5, "--device", "raspberry-pi-4", "--target", "host-limited"
    )
    assert "--data" in _run_expecting(InputError, model, "--min-accuracy", 0.9)
    assert "--baseline" in _run_expecting(InputError, model, "--max-drop", 1, "--data", "builtin:digits")
    assert "--min-score" in _run_expecting(InputError, model, "--max-mb", 1, "--data", "images")
    assert "nowhere.toml" in _run_expecting(InputError, model, "--config", "nowhere.toml")
    assert "folder" in _run_expecting(InputError, model, "--max-mb", 1, "--junit", tmp_path)
    assert "max-time" in _run_expecting(InputError, model, "--max-mb", 1, "--max-time", 0)
    assert "--device" in _run_expecting(InputError, model, "--max-latency-ms", 5)
    assert "--baseline" in _run_expecting(InputError, model, "--max-mb", 1, "--max-regression", "5%")
    assert "--max-mb 0" in _run_expecting(InputError, model, "--max-mb", 0)
    assert "raspberry-pi-4" in _run_expecting(InputError, model, "--max-latency-ms", 5, "--device", "raspbery-pi-4")
    assert "nowhere.onnx" in _run_expecting(InputError, tmp_path / "nowhere.onnx", "--max-mb", 1)


def test_a_truncated_model_is_bad_input_not_a_failed_budget(model):
    model.write_bytes(model.read_bytes()[:100])
    assert "model.onnx" in _run_expecting(InputError, model, "--max-mb", 1)


@pytest.mark.slow
def test_a_limit_in_ms_is_measured_on_a_board_over_ssh(model, server):
    result = _run(model, "--max-latency-ms", 1e6, "--target", server.url(), "--max-time", 2, "--json")
    assert result.exit_code == 0, result.output
    (budget,) = json.loads(result.stdout)["budgets"]
    assert budget["reached"]["provenance"] == "measured"
    assert budget["reached"]["n"] >= 8
    assert server.left_behind() == []


def test_a_board_that_is_not_reached_leaves_the_question_open(model, server):
    address = server.url()
    server.stop()
    result = _run(model, "--max-mb", 1, "--max-latency-ms", 5, "--target", address)
    assert result.exit_code == 3
    assert "1 of 2 can't be told here" in result.stdout


@pytest.mark.parametrize(
    ("medians_ms", "code", "words"),
    [
        ((4.8, 5.2), 3, "its interval holds the limit"),
        ((5.1, 5.2), 1, "5.1 to 5.2 ms"),
        ((4.8, 5.0), 0, "on host under onnxruntime "),
        (None, 3, "of the 8 rounds that an interval takes"),
    ],
)
def test_a_measured_latency_is_judged_by_its_whole_interval(model, monkeypatch, medians_ms, code, words):
    from n2n_edge.gating import timing

    def found(*arguments, **options):
        real = compare(*arguments, **options)
        return replace(real, medians_ms=(medians_ms,))

    compare = timing.compare
    monkeypatch.setattr(timing, "compare", found)
    result = _run(model, "--max-latency-ms", 5, "--device", "cpu", "--max-time", 0.001)
    assert result.exit_code == code
    assert words in " ".join(result.stdout.split())


def test_this_machine_does_not_pass_for_a_board(model):
    message = _run_expecting(InputError, model, "--max-latency-ms", 5, "--device", "raspberry-pi-4", "--target", "host")
    assert "not raspberry-pi-4" in message


def test_nothing_that_is_read_is_written_over(model, tmp_path):
    before = model.read_bytes()
    for arguments in (
        ("--junit", model),
        ("--junit", tmp_path / "a", "--markdown", tmp_path / "a"),
        ("--gitlab", tmp_path / "b.onnx", "--baseline", save_conv(tmp_path / "b.onnx"), "--static"),
    ):
        assert "given twice" in _run_expecting(InputError, model, "--max-mb", 1, *arguments)
    assert model.read_bytes() == before


def test_names_are_shown_as_they_are(tmp_path):
    odd = [save_conv(tmp_path / name) for name in ("[bold].onnx", "m[red].onnx")]
    result = _run(*odd, "--max-mb", 1)
    assert result.exit_code == 0
    assert all(path.name in result.stdout for path in odd)


@pytest.mark.parametrize("limit", ["1e-320", "1e300"])
def test_json_stays_json_at_the_ends_of_numbers(model, limit):
    document = json.loads(_run(model, "--max-mb", limit, "--json").stdout, parse_constant=pytest.fail)
    assert document["kind"] == "gate"


def test_the_score_is_held_on_the_test_images_and_against_the_baseline():
    pytest.importorskip("sklearn")
    teacher = teacher_path()
    good = _run(teacher, "--min-accuracy", 0.99, "--data", "builtin:digits", "--json")
    (budget,) = json.loads(good.stdout)["budgets"]
    assert good.exit_code == 0
    assert (budget["cost"], budget["reached"]["provenance"], budget["reached"]["n"]) == ("score", "measured", 359)
    assert (budget["option"], budget["metric"]) == ("--min-score", "accuracy")
    result = _run(teacher, "--min-accuracy", 0.9999, "--data", "builtin:digits")
    assert result.exit_code == 1
    wrong = ("--mean", "0.9", "--std", "0.01", "--baseline", teacher, "--max-regression", "accuracy=0%")
    result = _run(teacher, "--min-accuracy", 0.5, "--data", "builtin:digits", "--max-time", 0.001, *wrong, "--json")
    document = json.loads(result.stdout)
    assert document["budgets"][0]["outcome"] == "fail"  # normalised wrongly it is bad at it
    assert next(row for row in document["regressions"] if row["cost"] == "score")["change"] == 0


def test_a_drop_is_held_against_the_baseline_in_points_of_the_metric():
    pytest.importorskip("sklearn")
    teacher = teacher_path()
    against = ("--baseline", teacher, "--data", "builtin:digits", "--max-time", 0.001, "--json")
    document = json.loads(_run(teacher, "--max-drop", 1.5, *against).stdout)
    (budget,) = document["budgets"]
    assert (budget["cost"], budget["outcome"], budget["metric"]) == ("drop", "pass", "accuracy")
    assert budget["reached"] == {"value": 0.0, "unit": "points", "provenance": "measured", "n": 359}
    assert "accuracy 0.00 points lower, measured; budget at most 1.50 points, 1.50 points inside" in budget["reason"]
    assert "paired-difference" in document["note_codes"]
    assert "score" not in {row["cost"] for row in document["regressions"]}
    document = json.loads(_run(teacher, "--max-drop", 1.5, "--max-regression", "score=1%", *against).stdout)
    assert next(row for row in document["regressions"] if row["cost"] == "score")["metric"] == "accuracy"


def test_without_labels_a_drop_is_what_fidelity_to_the_baseline_lacks(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for index in range(30):
        pixels = random.integers(0, 255, (16, 16)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    words = ("--max-drop", 1, "--baseline", teacher_path(), "--data", tmp_path / "images", "--max-time", 0.001)
    document = json.loads(_run(teacher_path(), *words, "--json").stdout)
    (budget,) = document["budgets"]
    assert (budget["cost"], budget["outcome"], budget["metric"]) == ("drop", "pass", "fidelity")
    assert budget["reached"]["value"] == 0
    assert any("without labels --max-drop holds for fidelity to the baseline" in one for one in document["warnings"])


def test_a_budget_file_of_today_names_the_score(tmp_path):
    pytest.importorskip("sklearn")
    shutil.copy(teacher_path(), tmp_path / "teacher.onnx")
    result = _run(
        "--init", tmp_path / "teacher.onnx", "--data", "builtin:digits", "--config", tmp_path / "n2n-edge.toml"
    )
    assert result.exit_code == 0
    assert "min-score = 0.984" in (tmp_path / "n2n-edge.toml").read_text()


def test_budget_files_take_the_former_name_of_a_score(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    (tmp_path / "n2n-edge.toml").write_text(
        "[gate.models.'*.onnx']\nmin-accuracy = 0.9\ndata = 'builtin:digits'\nmax-regression = 'accuracy=1%'\n"
    )
    shutil.copy(teacher_path(), tmp_path / "teacher.onnx")
    result = _run(tmp_path / "teacher.onnx", "--config", tmp_path / "n2n-edge.toml", "--json")
    (budget,) = json.loads(result.stdout)["budgets"]
    assert (result.exit_code, budget["option"], budget["limit"]) == (0, "--min-score", 0.9)


def test_accuracy_without_pillow_is_inconclusive_and_hides_no_failure(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    result = _run(model, "--max-params", 1, "--min-accuracy", 0.5, "--data", "builtin:digits", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert "evaluating a model on images needs Pillow" in document["unanswered"][0]["reason"]


def freed(path, name):
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"s{axis}"
    onnx.save(model, path.with_name(name))
    return path.with_name(name)


def test_a_baseline_of_free_size_is_counted_at_the_models(model, tmp_path):
    heavier = save_conv(tmp_path / "heavier.onnx", channels=2 * CHANNELS)
    result = _run(heavier, "--baseline", freed(model, "free.onnx"), "--static", "--json")

    assert result.exit_code == 1
    macs = next(one for one in json.loads(result.stdout)["regressions"] if one["cost"] == "macs")
    assert macs["baseline"]["value"] == MACS
    assert "free.onnx: leaves the size of its input free; counted and timed at 1x8x8" in result.stderr


def test_models_of_different_sizes_are_said_to_be(model, tmp_path):
    other = save_conv(tmp_path / "other.onnx", size=16)
    result = _run(model, "--baseline", other, "--static")

    assert "different sizes (1x16x16, 1x8x8)" in result.stderr


def test_a_free_size_is_counted_at_what_is_asked(model, tmp_path):
    free = freed(model, "free.onnx")
    (tmp_path / "n2n-edge.toml").write_text('[gate.models."*.onnx"]\nmax-macs = 1e9\ninput-shape = "1x16x16"\n')

    for given in (("--no-config", "--max-macs", 1e9, "--input-shape", "1x16x16"), ()):
        document = json.loads(_run(free, "--json", *given).stdout)
        assert document["budgets"][0]["reached"]["value"] == 4 * MACS
    assert "doesn't fit" in _run_expecting(InputError, model, "--no-config", "--max-mb", 1, "--input-shape", "1x9x9")
    assert "input-shape" in _run_expecting(InputError, model, "--no-config", "--max-mb", 1, "--input-shape", "big")


def test_static_says_which_costs_cannot_be_told_without_a_run(tmp_path):
    values = [
        onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
        onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
        onnx.helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, ["a", "b"]),
    ]
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["go"], ["on"]), onnx.helper.make_node("Relu", ["v"], ["w"])],
        "body",
        values,
        [
            onnx.helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, ["a", "b"]),
        ],
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)],
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["a", "b"])],
        [onnx.helper.make_tensor("turns", onnx.TensorProto.INT64, [], [2**62])],
    )
    imports = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=9), tmp_path / "loop.onnx")

    result = _run(tmp_path / "loop.onnx", "--static", "--max-mb", "1")
    assert result.exit_code == 0
    result = _run(tmp_path / "loop.onnx", "--static", "--max-mb", "1", "--max-macs", "1e6")
    assert result.exit_code == 3
    assert "can't be inferred" in " ".join(result.output.split())


def _save_op_of_nobody(path):
    """Write a convolution before an operator that ONNX Runtime doesn't have, behind which no shape is known."""
    save_conv(path)
    model = onnx.load(path)
    model.graph.node[0].output[0] = "t"
    model.graph.node.append(onnx.helper.make_node("Zap", ["t"], ["y"], domain="example.org"))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["a", "b"]))
    model.opset_import.append(onnx.helper.make_opsetid("example.org", 1))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (["--max-mb", "0.0001"], 1),
        (["--max-mb", "1"], 0),
        (["--max-params", PARAMS - 1], 1),
        (["--max-params", PARAMS], 0),
        (["--allowed-ops", "Conv"], 1),
        (["--allowed-ops", "Conv,example.org:Zap"], 0),
        (["--allowed-ops", "Conv", "--max-mb", "0.0001", "--max-params", "1"], 1),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_what_the_file_alone_tells_is_judged_without_running_it(tmp_path, asked, code):
    model = _save_op_of_nobody(tmp_path / "op.onnx")
    assert _run(model, *asked).exit_code == code


@pytest.mark.parametrize("asked", ["--max-macs", "--max-memory-mb"])
def test_a_model_that_has_to_be_run_and_cannot_be_is_refused(tmp_path, asked):
    model = _save_op_of_nobody(tmp_path / "op.onnx")
    assert "example.org" in _run_expecting(InputError, model, asked, 1)


def test_a_further_input_of_the_baseline_gets_its_value(tmp_path):
    teacher = write_sized_model(tmp_path / "teacher.onnx")
    student = write_sized_model(tmp_path / "student.onnx", sizes=(3, 4))

    bound = _run(student, "--baseline", teacher, "--bind", "sizes=2,6", "--max-time", "0.2", "--max-regression", "900%")

    assert "latency_ms" in bound.stdout
    assert bound.exit_code == 0, bound.output
    assert "can't run" in _run_expecting(InputError, student, "--baseline", teacher)
    assert "no such input; they have x, sizes" in _run_expecting(
        InputError, student, "--baseline", teacher, "--bind", "size=2,6"
    )


def test_bindings_stand_in_a_budget_file(tmp_path):
    write_sized_model(tmp_path / "teacher.onnx")
    (tmp_path / "n2n-edge.toml").write_text('[gate.models."teacher.onnx"]\nmax-mb = 1\nbind = "sizes=2,6"\n')

    assert _run().exit_code == 0
    assert "no such input" in _run_expecting(InputError, "teacher.onnx", "--bind", "size=2,6")


def test_a_quantized_file_is_held_by_its_own_figures(tmp_path):
    source = floats(tmp_path / "float.onnx")
    path = quantized(source, "pairs per channel")
    limits = ("--max-mb", 1, "--max-macs", 1e9, "--max-latency-ms", 50, "--device", "raspberry-pi-4", "--static")
    result = _run(path, *limits, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert "integer-macs" in document["note_codes"]
    assert "MACs: all in int8" in document["notes"]
    assert sum("int8;" in text for text in document["notes"]) == 1
    assert "integer-macs" not in json.loads(_run(source, *limits, "--json").stdout)["note_codes"]


def test_a_quantized_file_has_a_score_and_a_drop(tmp_path):
    pytest.importorskip("sklearn")
    images = source_digits.read("builtin:digits", (1, 16, 16)).train.images[:40]
    normalised = ((images / 255 - 0.3054) / 0.3187).astype(np.float32).transpose(0, 3, 1, 2)
    path = quantized(Path(teacher_path()), "pairs per channel", tmp_path / "int8.onnx", normalised)
    against = ("--baseline", teacher_path(), "--data", "builtin:digits", "--max-time", 0.001, "--json")
    document = json.loads(_run(path, "--max-drop", 3, "--min-score", 0.95, *against).stdout)
    reached = {row["cost"]: row for row in document["budgets"]}
    assert {cost: row["outcome"] for cost, row in reached.items()} == {"score": "pass", "drop": "pass"}
    assert (reached["score"]["reached"]["provenance"], reached["score"]["reached"]["n"]) == ("measured", 359)
