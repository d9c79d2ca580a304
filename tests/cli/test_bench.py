import csv
import json
from pathlib import Path

import jsonschema
import onnx
import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.bench import bench
from n2n_edge.errors import InputError, MemoryLimitError
from n2n_edge.measure.measurement import MeasurementError
from tests.measure.fake_board import install
from tests.measure.small_models import write_conv_model, write_failing_model, write_gemm_model
from tests.quantized import floats, quantized, weights_alone
from tests.sshd import Server

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
    for text in (
        "measured on this host",
        "small.onnx",
        "p50 ms",
        "p90, p99",
        "min, max",
        "RSS growth",
        "arena",
        "memory bound",
    ):
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
    assert {"value", "unit", "provenance", "low", "high", "n", "runtime"} == set(model["p50_ms"])
    assert path.stat().st_size / 1e6 == model["size_mb"]["value"]
    assert "predicted_latency_ms" not in model


def test_a_board_is_predicted_and_never_passes_as_measured(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "small.onnx")

    document = json.loads(run(path, *QUICK, "--device", "jetson", "--json").stdout)
    table = run(path, *QUICK, "--device", "jetson").stdout

    (model,) = document["models"]
    assert (model["target"], model["p50_ms"]["provenance"]) == ("host", "measured")
    assert list(model["predicted_latency_ms"]) == ["jetson-orin-nano"]
    assert model["predicted_latency_ms"]["jetson-orin-nano"]["provenance"] == "calibrated"
    assert model["providers"] == ["CPUExecutionProvider"]
    before, after = table.split("predicted, not measured")
    assert "jetson-orin-nano" not in before
    assert "jetson-orin-nano" in after
    assert "GPU, fp32, onnxruntime" in after  # as it was timed, whatever the board's runtime would take by itself
    assert "calibrated" in after


def test_warnings_are_printed(tmp_path: Path) -> None:
    result = run(write_conv_model(tmp_path / "four.onnx", batch=4), *QUICK)

    assert "four.onnx: warning: input 'x' has a fixed first axis of 4" in result.stdout


def test_every_warning_has_a_code(tmp_path: Path) -> None:
    (model,) = json.loads(run(write_conv_model(tmp_path / "four.onnx", batch=4), *QUICK, "--json").stdout)["models"]

    assert model["warning_codes"][0] == "input-shape"
    assert len(model["warning_codes"]) == len(model["warnings"])


def test_one_failing_model_does_not_keep_the_others_from_being_measured(tmp_path: Path) -> None:
    good = write_conv_model(tmp_path / "good.onnx")
    bad = write_failing_model(tmp_path / "bad.onnx")

    result = run(bad, good, *QUICK, "--json")

    assert result.exit_code == 3
    assert "n2n-edge: " in result.stderr
    assert result.stderr.count("\n") == 1
    failed, measured = json.loads(result.stdout)["models"]
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


def test_a_negative_threshold_or_limit(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "small.onnx")

    assert "--threshold 0%" in str(run(path, "--threshold", "0%").exception)
    assert "--max-memory-mb -1" in str(run(path, "--max-memory-mb", "-1").exception)


@pytest.mark.parametrize(("factor", "verdict"), [(2.0, "slower"), (0.5, "faster"), (1.0, "same")])
def test_several_models_are_compared_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, verdict: str
) -> None:
    paths = [write_conv_model(tmp_path / f"{width}.onnx", width, 32) for width in (8, 32)]
    larger = f"int(request['model_path']) > {2 * paths[0].stat().st_size}"
    during = (
        "if command == 'put': answer['path'] = str(len(request['data_base64']))\n"
        f"if command == 'open': takes = {factor} if {larger} else 1.0\n"
        "if command == 'block': answer['samples_ms'] = [takes, 1.01 * takes, takes]"
    )
    install(tmp_path, monkeypatch, during=during)
    options = ["--min-time", "0", "--target", "ssh://board", "--markdown", tmp_path / "bench.md"]

    document = json.loads(run(*paths, *options, "--aa", "--json").stdout)

    first, second = document["models"]
    against, floor = second["against_first"], document["noise_floor"]
    assert "against_first" not in first
    assert (against["verdict"], floor["verdict"]) == (verdict, "same")
    assert against["ratio"] == {"value": factor, "unit": "ratio", "low": factor, "high": factor}
    assert (against["threshold"], against["level"], against["rounds"]) == (0.05, 0.99, 8)
    assert "rss_growth_mb" in first
    assert f"32.onnx: {factor:.3f} times 8.onnx ({factor:.3f} to {factor:.3f}), " in (tmp_path / "bench.md").read_text()


def test_where_the_time_goes(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "small.onnx", 16, 32)

    table = run(path, *QUICK, "--per-op").stdout
    (model,) = json.loads(run(path, *QUICK, "--json").stdout)["models"]

    assert "operators take" in table
    assert "w1" in table
    assert {"w1", "w2"} <= {kernel["layer"] for kernel in model["per_op"]["kernels"]}
    assert sum(kernel["share"] for kernel in model["per_op"]["kernels"]) == pytest.approx(1.0)


