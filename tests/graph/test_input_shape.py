"""Free sizes of an input: at which they are counted, and that nobody compares figures of different ones unsaid."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.errors import InputError
from n2n_edge.graph.costs import costs
from n2n_edge.graph.input_shape import at_one_size, parse_input_shape, recorded_shape, with_input_shape
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import file_figures

FREE, FIXED = ["N", 3, "H", "W"], ["N", 3, 32, 32]


def network(shape: list[int | str], *, flattened: int | None = None) -> ir.Model:
    """A convolution and a classifier; `flattened` makes it one that fits a single size."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)), "v": rng.standard_normal((5, flattened or 4))}
    pool = helper.make_node("GlobalAveragePool", ["c"], ["p"])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        *([] if flattened else [pool]),
        helper.make_node("Flatten", ["c" if flattened else "p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1, name="fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_a_free_size_is_counted_at_the_given_one() -> None:
    assert costs(with_input_shape(network(FREE), (3, 32, 32))).macs == costs(network(FIXED)).macs


def test_beside_a_fixed_model_a_free_one_is_counted_at_its_size() -> None:
    sized = at_one_size([("student", network(FIXED)), ("teacher", network(FREE))])

    assert costs(sized.models[0]).macs == costs(sized.models[1]).macs
    assert sized.input_shape == (3, 32, 32)
    assert sized.notes == (
        "teacher: leaves the size of its input free; counted and timed at 3x32x32, like the other model",
    )


def test_alone_it_is_counted_at_224_and_that_is_said() -> None:
    sized = at_one_size([("teacher", network(FREE))])

    assert costs(sized.models[0]).macs == costs(network(["N", 3, 224, 224])).macs
    assert "at 3x224x224, give --input-shape for another size" in sized.notes[0]


def recording(size: int, shape: list[int | str] = FREE) -> ir.Model:
    model = network(shape)
    model.metadata_props["n2n_edge.preprocessing"] = json.dumps({"size": [size, size], "channels": 3})
    return model


def test_a_size_that_is_recorded_is_counted_everywhere(tmp_path: Path) -> None:
    expected = costs(network(FIXED)).macs
    sized = at_one_size([("student", recording(32)), ("other", network(FREE))])
    assert [costs(model).macs for model in sized.models] == [expected, expected]
    assert [note.split(" at ")[1] for note in sized.notes] == [
        "3x32x32, as its metadata record",
        "3x32x32, like the other model",
    ]
    assert costs(Teacher(recording(32)).model).macs == expected
    ir.save(recording(32), tmp_path / "student.onnx")
    assert file_figures(tmp_path / "student.onnx")["macs"].value == expected
    assert file_figures(tmp_path / "student.onnx", (3, 64, 64))["macs"].value > expected


def test_a_fixed_or_given_size_comes_before_a_recorded_one() -> None:
    sized = at_one_size([("student", recording(64)), ("teacher", network(FIXED))])
    assert sized.input_shape == (3, 32, 32)
    assert at_one_size([("student", recording(64))], (3, 32, 32)).input_shape == (3, 32, 32)


@pytest.mark.parametrize("text", ["{", "[]", '{"size": 3, "channels": 3}', '{"size": [8, 8], "channels": 1}', "7"])
def test_a_record_that_does_not_fit_says_nothing(text: str) -> None:
    model = network(FREE)
    model.metadata_props["n2n_edge.preprocessing"] = text
    assert recorded_shape(model) is None


def test_different_fixed_sizes_are_said() -> None:
    sized = at_one_size([("a", network(FIXED)), ("b", network(["N", 3, 64, 64]))])

    assert sized.notes == (
        "the models take inputs of different sizes (3x32x32, 3x64x64): each is counted and timed at its own",
    )


def test_what_was_asked_holds_for_all_or_is_refused() -> None:
    sized = at_one_size([("a", network(FREE)), ("b", network(FREE))], (3, 16, 16))
    assert costs(sized.models[0]).macs == costs(network(["N", 3, 16, 16])).macs
    assert sized.notes == ()

    with pytest.raises(InputError, match="input shape 3x16x16 doesn't fit the input 'x' of b, which is 3x32x32"):
        at_one_size([("a", network(FREE)), ("b", network(FIXED))], (3, 16, 16))


@pytest.mark.parametrize("asked", [None, (3, 20, 20)])
def test_a_size_at_which_the_network_cannot_run_is_refused(asked: tuple[int, ...] | None) -> None:
    with pytest.raises(InputError, match=r"net: can't run at 3x.*Gemm 'fc'.*give the input_shape that it is for"):
        at_one_size([("net", network(FREE, flattened=4 * 32 * 32))], asked)

    fitting = at_one_size([("net", network(FREE, flattened=4 * 32 * 32))], (3, 32, 32))
    assert fitting.input_shape == (3, 32, 32)


@pytest.mark.parametrize("text", ["", "x", "3x", "3x0x3", "-1x2x3", "3*4", "3x4.5x2", "٣x٣x٣", "9" * 30])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(InputError, match="not a shape"):
        parse_input_shape(text)


def test_a_shape() -> None:
    assert parse_input_shape(" 3x32,48 ") == (3, 32, 48)
