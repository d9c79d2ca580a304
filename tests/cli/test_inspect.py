from pathlib import Path
from typing import Any

import onnx
import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.inspect import inspect
from n2n_edge.errors import InputError
from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import save_model, serialize
from n2n_edge.graph.teacher import Teacher
from tests.cli.outputs import document_of, line_of
from tests.graph.test_costs import small_network
from tests.graph.test_remove import one_network
from tests.graph.test_unknown_ops import network_with
from tests.quantized import floats, quantized

app = typer.Typer()
app.command()(inspect)


@pytest.fixture(autouse=True)
def plain_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    save_model(one_network("residual"), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def document(*arguments: object) -> dict[str, Any]:
    return document_of(run(*arguments, "--json"))


def test_tables_of_layers_groups_and_costs(model_path: Path) -> None:
    result = run(model_path, "--device", "raspberry-pi-4")

    assert result.exit_code == 0, result.output
    assert "yes" in line_of(result, "conv3", "Conv 3x3", "8->8")
    assert "no: gives the graph output 'logits'" in result.stdout
    assert "yes" in line_of(result, "g1", "conv0, conv3, conv6")
    assert "no: graph input 'input'" in line_of(result, "g0")
    assert "calibrated: predicted for raspberry-pi-4" in line_of(result, "latency ms")
    assert f"{model_path.stat().st_size / 1e6:.3f}" in line_of(result, "size MB")
    assert "can be removed" in result.stdout


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_nothing_is_cut_off_in_a_narrow_terminal(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    result = run(model_path)

    assert result.exit_code == 0, result.output
    assert "…" not in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= max(int(columns), 60)


def test_json_is_the_contract(model_path: Path) -> None:
    teacher = Teacher.load(model_path)

    found = document(model_path, "--device", "raspberry-pi-4")

    keys = {"schema_version", "layers", "groups", "merges", "costs", "precisions", "touchable", "input", "obstacles"}
    assert keys == set(found)
    assert found["schema_version"] == 1
    layers, groups = found["layers"], found["groups"]
    assert isinstance(layers, list)
    assert isinstance(groups, list)
    assert [(layer.name, layer.op_type, layer.removable, layer.reason) for layer in teacher.layers] == [
        (item["name"], item["op_type"], item["removable"], item["reason"]) for item in layers
    ]
    assert [(g.name, g.width, g.shrinkable, g.reason, list(g.layers)) for g in teacher.groups] == [
        tuple(item[key] for key in ("name", "width", "shrinkable", "reason", "layers")) for item in groups
    ]
    figures = found["costs"]
    assert isinstance(figures, dict)
    assert {"size_mb", "params", "macs", "memory_bound_mb", "latency_ms"} == set(figures)
    assert figures["params"] == {
        "value": costs(teacher.model).params,
        "unit": "params",
        "provenance": "computed",
    }
    assert (figures["latency_ms"]["provenance"], figures["latency_ms"]["unit"]) == ("calibrated", "ms")
    assert figures["latency_ms"]["low"] < figures["latency_ms"]["value"] < figures["latency_ms"]["high"]


def test_touchable_counts_what_can_be_removed_or_shrunk(model_path: Path, tmp_path: Path) -> None:
    assert document(model_path)["touchable"] == {"params_share": 1.0, "macs_share": 1.0}

    save_model(network_with("CumSum"), tmp_path / "strange.onnx")
    teacher = Teacher.load(tmp_path / "strange.onnx")
    shrinkable = {name for group in teacher.groups if group.shrinkable for name in group.layers}
    within = [layer for layer in teacher.layers if layer.removable or layer.name in shrinkable]

    touchable = document(tmp_path / "strange.onnx")["touchable"]

    assert isinstance(touchable, dict)
    expected = sum(layer.macs for layer in within) / sum(layer.macs for layer in teacher.layers)
    assert touchable["macs_share"] == pytest.approx(expected)


def test_an_op_outside_the_set_is_named(tmp_path: Path) -> None:
    save_model(network_with("CumSum"), tmp_path / "strange.onnx")

    result = run(tmp_path / "strange.onnx")

    assert result.exit_code == 0, result.output
    assert "touches op CumSum" in line_of(result, "conv2", "Conv 3x3")
    assert "isn't understood" in result.stdout


def test_a_free_input_takes_the_given_shape(tmp_path: Path) -> None:
    model = small_network()
    proto_shape = model.graph.inputs[0].shape
    assert proto_shape is not None
    model.graph.inputs[0].shape = type(proto_shape)(["N", 3, "H", "W"])
    (tmp_path / "free.onnx").write_bytes(serialize(model))

    macs = [document(tmp_path / "free.onnx", "--input-shape", shape)["costs"] for shape in ("3x8x8", "3,16,16")]

    assert isinstance(macs[0], dict)
    assert isinstance(macs[1], dict)
    assert macs[0]["macs"]["value"] * 3 < macs[1]["macs"]["value"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.onnx"], "no such file"),
        (["small.onnx", "--device", "raspberry"], "raspberry"),
        (["small.onnx", "--input-shape", "3xHxW"], "input_shape 3xHxW: not a shape"),
        (["small.onnx", "--input-shape", "3x9x9"], "input shape 3x9x9 doesn't fit the model's input 'input'"),
    ],
)
def test_bad_input_is_one_line(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(model_path.parent)

    result = run(*arguments)

    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""


def test_a_real_teacher(teachers: Path) -> None:
    found = document(teachers / "resnet20_jpeg.onnx", "--device", "raspberry-pi-4")

    layers, groups, figures = found["layers"], found["groups"], found["costs"]
    assert isinstance(layers, list)
    assert isinstance(groups, list)
    assert isinstance(figures, dict)
    assert (sum(item["removable"] for item in layers), sum(item["shrinkable"] for item in groups)) == (16, 12)
    assert (figures["params"]["value"], figures["macs"]["value"]) == (269_722, 40_551_040)


@pytest.mark.parametrize(
    ("kind", "way", "per_channel", "conversions"),
    [
        ("operators", "QOperator", False, 2),
        ("pairs", "QDQ", False, 2),
        ("pairs per channel", "QDQ", True, 2),
        ("dynamic", "dynamic", None, 4),
    ],
)
def test_a_quantized_file_is_told_by_precision(
    kind: str, way: str, per_channel: bool | None, conversions: int, tmp_path: Path
) -> None:
    path = quantized(floats(tmp_path / "float.onnx"), kind)

    found, shown = document(path, "--device", "raspberry-pi-4"), run(path, "--device", "raspberry-pi-4")

    assert found["precisions"]["formats"] == [way]
    assert found["precisions"]["macs"] == {"int8": found["costs"]["macs"]["value"]}
    assert found["costs"]["integer_macs"]["value"] == found["costs"]["macs"]["value"]
    assert found["precisions"]["conversions"] == conversions
    layers = found["precisions"]["layers"]
    assert [layer["name"] for layer in layers][:3] == ["w0", "w1", "w2"]
    assert {layer["precision"] for layer in layers} == {"int8"}
    assert {layer["weight_type"] for layer in layers} <= {"int8", "uint8"}
    assert {layer["per_channel"] for layer in layers if layer["op_type"] in ("Conv", "QLinearConv")} <= {per_channel}
    assert "all in int8" in shown.stdout
    assert "4 of 4 layers are calculated in int8" in shown.stdout
    assert "the model is quantized" in found["reason"]


def test_a_quantized_file_of_free_size_is_counted_at_the_size_that_is_given(tmp_path: Path) -> None:
    path = quantized(floats(tmp_path / "float.onnx"), "pairs")
    proto = onnx.load(path)
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    del proto.graph.value_info[:]
    onnx.save(proto, path)

    small, large = (document(path, "--input-shape", f"3x{side}x{side}") for side in (32, 64))

    assert small["input"]["assumed"] is False
    assert large["precisions"]["macs"]["int8"] > 3.9 * small["precisions"]["macs"]["int8"]


def test_a_float_file_has_its_precision_too(model_path: Path) -> None:
    found = document(model_path)

    assert found["precisions"]["formats"] == []
    assert found["precisions"]["macs"] == {"fp32": found["costs"]["macs"]["value"]}
    assert "integer_macs" not in found["costs"]