def test_throughput_of_streams(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "small.onnx")

    (model,) = json.loads(run(path, *QUICK, "--streams", "2", "--json").stdout)["models"]

    assert model["throughput"]["streams"] == 2
    assert model["throughput"]["inferences_per_second"]["value"] > 0


def test_host_limited_never_bears_the_name_of_the_board_as_its_source(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "small.onnx")
    profile = tmp_path / "small-board.toml"
    shipped = (Path(__file__).parents[2] / "profiles" / "raspberry-pi-4.toml").read_text()
    text = shipped.split("\n# Fitted")[0].replace('name = "raspberry-pi-4"', 'name = "small-board"')
    text = text.replace("cores = 4", "cores = 1", 1)
    profile.write_text(text.replace("default_threads = 4", "default_threads = 1").replace('"rpi4", "pi4"', ""))

    result = run(
        path, "--min-time", "0", "--max-time", "0.1", "--device", profile, "--target", "host-limited", "--json"
    )

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    (model,) = document["models"]
    assert document["target"]["name"] == "host within the limits of small-board"
    assert document["target"]["memory_limit"]["mb"] == 3500.0
    assert (model["threads"], model["p50_ms"]["provenance"]) == (1, "host-limited")
    assert "predicted_latency_ms" not in model


def test_a_host_with_fewer_cores_than_the_board_can_not_stand_in_for_it(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "small.onnx")
    profile = tmp_path / "large-board.toml"
    text = (Path(__file__).parents[2] / "profiles" / "raspberry-pi-4.toml").read_text()
    profile.write_text(
        text.replace('name = "raspberry-pi-4"', 'name = "large"').replace("cores = 4", "cores = 1000", 1)
    )

    result = run(path, "--device", profile, "--target", "host-limited")

    assert isinstance(result.exception, InputError)
    assert "1000 cores are more than" in str(result.exception)
    assert "name it with device" in str(run(path, "--target", "host-limited").exception)


def test_a_memory_limit_that_is_not_enough_is_exit_code_4(tmp_path: Path) -> None:
    path = write_gemm_model(tmp_path / "wide.onnx", 8000)  # 256 MB

    result = run(path, *QUICK, "--max-memory-mb", "200")

    assert isinstance(result.exception, MemoryLimitError)
    assert result.exception.exit_code == 4
    assert "over its memory limit of 200 MB" in str(result.exception)


def test_files_of_figures_and_tables(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "a|b.onnx")

    result = run(path, *QUICK, "--csv", tmp_path / "x.csv", "--markdown", tmp_path / "x.md")

    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader((tmp_path / "x.csv").read_text().splitlines())
    assert str(path) == row["path"]
    assert float(row["min_ms"]) <= float(row["p50_low_ms"]) <= float(row["p50_ms"]) <= float(row["p50_high_ms"])
    assert "a\\|b.onnx" in (tmp_path / "x.md").read_text()
    assert "| p50 ms (95% interval) | " in (tmp_path / "x.md").read_text()


def test_a_model_whose_costs_can_not_be_told_is_timed_all_the_same(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "shapeless.onnx")
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    path.write_bytes(model.SerializeToString())

    result = run(path, *QUICK, "--json")

    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["models"]
    assert row["p50_ms"]["value"] > 0


def test_a_noise_floor_that_fails_is_no_success(tmp_path: Path) -> None:
    result = run(write_failing_model(tmp_path / "bad.onnx"), *QUICK, "--aa")

    assert isinstance(result.exception, MeasurementError)


def test_a_file_that_could_not_be_written_is_refused_before_anything_is_timed(tmp_path: Path) -> None:
    result = run(tmp_path / "missing.onnx", "--csv", tmp_path / "no" / "such" / "x.csv")

    assert isinstance(result.exception, InputError)
    assert "x.csv: can't be written" in str(result.exception)


def test_a_later_bench_is_compared_with_a_saved_one(tmp_path: Path) -> None:
    path, saved = write_conv_model(tmp_path / "small.onnx"), tmp_path / "then.json"
    assert run(path, *QUICK, "--save", saved).exit_code == 0

    same = run(path, *QUICK, "--compare", saved)
    document = json.loads(saved.read_text())
    document["environment"]["onnxruntime"] = "1.0.0"
    document["models"][0]["sha256"] = "other"
    saved.write_text(json.dumps(document))
    other = run(path, *QUICK, "--compare", saved)

    assert "small.onnx: " in same.stdout
    assert " ms then, " in same.stdout
    assert "differs" not in same.stdout
    assert "warning: onnxruntime differs: 1.0.0 then" in other.stdout
    assert "another file by the same name" in other.stdout


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"kind": "bench"}',
        '{"kind": "gate", "models": []}',
        '{"kind": "bench", "schema_version": 1, "models": [{"p50_ms": {}}]}',
        '{"kind": "bench", "schema_version": 1, "models": []}',
    ],
)
def test_a_file_that_is_no_saved_bench(tmp_path: Path, text: str) -> None:
    saved = tmp_path / "then.json"
    saved.write_text(text)

    result = run(write_conv_model(tmp_path / "small.onnx"), "--compare", saved)

    assert isinstance(result.exception, InputError)
    assert "--save" in str(result.exception)


