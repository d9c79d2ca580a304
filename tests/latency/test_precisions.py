"""Predictions of quantized and half-precision files: each kernel by the rates of what it calculates in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import load_model
from n2n_edge.latency.estimate import Estimate
from n2n_edge.latency.model import LatencyModel
from n2n_edge.metrics.notices import codes_of
from tests.latency.made_up import board, calibration, net_model, rates
from tests.quantized import KINDS, STATIC, floats, quantized

BOTH = board(calibration(rates=rates(1000.0)), calibration(precisions=("int8",), rates=rates(1.0), models=7))
"""A board on which int8 is a thousand times faster."""


def estimate(path: Path, device: str | Profile = "raspberry-pi-4") -> Estimate:
    profile = load_profile(device) if isinstance(device, str) else device
    return LatencyModel(profile).estimate(load_model(path))


def pairs(
    middle: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], *, zero: int = 0, kind: type = np.uint8
) -> ir.Model:
    """x, quantized and dequantized, goes into `middle` as "a"; what that gives, "b", is quantized and dequantized."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["qx"], name="q0"),
        helper.make_node("DequantizeLinear", ["qx", "s", "z"], ["a"], name="d0"),
        *middle,
        helper.make_node("QuantizeLinear", ["b", "s", "z"], ["qb"], name="q1"),
        helper.make_node("DequantizeLinear", ["qb", "s", "z"], ["y"], name="d1"),
    ]
    constants = {"s": np.array(0.1, np.float32), "z": np.array(zero, kind), **weights}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def conv(source: str, output: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("DequantizeLinear", ["w", "s", "zw"], ["dw"], name="dw"),
        helper.make_node("Conv", [source, "dw"], [output], name="conv", pads=[1, 1, 1, 1]),
    ]


WEIGHTS = {"w": np.ones((8, 8, 3, 3), np.int8), "zw": np.array(0, np.int8)}


