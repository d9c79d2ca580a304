"""What the fuzzer has found: each was a traceback, or an error of several lines."""

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import n2n_edge
from n2n_edge.data.loading import quiet
from n2n_edge.data.pictures import read_picture
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from n2n_edge.foreign import UnforeseenError
from n2n_edge.graph.bind import bound_names
from n2n_edge.graph.load import load_model
from n2n_edge.report.bench_history import read_bench
from n2n_edge.runs.document import read_report
from n2n_edge.runs.input_size import _kept
from n2n_edge.runs.settings_file import read_settings
from n2n_edge.tasks.choice import recorded_task
from tests.quantized import floats, quantized
from tests.report.sample import sample_document

DEEP = "[" * 100_000


@pytest.mark.parametrize("text", [f"max_mb = {DEEP}", '"a\\nb" = 1', "max_mb = 1\n\x00", "seed = 1" + "0" * 5000])
def test_a_run_toml_of_any_text_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"restore it|known: ") as caught:
        read_settings(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [f"height = {DEEP}", "height = inf\nwidth = 3", "height = [3]\nwidth = 3"])
def test_what_a_run_kept_of_its_size_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "input-size.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"start a new run|mend it"):
        _kept(path)


def test_a_report_that_lacks_what_its_readers_need_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for change in ({"student": {}}, {"search": {"candidates": [3.0]}}, {"budgets": [{}]}):
        path.write_text(json.dumps({**sample_document(30), **change}))
        with pytest.raises(InputError, match=r"a damaged report .*restore it"):
            read_report(path)


@pytest.mark.parametrize("part", ["batch", "path", "low", "environment"])
def test_a_bench_document_that_lacks_what_is_compared_is_refused(part: str, tmp_path: Path) -> None:
    path, document = tmp_path / "bench.json", json.loads(Path(__file__).with_name("bench.json").read_text())
    path.write_text(json.dumps(document))
    assert read_bench(path) == document
    row = document["models"][0]
    for holder in (document, row, row["p50_ms"]):
        if part in holder:
            holder[part] = [3]
    row.pop("batch", None) if part == "batch" else None
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"bench document .*bench --save"):
        read_bench(path)


@pytest.mark.parametrize("text", [DEEP, '[{}, "w0"]', "3", '{"w0": 1}'])
def test_metadata_of_any_json_are_passed_over(text: str, tmp_path: Path) -> None:
    proto = onnx.load(floats(tmp_path / "model.onnx"))
    proto.metadata_props.add(key="n2n_edge.bound", value=text)
    model = n2n_edge.Teacher.load(_saved(proto, tmp_path)).source
    assert bound_names(model) <= {"w0"}
    assert recorded_task({"n2n_edge.task": text}) in ({}, json.loads(text) if text[:1] == "{" else {})


def _saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "changed.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("input_shape", "weight"),
    [(["n", None, 8, 8], (2, 3, 3, 3)), (["n", 3, 8, 8], (2, 3, 3)), ([1, 4, 8, 8], (2, 3, 3, 3))],
)
def test_a_convolution_that_onnx_runtime_does_not_run_is_refused(
    input_shape: list[object], weight: tuple[int, ...], tmp_path: Path
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(weight, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(InputError, match=r"ONNX Runtime can't run the model|not a valid ONNX") as caught:
        n2n_edge.Teacher.load(_saved(model, tmp_path))
    assert not isinstance(caught.value, UnforeseenError)


def test_a_tensor_of_a_field_that_its_type_does_not_have_is_called_damaged(tmp_path: Path) -> None:
    proto = onnx.load(floats(tmp_path / "model.onnx"))
    weight = proto.graph.initializer[1]
    weight.ClearField("raw_data")
    weight.uint64_data.extend([1] * 16)
    with pytest.raises(InputError, match=r"is damaged|not a valid ONNX model") as caught:
        load_model(_saved(proto, tmp_path))
    assert not isinstance(caught.value, UnforeseenError)


def test_scales_along_an_axis_that_there_is_not_are_refused(tmp_path: Path) -> None:
    proto = onnx.load(quantized(floats(tmp_path / "model.onnx"), "pairs per channel"))
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "DequantizeLinear" and attribute.name == "axis":
                attribute.i = 7
    with pytest.raises(InputError) as caught:
        n2n_edge.dequantize(_saved(proto, tmp_path))
    assert not isinstance(caught.value, UnforeseenError)


def test_a_picture_at_which_pillow_stumbles_is_called_unreadable(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("P", (9, 8)).save(stream, "PNG", transparency=0)
    data = stream.getvalue()
    start, end = data.index(b"PLTE") - 4, data.index(b"tRNS") - 4
    (tmp_path / "a.png").write_bytes(data[:start] + data[end:])  # transparency of a palette that is gone
    with quiet(), pytest.raises(InputError, match="can't be read"):
        read_picture(tmp_path / "a.png", Preprocessing((8, 8), channels=3))


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    assert str(InputError("no key 'a\nb\u2028c\r' in ‹max_mb›")) == "no key 'a\\nb\\u2028c\\r' in max_mb"