def test_documents_follow_the_published_schema(tmp_path: Path) -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "bench.json").read_text())
    good, bad = write_conv_model(tmp_path / "good.onnx"), write_failing_model(tmp_path / "bad.onnx")

    result = run(good, bad, *QUICK, "--aa", "--streams", "1", "--device", "jetson", "--json")

    jsonschema.validate(json.loads(result.stdout), schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("target", ["board", "ssh//board", "ssh://-oX"])
def test_a_target_that_is_none(tmp_path: Path, target: str) -> None:
    result = run(write_conv_model(tmp_path / "small.onnx"), "--target", target)

    assert isinstance(result.exception, InputError)
    assert "ssh://[user@]host" in str(result.exception)


def test_a_board_over_ssh(tmp_path: Path, server: Server) -> None:
    path = write_conv_model(tmp_path / "small.onnx")

    document = json.loads(run(path, *QUICK, "--target", server.url(), "--device", "raspberry-pi-4", "--json").stdout)

    assert document["target"] == {"name": server.url(), "provenance": "measured"}
    (model,) = document["models"]
    assert model["target"] == server.url()
    assert list(model["predicted_latency_ms"]) == ["raspberry-pi-4"]
    assert server.left_behind() == []


def test_a_board_is_run_as_its_profile_says(tmp_path: Path, server: Server) -> None:
    result = run(write_conv_model(tmp_path / "small.onnx"), *QUICK, "--target", server.url(), "--device", "jetson")

    assert isinstance(result.exception, InputError)
    assert "TensorrtExecutionProvider is not in this onnxruntime" in str(result.exception)


@pytest.mark.parametrize("option", ["--csv", "--markdown", "--html", "--save"])
def test_no_output_is_written_over_a_model(tmp_path: Path, option: str) -> None:
    path = write_conv_model(tmp_path / "small.onnx")
    before = path.read_bytes()
    result = run(path, *QUICK, option, tmp_path / "." / "small.onnx")

    assert isinstance(result.exception, InputError)
    assert path.read_bytes() == before


def test_models_of_one_name_are_told_apart_wherever_they_are_named(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "model.onnx", tmp_path / "new" / "model.onnx"
    for path, width in ((old, 8), (new, 32)):
        path.parent.mkdir()
        write_conv_model(path, width, batch=4)
    saved = tmp_path / "b.json"
    assert run(old, new, *QUICK, "--save", saved).exit_code == 0

    files = ["--html", tmp_path / "b.html", "--markdown", tmp_path / "b.md"]
    result = run(old, new, *QUICK, "--per-op", "--aa", *files, "--compare", saved)

    assert result.exit_code == 0, result.output
    page = (tmp_path / "b.html").read_text()
    for text in (result.stdout, (tmp_path / "b.md").read_text(), page):
        assert text.count("model.onnx") == text.count("old/model.onnx") + text.count("new/model.onnx")
        assert "old/model.onnx" in text
        assert "new/model.onnx" in text
    assert "times old/model.onnx" in result.stdout
    assert "old/model.onnx: warning: input 'x' has a fixed first axis" in result.stdout
    assert [Path(model["path"]) for model in json.loads(saved.read_text())["models"]] == [old, new]


def test_models_of_one_name_that_have_moved_are_compared_with_themselves(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "model.onnx", tmp_path / "new" / "model.onnx"
    for path, width in ((old, 8), (new, 32)):
        path.parent.mkdir()
        write_conv_model(path, width)
    saved = tmp_path / "b.json"
    assert run(old, new, *QUICK, "--save", saved).exit_code == 0
    moved = new.parent.rename(tmp_path / "moved") / "model.onnx"

    result = run(moved, *QUICK, "--compare", saved)

    assert "model.onnx: " in result.stdout
    assert "another file by the same name" not in result.stdout


def test_of_a_quantized_file_macs_are_told_by_precision(tmp_path: Path) -> None:
    path = quantized(floats(tmp_path / "float.onnx"), "pairs")

    shown, found = run(path, *QUICK), json.loads(run(path, *QUICK, "--json").stdout)

    (row,) = found["models"]
    assert row["integer_macs"] == row["macs"]
    assert "ran-in-float" not in row["warning_codes"]
    assert "(all in int8)" in shown.stdout
    schema = Path(__file__).parents[2] / "docs" / "schemas" / "bench.json"
    jsonschema.validate(found, json.loads(schema.read_text()))


def test_quantized_weights_that_are_multiplied_in_float_are_told(tmp_path: Path) -> None:
    (row,) = json.loads(run(weights_alone(tmp_path / "w.onnx"), *QUICK, "--json").stdout)["models"]

    assert "ran-in-float" in row["warning_codes"]
    assert any("1 of 1 layers whose weights are quantized ran in float" in text for text in row["warnings"])
    assert "integer_macs" not in row