def precisions(model: ir.Model, profile: Profile = BOTH) -> dict[str, tuple[str, str]]:
    """Kernel and precision of every node by its name."""
    return {node.name: (node.kernel, node.precision) for node in LatencyModel(profile).estimate(model).nodes}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_file_is_told_by_the_boards_int8_rows(kind: str, tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")
    before, after = estimate(source), estimate(quantized(source, kind))

    by_precision = {share.precision: share for share in after.shares}
    assert list(by_precision) == ["int8", "fp32"]
    assert by_precision["int8"].macs == costs(load_model(source)).macs
    assert by_precision["int8"].basis.evidence.precisions == ("int8",)
    assert by_precision["fp32"].macs == 0
    assert by_precision["fp32"].basis.evidence == before.basis.evidence
    assert after.figure.provenance == "calibrated"
    assert after.figure.value == pytest.approx(sum(share.figure.value for share in after.shares))
    assert after.figure.low == pytest.approx(sum(share.figure.low or 0 for share in after.shares))
    assert "quantized" not in codes_of(after.warnings)
    assert {"w0", "w1", "w2"} <= set(after.by_layer())


def test_both_static_formats_are_predicted_alike(tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")

    values = [estimate(quantized(source, kind)).figure.value for kind in STATIC]

    assert values == pytest.approx([values[0]] * len(STATIC), rel=1e-3)


@pytest.mark.parametrize("device", ["jetson-nano", "jetson-orin-nano"])
def test_where_no_int8_was_timed_float_rows_tell_it_with_a_wider_interval(device: str, tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")
    before, after = estimate(source, device), estimate(quantized(source, "pairs"), device)

    assert "quantized" in codes_of(after.warnings)
    assert after.figure.provenance == "analytic"
    share = after.shares[0]
    assert share.precision == "int8"
    assert share.basis.rates == before.basis.rates
    assert share.basis.low_ratio < before.basis.low_ratio
    assert share.basis.high_ratio > before.basis.high_ratio


def test_bytes_of_integers_count_as_those_of_as_many_floats() -> None:
    only_bytes = {**dict.fromkeys(rates(), 1e-12), "byte_dense": 1.0}
    profile = board(calibration(rates=only_bytes), calibration(precisions=("int8",), rates=only_bytes))

    found = precisions(model := pairs(conv("a", "b"), WEIGHTS))
    share = LatencyModel(profile).estimate(model).shares[0]

    assert found["conv"] == ("conv_3x3", "int8")
    assert share.figure.value * 1e6 == pytest.approx(2 * 4 * 8 * 16 * 16)


def test_conversions_within_integers_cost_nothing_and_those_at_the_borders_do() -> None:
    found = precisions(pairs(conv("a", "b"), WEIGHTS))

    assert found == {
        "q0": ("elementwise", "fp32"),
        "d0": ("fused", "int8"),
        "dw": ("free", "int8"),
        "conv": ("conv_3x3", "int8"),
        "q1": ("fused", "int8"),
        "d1": ("elementwise", "fp32"),
    }


def test_a_float_island_is_calculated_in_float_and_its_conversions_cost() -> None:
    middle = [*conv("a", "c"), helper.make_node("HardSwish", ["c"], ["b"], name="act")]

    found = precisions(pairs(middle, WEIGHTS))

    assert found["conv"] == ("conv_3x3", "fp32")
    assert found["act"][1] == "fp32"
    assert found["d0"] == found["q1"] == ("elementwise", "fp32")
    assert costs(pairs(middle, WEIGHTS)).integer_macs == 0


@pytest.mark.parametrize(
    ("activation", "zero", "kind", "vanishes"),
    [
        ("Relu", 0, np.uint8, True),
        ("Relu", -128, np.int8, True),
        ("Relu", 0, np.int8, False),
        ("Relu", 10, np.uint8, False),
        ("Clip", 0, np.uint8, False),
    ],
)
def test_an_activation_vanishes_where_quantizing_cuts_off_as_much(
    activation: str, zero: int, kind: type, *, vanishes: bool
) -> None:
    limits = {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}  # the range of uint8 goes to 25.5
    inputs = ["c", "low", "high"] if activation == "Clip" else ["c"]
    middle = [*conv("a", "c"), helper.make_node(activation, inputs, ["b"], name="act")]

    found = precisions(pairs(middle, WEIGHTS | (limits if activation == "Clip" else {}), zero=zero, kind=kind))

    assert found["act"][0] == "fused"
    assert {found["conv"][1], found["act"][1], found["q1"][1]} == {"int8" if vanishes else "fp32"}


def test_relu6_vanishes_where_the_range_ends_at_six() -> None:
    limits = {"low": np.array(0, np.float32), "high": np.array(6, np.float32), "s": np.array(6 / 255, np.float32)}
    middle = [*conv("a", "c"), helper.make_node("Clip", ["c", "low", "high"], ["b"], name="act")]

    assert precisions(pairs(middle, WEIGHTS | limits))["conv"] == ("conv_3x3", "int8")


@pytest.mark.parametrize("op", ["MaxPool", "Transpose", "Sigmoid", "Relu", "HardSigmoid"])
def test_only_what_the_runtime_has_kernels_for_is_calculated_in_integers(op: str) -> None:
    attributes = {"kernel_shape": [1, 1]} if op == "MaxPool" else {}

    found = precisions(pairs([helper.make_node(op, ["a"], ["b"], name="op", **attributes)], {}))

    assert found["op"][1] == ("int8" if op in ("MaxPool", "Transpose", "Sigmoid") else "fp32")


def test_weights_alone_in_few_bits_are_multiplied_in_float() -> None:
    model = pairs([helper.make_node("Identity", ["a"], ["b"])], {})
    graph = model.graph
    source = graph.inputs[0]
    tensor = ir.tensor(np.ones((8, 8, 3, 3), np.int8))
    weight = ir.Value(name="w", shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(weight)
    scaled = ir.node("DequantizeLinear", [weight, graph.initializers["s"]])
    product = ir.node("Conv", [source, scaled.outputs[0]], {"pads": [1, 1, 1, 1]}, name="product")
    graph.extend([scaled, product])
    graph.outputs.append(product.outputs[0])
    product.outputs[0].name, scaled.outputs[0].name = "second", "scaled"

    assert precisions(model)["product"] == ("conv_3x3", "fp32")


def test_a_half_precision_file_is_told_by_rows_of_fp16_and_its_casts_cost() -> None:
    half = as_half(net_model())
    timed = board(
        calibration(rates=rates(8.0)), calibration(precisions=("fp16",), rates=rates(2.0)), peak_fp16_gflops=96.0
    )

    whole, found = (LatencyModel(timed).estimate(model) for model in (net_model(), half))

    by_precision = {share.precision: share for share in found.shares}
    assert by_precision["fp16"].figure.value == pytest.approx(whole.figure.value / 4)
    assert by_precision["fp16"].macs == costs(net_model()).macs
    assert by_precision["fp32"].macs == 0
    assert {node.op_type for node in found.nodes if node.precision == "fp32"} == {"Cast"}
    assert by_precision["fp32"].figure.value > 0


def test_a_cpu_without_arithmetic_in_float16_calculates_in_float32() -> None:
    profile = board(calibration(rates=rates(8.0)))

    whole, found = (LatencyModel(profile).estimate(model) for model in (net_model(), as_half(net_model())))

    assert [share.precision for share in found.shares] == ["fp32"]
    casts = sum(node.latency_ms for node in found.nodes if node.op_type == "Cast")
    assert found.figure.value - casts == pytest.approx(whole.figure.value)


def as_half(model: ir.Model) -> ir.Model:
    """The model with float16 weights and arithmetic between casts of its input and output."""
    proto = ir.to_proto(model)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    (given,), (told,) = proto.graph.input, proto.graph.output
    for node in proto.graph.node:
        node.input[:] = ["half_in" if name == given.name else name for name in node.input]
        node.output[:] = ["half_out" if name == told.name else name for name in node.output]
    proto.graph.node.insert(0, helper.make_node("Cast", [given.name], ["half_in"], name="in", to=TensorProto.FLOAT16))
    proto.graph.node.append(helper.make_node("Cast", ["half_out"], [told.name], name="out", to=TensorProto.FLOAT))
    del proto.graph.value_info[:]
    return ir.from_proto(proto)
