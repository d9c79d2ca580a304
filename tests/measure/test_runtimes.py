"""Models under other runtimes than ONNX Runtime: conversion, parity, timing in turns."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from n2n_edge.cli.app import app
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.measure import runtimes
from n2n_edge.measure.bench import bench
from n2n_edge.measure.conversion import converted, proven, reference
from n2n_edge.measure.for_ncnn import rewrite_steps
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.runtimes import RUNTIMES, ConversionError, Runtime, parse_runtimes
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.report.bench_history import changes_since
from tests.measure.small_models import write_conv_model

QUICK = BenchOptions(threads=1, min_time_s=0.02, max_time_s=0.2)
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/bench.json").read_text(encoding="utf-8"))

each_runtime = pytest.mark.parametrize("runtime", sorted(RUNTIMES))


def installed(*names: str) -> None:
    for name in names:
        for module in RUNTIMES[name].modules:
            if module != "pnnx":  # importing it imports torch
                pytest.importorskip(module, reason=f"{module} isn't installed")


def benched(*words: str) -> tuple[int, dict[str, Any], str]:
    quick = ("--min-time", "0.02", "--max-time", "0.2", "--threads", "1", "--json")
    done = CliRunner().invoke(app, ["bench", *words, *quick])
    return done.exit_code, json.loads(done.stdout) if done.stdout else {}, done.stderr


@each_runtime
def test_a_model_is_timed_under_a_runtime_that_gives_the_same(tmp_path: Path, runtime: str) -> None:
    installed(runtime)
    path = write_conv_model(tmp_path / "model.onnx")

    with reference(path, QUICK) as made:
        found = converted(made, runtime)
        measurement = bench(found, QUICK).measurement

    assert found.parity.difference < 1e-4
    assert (found.parity.samples, found.parity.inputs) == (4, "random")
    assert measurement.runtime.startswith(f"{runtime} ")
    assert measurement.threads == 1
    assert measurement.n >= 1
    assert sorted(tmp_path.iterdir()) == [path]


def test_bench_times_one_model_under_several_runtimes_in_turns(tmp_path: Path) -> None:
    installed("ncnn", "openvino")
    path = write_conv_model(tmp_path / "model.onnx")

    code, document, _ = benched(str(path), "--runtime", "onnxruntime", "--runtime", "ncnn,openvino")

    assert code == 0
    jsonschema.validate(document, SCHEMA)
    assert [row["runtime"].split()[0] for row in document["models"]] == ["onnxruntime", "ncnn", "openvino"]
    assert ["parity" in row for row in document["models"]] == [False, True, True]
    assert ["against_first" in row for row in document["models"]] == [False, True, True]
    changes = changes_since(document, document)  # type: ignore[arg-type]
    assert [change.name for change in changes] == [
        "model.onnx (onnxruntime)", "model.onnx (ncnn)", "model.onnx (openvino)",
    ]  # fmt: skip
    assert all(change.before_ms == change.after_ms for change in changes)


def test_what_cannot_be_converted_is_told_in_one_line_and_not_timed(tmp_path: Path) -> None:
    installed("ncnn")
    path = write_conv_model(tmp_path / "model.onnx")

    code, document, errors = benched(str(path), "--runtime", "onnxruntime,ncnn", "--batch", "2")

    assert code == 1
    jsonschema.validate(document, SCHEMA)
    timed, failed = document["models"]
    assert timed["runtime"].startswith("onnxruntime ")
    assert set(failed) == {"path", "runtime", "error"}
    (line,) = [line for line in errors.splitlines() if "can't be converted" in line]
    assert line.endswith("(ncnn): it can't be converted for ncnn: a batch of 2, ncnn takes one image")


def test_what_differs_is_never_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_other(model: Path, folder: Path, inputs: object) -> None:
        (folder / "model.onnx").write_bytes(changed(model, folder / "model.onnx", 1.01).read_bytes())

    # a runtime that needs no package, and whose converter changes a weight
    other = Runtime("openvino", (), (".onnx",), write_other)
    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", other)
    monkeypatch.setattr("n2n_edge.measure.conversion.converted", _under_onnxruntime)
    monkeypatch.setattr("n2n_edge.measure.suite.converted", _under_onnxruntime)
    path = write_conv_model(tmp_path / "model.onnx")

    code, document, errors = benched(str(path), "--runtime", "onnxruntime,openvino")

    assert code == 1
    assert [("p50_ms" in row, "error" in row) for row in document["models"]] == [(True, False), (False, True)]
    assert "what it was converted to differs" in errors
    assert "it isn't used" in errors


def _under_onnxruntime(made: Any, runtime: str) -> Any:
    folder = made.folder / runtime
    folder.mkdir()
    return proven(made, ONNXRUNTIME, runtimes.convert(made.source, runtime, folder, ()))


def changed(model: Path, to: Path, factor: float) -> Path:
    proto = onnx.load(model)
    weight = proto.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    onnx.save(proto, to)
    return to


@pytest.mark.parametrize(("factor", "same"), [(1.0, True), (1.01, False), (float("nan"), False)])
def test_parity_is_of_outputs(tmp_path: Path, factor: float, same: bool) -> None:
    path = write_conv_model(tmp_path / "model.onnx")
    other = changed(path, tmp_path / "other.onnx", factor)

    with reference(path, QUICK) as made:
        if same:
            assert proven(made, ONNXRUNTIME, (other,)).parity.difference == 0
        else:
            with pytest.raises(ConversionError, match="differs"):
                proven(made, ONNXRUNTIME, (other,))


def test_another_shape_is_another_output(tmp_path: Path) -> None:
    path, other = write_conv_model(tmp_path / "a.onnx"), write_conv_model(tmp_path / "b.onnx", width=4)

    with reference(path, QUICK) as made, pytest.raises(ConversionError, match=r"output 0 in shape \(1, 4, 16, 16\)"):
        proven(made, ONNXRUNTIME, (other,))


def test_real_inputs_are_what_parity_is_proven_on(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx", size=224)
    given = tmp_path / "inputs.npz"
    np.savez(given, in0=np.ones((2, 1, 3, 224, 224), np.float32))

    with reference(path, QUICK, given) as made:
        parity = proven(made, ONNXRUNTIME, (path,)).parity
        with np.load(made.samples) as samples:
            assert np.all(samples["in0"] == 1)

    assert (parity.samples, parity.inputs) == (2, "real")


def test_a_runtime_that_is_not_there_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Runtime("ncnn", ("no_such_package",), (".param",), lambda model, folder, inputs: None)
    monkeypatch.setitem(runtimes.RUNTIMES, "ncnn", absent)

    with pytest.raises(UnsuitableEnvironmentError, match=r"pip install 'n2n-edge\[ncnn\]'"):
        parse_runtimes(["ncnn"])


@pytest.mark.parametrize(
    ("name", "words"),
    [("tvm", "no such runtime; give onnxruntime, ncnn, openvino"), ("litert", "there is no converter from ONNX")],
)
def test_an_unknown_runtime_is_bad_input(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_runtimes([name])


def test_providers_belong_to_onnx_runtime(tmp_path: Path) -> None:
    installed("openvino")
    path = write_conv_model(tmp_path / "model.onnx")

    done = CliRunner().invoke(app, ["bench", str(path), "--runtime", "openvino", "--providers", "cpu"])

    assert isinstance(done.exception, InputError)


def write_stepping(path: Path) -> Path:
    """Write what a Focus does with pixels: every other one, from the first and from the second on."""

    def constant(name: str, *values: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    weights = [constant("zero", 0), constant("one", 1), constant("end", 2**31 - 1), constant("two", 2)]
    weights += [constant("height", 2), constant("width", 3)]
    nodes = [
        onnx.helper.make_node("Slice", ["x", "zero", "end", "height", "two"], ["rows"], name="rows"),
        onnx.helper.make_node("Slice", ["rows", "one", "end", "width", "two"], ["even"], name="even"),
        onnx.helper.make_node("Slice", ["rows", "zero", "end", "width", "two"], ["odd"], name="odd"),
        onnx.helper.make_node("MaxPool", ["odd"], ["pooled"], kernel_shape=[1, 2], strides=[1, 1]),
        onnx.helper.make_node("Concat", ["even", "pooled"], ["y"], axis=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "focus",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 9, 11])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 6, 5, 5])],
        weights,
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_slice_with_steps_is_the_same_as_a_pooling_which_ncnn_has(tmp_path: Path) -> None:
    path = write_stepping(tmp_path / "focus.onnx")
    rewritten = tmp_path / "rewritten.onnx"
    rewritten.write_bytes(path.read_bytes())

    assert rewrite_steps(rewritten)
    assert not rewrite_steps(rewritten)

    image = np.random.default_rng(0).standard_normal((1, 3, 9, 11)).astype(np.float32)
    before, after = (ort.InferenceSession(each).run(None, {"x": image})[0] for each in (path, rewritten))
    np.testing.assert_array_equal(before, after)
    installed("ncnn")
    with reference(path, QUICK) as made:
        assert converted(made, "ncnn").parity.difference == 0
