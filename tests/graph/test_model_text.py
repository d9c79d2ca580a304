"""Text in a model file that isn't UTF-8."""

from pathlib import Path

import onnx
import pytest
from onnx import helper

from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import file_figures, inferred_figures
from tests.graph.test_function_calls import calling, function
from tests.graph.test_hostile_files import KERNEL, conv, inferred_in, refused, saved


def _described(proto: onnx.ModelProto, field: str) -> None:
    if field in ("doc_string", "producer_name", "producer_version", "domain"):
        setattr(proto, field, "QQQQ")
    elif field in ("key", "value"):
        proto.metadata_props.add(**{"key": "k", "value": "v", field: "QQQQ"})
        proto.metadata_props.add(key="kept", value="yes")
    elif field == "graph's metadata":
        proto.graph.metadata_props.add(key="QQQQ", value="v")
    elif field == "graph's text":
        proto.graph.doc_string = "QQQQ"
    elif field == "node's text":
        proto.graph.node[0].doc_string = "QQQQ"
    elif field == "weight's text":
        proto.graph.initializer[0].doc_string = "QQQQ"
    else:
        proto.graph.input[0].type.denotation = "QQQQ"


DESCRIPTIONS = [
    "doc_string", "producer_name", "producer_version", "domain", "key", "value", "graph's metadata", "graph's text",
    "node's text", "weight's text", "type's denotation",
]  # fmt: skip


@pytest.mark.parametrize("field", DESCRIPTIONS)
def test_a_description_that_is_not_utf8_is_dropped(field: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", conv(), KERNEL)
    proto = onnx.load(str(path))
    _described(proto, field)
    path.write_bytes(proto.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xff\xfe"))

    assert Teacher.load(path).layers
    assert file_figures(path)["params"].value == inferred_figures(load_model(path), path)["params"].value == 108
    if field in ("key", "value"):
        assert dict(load_model(path).metadata_props) == {"kept": "yes"}


@pytest.mark.parametrize("place", ["function", "input", "output", "node", "opset", "axis"])
def test_names_that_are_not_utf8_wherever_they_are(place: str, tmp_path: Path) -> None:
    inner = [helper.make_node("Relu", ["p"], ["q"], name="QQQQ" if place == "node" else "")]
    called = function(inner)
    for holder in (called.input, called.output):
        if place == ("input" if holder is called.input else "output"):
            holder[0] = "QQQQ"
    if place in ("input", "output"):
        inner_node = called.node[0]
        (inner_node.input if place == "input" else inner_node.output)[0] = "QQQQ"
    path = calling(tmp_path / "model.onnx", called)
    proto = onnx.load(str(path))
    if place == "function":
        proto.functions[0].name = proto.graph.node[0].op_type = "QQQQ"
    elif place == "opset":
        proto.opset_import.add(domain="QQQQ", version=1)
    elif place == "axis":
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "QQQQ"
    path.write_bytes(proto.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xff\xfe"))

    for analyse in (Teacher.load, file_figures, inferred_in):
        assert "UTF-8" in refused(path, analyse)
