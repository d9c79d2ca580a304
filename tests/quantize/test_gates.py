"""Gates, x times Sigmoid(x), whose channels differ by far: equalised, the function stays as it is."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given

from n2n_edge.graph.normalise import normalise
from n2n_edge.quantize.gates import equalised_gates, find_gates
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import folded
from n2n_edge.quantize.sensitivity import output_error
from tests.graph.running import Arrays, assert_same_outputs, inputs_of, run
from tests.quantize.pairs import paired
from tests.strategies import GRAPH_SETTINGS, cnn_models

CHANNELS = 8


def stem(spread: float, opener: str = "Sigmoid", more: str = "") -> ir.Model:
    """A convolution of pixels in 0..255 whose channels' ranges are spread, gated, with a depthwise one behind it."""
    rng = np.random.default_rng(0)
    scales = np.geomspace(spread, 1 / spread, CHANNELS)
    first = rng.normal(0, 0.02, (CHANNELS, 3, 3, 3)) * scales[:, None, None, None]
    depthwise = rng.normal(0, 0.3, (CHANNELS, 1, 3, 3)) / scales[:, None, None, None]
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3, 12, 12] x) => (float[N, 4, M, L] y) {{
            a = Conv<pads=[1, 1, 1, 1]>(x, w1)
            s = {opener}(a)
            b = Mul(a, s)
            {more}
            c = Conv<group={CHANNELS}>(b, w2)
            d = Relu(c)
            y = Conv(d, w3)
        }}"""
    )
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    weights = {"w1": first, "w2": depthwise, "w3": rng.normal(0, 0.3, (4, CHANNELS, 1, 1))}
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    if more:
        proto.graph.output.append(onnx.helper.make_tensor_value_info("e", onnx.TensorProto.FLOAT, ["N", 8, 12, 12]))
    return normalise(ir.from_proto(proto))


@pytest.fixture
def images() -> Arrays:
    return {"x": np.random.default_rng(1).integers(0, 256, (16, 3, 12, 12)).astype(np.float32)}


def error(model: ir.Model, images: Arrays, expected: list[np.ndarray], *float_nodes: str) -> float:
    shipped = folded(paired(model, images, QuantizationPlan(frozenset(float_nodes))))
    outputs = run(shipped, images)
    return output_error(expected, outputs)


@pytest.mark.parametrize("opener", ["Sigmoid", "HardSigmoid"])
def test_a_stem_of_uneven_channels_loses_a_small_part_of_what_it_lost(opener: str, images: Arrays) -> None:
    model = stem(30.0, opener)
    expected = run(model, images)
    even = equalised_gates(model, [images])
    assert len(even.float_nodes) == 2
    assert {"a", "b"} <= even.changed
    assert_same_outputs(expected, run(even.model, images, optimised=False), relative=1e-4)
    assert error(even.model, images, expected, *even.float_nodes) < 0.1 * error(model, images, expected)


def test_even_gates_stay_as_they_are(images: Arrays) -> None:
    even = equalised_gates(stem(1.0), [images])
    assert not even.float_nodes
    assert not even.changed
    assert [node.op_type for node in even.model.graph] == ["Conv", "Sigmoid", "Mul", "Conv", "Relu", "Conv"]


def test_a_sigmoid_that_is_read_by_others_too_is_no_gate(images: Arrays) -> None:
    model = stem(30.0, more="e = Neg(s)")
    assert not find_gates(model)
    assert not equalised_gates(model, [images]).float_nodes


@GRAPH_SETTINGS
@given(cnn_models())
def test_the_function_stays_whatever_the_graph(source: ir.Model) -> None:
    model = normalise(source)
    images = inputs_of(model, 3)
    expected = run(model, images, optimised=False)
    even = equalised_gates(model, [images]).model
    assert_same_outputs(expected, run(even, images, optimised=False), relative=1e-4)
