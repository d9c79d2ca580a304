"""The quantize command: what it writes, what it rejects, and what it refuses."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import n2n_edge
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.quantized import precision_table
from n2n_edge.metrics.figures import Figure
from n2n_edge.quantize import device_plan
from n2n_edge.runs import beside_twin, metadata, quantization
from n2n_edge.training import quantization_aware
from tests.runs.small import images_npz, teacher_file

Call = Callable[..., tuple[int, str, str]]

QUICK = ("--images", "16", "--max-time", "0.1", "--threads", "1", "--mean", "0,0,0", "--std", "1,1,1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return teacher_file(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return images_npz(tmp_path / "images.npz")


@pytest.fixture
def ratio(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give a function that sets what timing both files in turns would say."""

    def put(value: float) -> None:
        figure = Figure(value, "ratio", "measured", 0.95 * value, 1.05 * value, 8)
        monkeypatch.setattr(quantization, "timed_ratio", lambda before, after, settings: (figure, ()))

    put(0.5)
    return put


def run_file(path: Path, count: int = 2) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((count, 3, 12, 12), np.float32)
    return np.asarray(session.run(None, {"input": images})[0])


def test_a_file_and_its_report_are_written(model: Path, data: Path, ratio: object, call: Call) -> None:
    code, out, _ = call("quantize", model, "--data", data, *QUICK, "--max-drop", 20)
    assert code == 0
    written = model.with_name("model-int8.onnx")
    assert "all in int8" in out
    assert str(written) in out
    assert run_file(written).shape == (2, 4)
    document = json.loads(written.with_suffix(".json").read_text())
    assert document["accepted"]
    assert document["quantized"]["integer_macs"]["value"] == document["quantized"]["macs"]["value"]
    assert document["quantized"]["size_mb"]["value"] < document["float"]["size_mb"]["value"]
    assert set(document["calibration"]["losses"]) == {"minmax", "percentile", "entropy", "mse"}
    assert set(document["calibration"]["steps"]) == {"calibrated", "equalised", "corrected"}
    steps = document["calibration"]["steps"]
    assert min(document["calibration"]["losses"].values()) == min(steps["calibrated"], steps["equalised"])


def test_both_are_timed_in_turns(model: Path, data: Path, call: Call) -> None:
    code, out, _ = call("quantize", model, "--data", data, *QUICK, "--max-drop", 50, "--force", "--json")
    assert code == 0
    found = json.loads(out)["latency_ratio"]
    assert found["low"] <= found["value"] <= found["high"]
    assert found["n"] >= 1


def test_one_way_of_calibrating_in_json(model: Path, data: Path, ratio: object, call: Call, tmp_path: Path) -> None:
    words = ("--calibration", "percentile", "--max-drop", 50, "--json", "-o", tmp_path / "small.onnx")
    code, out, _ = call("quantize", model, "--data", data, *QUICK, *words)
    assert code == 0
    document = json.loads(out)
    assert document["out"] == str(tmp_path / "small.onnx")
    assert list(document["calibration"]["losses"]) == ["percentile"]
    assert document == json.loads((tmp_path / "small.json").read_text())
    schema = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "quantize.json"
    jsonschema.validate(document, json.loads(schema.read_text()))


def test_what_the_file_says_of_itself_is_carried_over(
    model: Path, data: Path, ratio: object, call: Call, tmp_path: Path
) -> None:
    loaded = onnx.load(model)
    onnx.helper.set_model_props(loaded, {"author": "somebody", "n2n_edge.metrics.figures": "{}"})
    onnx.save(loaded, model)
    assert call("quantize", model, "--data", data, *QUICK, "--max-drop", 50)[0] == 0
    found = {item.key: item.value for item in onnx.load(model.with_name("model-int8.onnx")).metadata_props}
    assert found["author"] == "somebody"
    assert json.loads(found["n2n_edge.task"])["task"] == "classification"
    assert json.loads(found["n2n_edge.preprocessing"])["size"] == [12, 12]
    assert "n2n_edge.metrics.figures" not in found


