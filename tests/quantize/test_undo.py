"""Quantization undone: the float model that a quantized one was made from."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge import dequantize
from n2n_edge.errors import InputError
from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher
from tests.quantized import KINDS, STATIC, floats, quantized

SHAPE = (1, 8, 6, 6)
WEIGHTS = {"w": np.arange(-288, 288, dtype=np.int32).reshape(8, 8, 3, 3).astype(np.int8), "zw": np.array(0, np.int8)}


def run(model: ir.Model | Path, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = str(model) if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image})
    return np.asarray(output)


def images(count: int = 8) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.random((1, 3, 32, 32), np.float32) for _ in range(count)]


def graph(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray], *, given: int = TensorProto.FLOAT,
    told: int = TensorProto.FLOAT,
) -> ir.Model:  # fmt: skip
    scales = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", given, SHAPE)],
        [helper.make_tensor_value_info("y", told, None)],
        [numpy_helper.from_array(array, name) for name, array in (scales | constants).items()],
    )
    return ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def pairs(*middle: onnx.NodeProto, **constants: np.ndarray) -> ir.Model:
    """`middle` makes "b" of "a" between pairs of one scale."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["qx"]),
        helper.make_node("DequantizeLinear", ["qx", "s", "z"], ["a"]),
        *middle,
        helper.make_node("QuantizeLinear", ["b", "s", "z"], ["qb"]),
        helper.make_node("DequantizeLinear", ["qb", "s", "z"], ["y"]),
    ]
    return graph(nodes, constants)