def test_layers_by_pattern_stay_float(model: Path, data: Path, ratio: object, call: Call) -> None:
    words = ("--keep-float", "conv0", "--keep-float", "f*", "--max-drop", 50, "--calibration", "minmax")
    assert call("quantize", model, "--data", data, *QUICK, *words)[0] == 0
    layers = precision_table(load_model(model.with_name("model-int8.onnx"))).layers
    assert [layer.precision for layer in layers] == ["fp32", "int8", "int8", "fp32"]


def test_the_last_layer_of_what_is_no_classifier_stays_float(
    tmp_path: Path, data: Path, ratio: object, call: Call
) -> None:
    model = teacher_file(tmp_path / "map.onnx", head="map")
    words = ("--task", "regression", "--max-drop", 50, "--calibration", "minmax")
    assert call("quantize", model, "--data", data, *QUICK, *words)[0] == 0
    layers = json.loads((tmp_path / "map-int8.json").read_text())["precisions"]["layers"]
    assert [layer["precision"] for layer in layers] == ["int8", "int8", "int8", "fp32"]


def test_layers_go_back_to_float_until_the_drop_holds(
    model: Path, data: Path, ratio: object, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from n2n_edge.quantize.ptq import Validation

    def drop(self: Validation, network: object) -> float:
        quantized = sum(layer.precision == "int8" for layer in precision_table(network).layers)  # type: ignore[arg-type]
        return 2.0 if quantized > 2 else 0.5

    monkeypatch.setattr(Validation, "drop", drop)
    monkeypatch.setattr(Validation, "drop_of", lambda self, outputs: 2.0)
    call("quantize", model, "--data", data, *QUICK, "--max-drop", 1, "--force", "--calibration", "minmax")
    document = json.loads(model.with_name("model-int8.json").read_text())
    assert sum(layer["precision"] == "fp32" for layer in document["precisions"]["layers"]) == 2
    assert len(document["plan"]["returned"]) == 2


def test_a_slower_file_is_rejected_and_nothing_written(
    model: Path, data: Path, ratio: Callable[[float], None], call: Call
) -> None:
    ratio(1.5)
    code, out, err = call("quantize", model, "--data", data, *QUICK, "--max-drop", 50, "--calibration", "minmax")
    assert code == 1
    assert "takes 1.50 times as long as the float model (1.42 to 1.58)" in err.splitlines()[-1]
    assert not list(model.parent.glob("model-int8*"))
    assert "1.5" in out
    forced = call("quantize", model, "--data", data, *QUICK, "--max-drop", 50, "--calibration", "minmax", "--force")
    assert forced[0] == 0
    assert "warning" in forced[2]
    document = json.loads(model.with_name("model-int8.json").read_text())
    assert document["reason_codes"] == ["slower"]
    assert not document["accepted"]


def test_a_file_that_loses_too_much_is_rejected(
    model: Path, data: Path, ratio: object, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Figure(7.0, "points", "measured", n=16)
    monkeypatch.setattr(quantization, "drop", lambda reached, before: lost)
    code, _, err = call("quantize", model, "--data", data, *QUICK, "--calibration", "minmax", "--max-drop", 5)
    assert code == 1
    assert "loses 7.00 points on the test images, more than the 5 allowed" in err


def test_another_device_decides_by_prediction(
    model: Path, data: Path, ratio: Callable[[float], None], call: Call
) -> None:
    ratio(3.0)
    words = ("--device", "raspberry-pi-4", "--max-drop", 50, "--calibration", "minmax", "--force", "--json")
    code, out, _ = call("quantize", model, "--data", data, *QUICK, *words)
    document = json.loads(out)
    assert code == 0
    assert document["plan"]["activations"] == "int8"
    assert "slower" not in document["reason_codes"]
    before, after = (document["predicted_latency_ms"][name]["value"] for name in ("float", "quantized"))
    assert document["accepted"] == (after < before)


TAUGHT = (*QUICK, "--calibration", "minmax", "--max-drop", 50)


def test_a_file_is_taught_by_its_float_model(
    model: Path, data: Path, ratio: object, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    # kernels that sum exactly leave training less to make up for
    left = 1.0 if device_plan.has_vnni() or not device_plan.is_x86() else 0.5
    monkeypatch.setattr(device_plan, "has_vnni", lambda: False)  # 7 bits everywhere: of 8 calibration loses nothing
    loaded = onnx.load(model)
    for kernel in loaded.graph.initializer:
        if kernel.name in ("conv1.weight", "conv2.weight"):
            weights = onnx.numpy_helper.to_array(kernel).copy()
            # outliers in half of each filter: what lies beside them is rounded coarsely
            weights[:, ::2, 0, 0] *= 60
            kernel.CopyFrom(onnx.numpy_helper.from_array(weights, kernel.name))
    onnx.save(loaded, model)
    code, out, err = call("quantize", model, "--data", data, *TAUGHT, "--epochs", 2, "--label-weight", 0)
    assert code == 0
    document = json.loads(model.with_name("model-int8.json").read_text())
    made, calibration = document["distillation"], document["calibration"]
    assert made["epochs"] == 2
    assert made["ships"]
    assert made["parity"]["max_relative_error"] <= 1 / 127
    assert made["loss"] == calibration["steps"]["distilled"] < left * calibration["steps"]["corrected"]
    assert made["drop"] == calibration["drops"]["distilled"] == calibration["validation_drop"]
    assert "epoch 2 of 2" in err
    assert "parity of torch and ONNX Runtime" in err
    assert f"epoch {made['best_epoch']} ships" in out
    assert "distilled " in out
    schema = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "quantize.json"
    jsonschema.validate(document, json.loads(schema.read_text()))


def test_what_training_does_not_better_ships_as_it_was_calibrated(
    tmp_path: Path, data: Path, ratio: object, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = teacher_file(tmp_path / "model.onnx", batch=1, flatten_to=[1, 24])
    monkeypatch.setattr(quantization_aware, "steady_rate", lambda *words, **named: 1e-12)
    assert call("quantize", model, "--data", data, *TAUGHT, "-o", tmp_path / "calibrated.onnx")[0] == 0
    code, out, _ = call("quantize", model, "--data", data, *TAUGHT, "-o", tmp_path / "taught.onnx", "--epochs", 1)
    assert code == 0
    assert "what was calibrated ships" in out
    assert not json.loads((tmp_path / "taught.json").read_text())["distillation"]["ships"]
    assert (tmp_path / "taught.onnx").read_bytes() == (tmp_path / "calibrated.onnx").read_bytes()


@pytest.mark.slow
def test_minutes_alone_and_images_without_labels(model: Path, tmp_path: Path, ratio: object, call: Call) -> None:
    images = images_npz(tmp_path / "unlabelled.npz", labels=False)
    code, out, _ = call("quantize", model, "--data", images, *TAUGHT, "--minutes", "0.01", "--force", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["task"]["metric"] == "fidelity"
    assert document["distillation"]["epochs"] >= 1
    assert "distilled" in document["calibration"]["steps"]


def test_a_file_that_is_not_what_was_trained_is_not_written(
    model: Path, data: Path, ratio: object, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(network: ir.Model, path: Path) -> None:
        weights = next(each for name, each in network.graph.initializers.items() if name.startswith("conv0.weight_q"))
        assert weights.const_value is not None
        weights.const_value = ir.tensor(weights.const_value.numpy() // 2, name=weights.name)
        save_model(network, path)

    monkeypatch.setattr(metadata, "save_model", save)
    code, _, err = call("quantize", model, "--data", data, *TAUGHT, "--epochs", 1, "--force")
    assert code == 3
    assert "n2n-edge: model-int8.onnx: ONNX Runtime and torch differ" in err.splitlines()[-1]
    assert not list(model.parent.glob("*int8*"))


def test_a_training_that_ends_before_its_end_leaves_nothing(model: Path, data: Path) -> None:
    before = set(model.parent.iterdir())

    def stop(text: str) -> None:
        if text.startswith("epoch 1 of 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        n2n_edge.quantize_model(
            model, data, images=16, calibration="minmax", max_drop=50, mean=(0, 0, 0), std=(1, 1, 1), epochs=3,
            on_message=stop,
        )  # fmt: skip
    assert set(model.parent.iterdir()) == before


def test_half_precision_keeps_float32_outside(model: Path, data: Path, ratio: object, call: Call) -> None:
    code, out, _ = call("quantize", model, "--data", data, *QUICK, "--precision", "fp16", "--max-drop", 50)
    assert code == 0
    assert "all in fp16" in out
    path = model.with_name("model-fp16.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [session.get_inputs()[0].type, session.get_outputs()[0].type] == ["tensor(float)"] * 2
    np.testing.assert_allclose(run_file(path), run_file(model), atol=0.02)


def test_undone_it_is_the_float_model_again(model: Path, data: Path, ratio: object, call: Call, tmp_path: Path) -> None:
    assert call("quantize", model, "--data", data, *QUICK, "--max-drop", 50)[0] == 0
    code, out, _ = call("quantize", "--undo", model.with_name("model-int8.onnx"), "-o", tmp_path / "back.onnx")
    assert code == 0
    assert "back.onnx" in out
    float32, undone = run_file(model), run_file(tmp_path / "back.onnx")
    assert np.abs(float32 - undone).max() < 0.1 * np.abs(float32).max()
    code, out, _ = call(
        "quantize", "--undo", model.with_name("model-int8.onnx"), "-o", tmp_path / "again.onnx", "--json"
    )
    schema = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "quantize-undo.json"
    jsonschema.validate(json.loads(out), json.loads(schema.read_text()))
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "back.onnx").read_bytes()


@pytest.mark.parametrize("flatten_to", [None, [1, 24]])
def test_a_fixed_batch_stays_fixed(
    tmp_path: Path, data: Path, ratio: object, call: Call, flatten_to: list[int] | None
) -> None:
    model = teacher_file(tmp_path / "one.onnx", batch=1, flatten_to=flatten_to)
    assert call("quantize", model, "--data", data, *QUICK, "--max-drop", 50, "--calibration", "minmax")[0] == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "one-int8.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 12, 12]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give --data"),
        (("--data", "images.npz", "--keep-float", "nothing*"), "--keep-float nothing*: no layer or node is called so"),
        (("--data", "images.npz", "--opset", "11"), "--opset 11: a scale per channel needs 13"),
        (("--data", "images.npz", "--precision", "int4"), "--precision int4: give one of int8, fp16"),
        (("--data", "images.npz", "--calibration", "best"), "--calibration best: give one of auto"),
        (("--data", "images.npz", "--images", "0"), "--images 0"),
        (("--data", "images.npz", "--max-drop", "-1"), "--max-drop -1"),
        (("--data", "images.npz", "--epochs", "0"), "--epochs 0: give 1 at least"),
        (("--data", "images.npz", "--minutes", "0"), "--minutes 0: must be a number above 0"),
        (("--data", "images.npz", "--epochs", "2", "--precision", "fp16"), "--epochs 2: only int8 is trained for"),
        (("--data", "images.npz", "--label-weight", "0.5"), "--label-weight 0.5: is for training; give --epochs"),
        (("--data", "images.npz", "--epochs", "2", "--label-weight", "2"), "--label-weight 2: give a number"),
        (("--data", "nowhere"), "nowhere"),
        (("--data", "images.npz", "--device", "no-board"), "no-board"),
        (("--data", "images.npz", "-o", "model.onnx"), "is a file that is read"),
        (("--data", "images.npz", "-o", "no/such/folder.onnx"), "its folder doesn't exist"),
        (("--data", "images.npz", "-o", "."), "can't be written"),
        (("--data", "images.npz", "-o", "small.json"), "is given twice, or is a file that is read"),
        (("--undo", "-o", "no/such/folder.onnx"), "its folder doesn't exist"),
        (("--undo", "--max-drop", "1"), "--undo takes nothing but --out and --json"),
        (("--undo",), "isn't quantized"),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    model: Path, data: Path, call: Call, words: tuple[str, ...], said: str
) -> None:
    code, out, err = call("quantize", "model.onnx", *words)
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("n2n-edge: ")
    assert not list(model.parent.glob("*int8*"))


def test_a_quantized_model_is_refused(model: Path, data: Path, ratio: object, call: Call) -> None:
    assert call("quantize", model, "--data", data, *QUICK, "--max-drop", 50, "--calibration", "minmax")[0] == 0
    code, _, err = call("quantize", "model-int8.onnx", "--data", data)
    assert code == 2
    assert "is quantized already" in err
    assert "--undo" in err


def test_sizes_that_are_free_are_timed_as_they_were_calibrated(
    tmp_path: Path, data: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = teacher_file(tmp_path / "free.onnx")
    loaded = onnx.load(model)
    for axis in (2, 3):
        loaded.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "size"
    onnx.save(loaded, model)
    timed: list[list[int]] = []

    def ratio(before: Path, after: Path, settings: object) -> tuple[Figure, tuple[()]]:
        for path in (before, after):
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            timed.append(session.get_inputs()[0].shape[1:])
        return Figure(0.5, "ratio", "measured", 0.4, 0.6, 8), ()

    monkeypatch.setattr(quantization, "timed_ratio", ratio)
    words = ("--input-shape", "3x12x12", "--max-drop", 50, "--calibration", "minmax")
    assert call("quantize", model, "--data", data, *QUICK, *words)[0] == 0
    assert timed == [[3, 12, 12], [3, 12, 12]]
    session = onnxruntime.InferenceSession(str(tmp_path / "free-int8.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[2:] == ["size", "size"]


def test_two_that_were_timed_for_too_short_a_while_have_no_ratio(
    model: Path, data: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unbounded(*given: Any, **options: Any) -> Any:
        compared = compare(*given, **options)
        comparisons = [None if each is None else replace(each, low=0.0, high=math.inf) for each in compared.comparisons]
        return replace(compared, comparisons=tuple(comparisons))

    compare = beside_twin.compare
    monkeypatch.setattr(beside_twin, "compare", unbounded)
    code, out, err = call("quantize", model, "--data", data, *QUICK, "--max-drop", 50, "--calibration", "minmax")
    assert code == 0, err
    assert "give a longer --max-time" in out
    document = json.loads(model.with_name("model-int8.json").read_text())
    assert "latency_ratio" not in document
    assert "not-timed" in document["warning_codes"]


def test_without_a_layer_in_int8_it_is_rejected(model: Path, data: Path, ratio: object, call: Call) -> None:
    code, _, err = call("quantize", model, "--data", data, *QUICK, "--calibration", "minmax", "--keep-float", "*")
    assert code == 1
    assert "has no layer in int8" in err


def test_outputs_that_are_not_finite_are_told(tmp_path: Path, ratio: object, call: Call) -> None:
    images_npz(tmp_path / "unlabelled.npz", labels=False)
    model = teacher_file(tmp_path / "infinite.onnx")
    loaded = onnx.load(model)
    output = loaded.graph.output[0].name
    last = next(node for node in loaded.graph.node if output in node.output)
    last.output[list(last.output).index(output)] = "finite"
    loaded.graph.node.append(onnx.helper.make_node("Log", ["finite"], ["log"]))
    loaded.graph.node.append(onnx.helper.make_node("Sqrt", ["log"], [output]))
    onnx.save(loaded, model)
    code, _, err = call("quantize", model, "--data", tmp_path / "unlabelled.npz", *QUICK, "--task", "regression")
    assert code == 2, err
    assert "isn't finite" in err.splitlines()[-1]


def test_errors_name_the_file_that_was_given_and_not_its_bound_copy(tmp_path: Path, data: Path, call: Call) -> None:
    """256 elements are no rows of 7, which only a run tells."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3, 12, 12] input, float scale) => (float[N, M, 7] y) {
            rows = Constant<value_ints=[1, -1, 7]>()
            y0 = Conv<kernel_shape=[5, 5]>(input, w)
            y1 = Mul(y0, scale)
            y = Reshape(y1, rows)
        }"""
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 3, 5, 5), np.float32), "w"))
    model = tmp_path / "two_inputs.onnx"
    onnx.save(proto, model)
    code, _, err = call("quantize", model, "--data", data, "--bind", "scale=1.0", *QUICK)
    assert code == 2
    assert str(model) in err
    assert "bound" not in err