def conv(output: str = "b", scale: str = "sw") -> list[onnx.NodeProto]:
    return [
        helper.make_node("DequantizeLinear", ["w", scale, "zw"], ["dw"], axis=0),
        helper.make_node("Conv", ["a", "dw"], [output], pads=[1, 1, 1, 1]),
    ]


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("kind", KINDS)
def test_the_float_model_computes_what_the_quantized_one_does_but_for_rounding(kind: str, tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")
    path = quantized(source, kind)

    undone = dequantize(path)

    onnx.checker.check_model(ir.to_proto(undone))
    before, after = ([run(model, image) for image in images()] for model in (path, undone))
    spread = np.ptp(before)
    assert np.abs(np.subtract(before, after)).max() < 0.03 * spread
    assert costs(undone).macs == costs(load_model(source)).macs
    assert costs(undone).params == costs(load_model(source)).params
    assert costs(undone).integer_macs == 0
    assert [value.name for value in undone.graph.outputs] == ["y"]


@pytest.mark.parametrize("kind", STATIC)
def test_the_operators_are_those_of_the_float_model(kind: str, tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")

    undone = dequantize(quantized(source, kind))

    assert Counter(operators(undone)) == Counter(operators(load_model(source)))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_teacher(kind: str, tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")

    found, float_one = Teacher(dequantize(quantized(source, kind))), Teacher.load(source)

    assert [layer.removable for layer in found.layers] == [layer.removable for layer in float_one.layers]
    assert [layer.name for layer in found.layers][:3] == ["w0", "w1", "w2"]
    assert [group.width for group in found.groups] == [group.width for group in float_one.groups]


def test_weights_are_those_that_the_quantized_model_calculates_with() -> None:
    scales = np.linspace(0.01, 0.08, 8, dtype=np.float32)

    undone = dequantize(pairs(*conv(), sw=scales, **(WEIGHTS | {"zw": np.zeros(8, np.int8)})))

    weight = undone.graph.initializers["w"].const_value
    assert weight is not None
    expected = WEIGHTS["w"].astype(np.float32) * scales[:, None, None, None]
    np.testing.assert_array_equal(weight.numpy(), expected)


def test_weights_that_the_graph_quantizes_itself_keep_their_rounding() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 8, 3, 3)).astype(np.float32)
    steps = [helper.make_node("QuantizeLinear", ["float_w", "sw", "zw"], ["w"]), *conv()]
    model = pairs(*steps, sw=np.array(0.02, np.float32), zw=np.array(0, np.int8), float_w=weight)

    undone = dequantize(model)

    (kept,) = (node.inputs[1] for node in undone.graph if node.op_type == "Conv")
    assert kept is not None
    assert kept.const_value is not None
    expected = np.clip(np.rint(weight / np.float32(0.02)), -128, 127) * np.float32(0.02)
    np.testing.assert_allclose(kept.const_value.numpy(), expected, atol=1e-6)


def test_scales_of_blocks_and_weights_of_four_bits() -> None:
    packed = helper.make_tensor("w", TensorProto.INT4, [16, 4], np.arange(64) % 16 - 8)
    scales = np.array([[0.1] * 4, [0.2] * 4], np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "sw"], ["dw"], axis=0, block_size=8),
        helper.make_node("MatMul", ["x", "dw"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [packed, numpy_helper.from_array(scales, "sw")],
    )
    model = ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    image = np.random.default_rng(0).normal(size=(1, 16)).astype(np.float32)

    np.testing.assert_allclose(run(dequantize(model), image), run(model, image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("zero", "top", "expected"),
    [(0, 25.5, ["Conv", "Relu"]), (0, 6.0, ["Conv", "Clip"]), (128, 25.5, ["Conv"])],
    ids=["Relu", "Relu6", "none"],
)
def test_an_activation_that_quantizing_did_is_put_back(zero: int, top: float, expected: list[str]) -> None:
    step = {"s": np.array(top / 255, np.float32), "z": np.array(zero, np.uint8)}
    model = pairs(*conv(), sw=np.array(0.01, np.float32), **WEIGHTS, **step)

    undone = dequantize(model)

    assert operators(undone) == expected
    image = np.random.default_rng(0).uniform(0, 0.2, SHAPE).astype(np.float32)
    if zero == 0:
        assert run(undone, image).min() == 0
        assert run(model, image).min() == 0


def test_an_activation_that_is_there_is_not_put_back_twice() -> None:
    pool = helper.make_node("MaxPool", ["r"], ["b"], kernel_shape=[2, 2])
    model = pairs(*conv("c"), helper.make_node("Relu", ["c"], ["r"]), pool, sw=np.array(0.01, np.float32), **WEIGHTS)

    assert operators(dequantize(model)) == ["Conv", "Relu", "MaxPool"]


def test_integers_that_are_only_moved_become_floats() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["qx"]),
        helper.make_node("MaxPool", ["qx"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("Transpose", ["p"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("DequantizeLinear", ["t", "s", "z"], ["y"]),
    ]
    model = graph(nodes, {})
    image = np.random.default_rng(0).uniform(0, 20, SHAPE).astype(np.float32)

    undone = dequantize(model)

    assert operators(undone) == ["MaxPool", "Transpose"]
    np.testing.assert_allclose(run(undone, image), run(model, image), atol=0.051)


def test_an_input_of_bytes_stays_one() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    model = graph(nodes, {"z": np.array(3, np.uint8)}, given=TensorProto.UINT8)
    image = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)

    np.testing.assert_array_equal(run(dequantize(model), image), run(model, image))


def test_an_output_of_integers_becomes_what_they_stand_for() -> None:
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["b"]),
        helper.make_node("QuantizeLinear", ["b", "s", "z"], ["y"]),
    ]
    model = graph(nodes, {"s": np.array(1 / 255, np.float32)}, told=TensorProto.UINT8)
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)

    floats_out = run(dequantize(model), image)

    assert floats_out.dtype == np.float32
    np.testing.assert_allclose(floats_out, run(model, image) / 255, atol=0.5 / 255 + 1e-6)


def other_scale() -> ir.Model:
    model = pairs(helper.make_node("Relu", ["a"], ["b"]), s2=np.array(0.2, np.float32))
    list(model.graph)[1].replace_input_with(1, model.graph.initializers["s2"])
    return model


def arithmetic() -> ir.Model:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Add", ["q", "q"], ["d"]),
        helper.make_node("DequantizeLinear", ["d", "s", "z"], ["y"]),
    ]
    return graph(nodes, {})


def scales_at_run_time() -> ir.Model:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="dequantize"),
    ]
    return graph(nodes, {})


def float_model() -> ir.Model:
    return graph([helper.make_node("Relu", ["x"], ["y"])], {})


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (other_scale, "'qx' is dequantized by another scale or zero point than it was quantized by"),
        (arithmetic, "Add 'd' calculates with integers"),
        (scales_at_run_time, "the scale of DequantizeLinear 'dequantize' is found at run time"),
        (float_model, "isn't quantized: it has nothing to undo"),
    ],
)
def test_what_cannot_be_undone_is_refused(make, complaint: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=complaint):
        dequantize(make())


def test_the_model_that_is_given_stays_as_it_was() -> None:
    model = pairs(*conv(), sw=np.array(0.01, np.float32), **WEIGHTS)
    before = ir.to_proto(model).SerializeToString()

    dequantize(model)

    assert ir.to_proto(model).SerializeToString() == before
