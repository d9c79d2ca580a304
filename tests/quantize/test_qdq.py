"""QDQ forms of a network: what is behind pairs, what ships, and that both compute the same."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from onnx import TensorProto, helper, numpy_helper

from n2n_edge import costs, dequantize
from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.load import save_model, serialize, size_of
from n2n_edge.graph.normalise import normalise
from n2n_edge.graph.quantized import precision_table
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import LEAST_OPSET, folded, output_nodes, structural, weighted_nodes
from tests.graph.running import inputs_of, run
from tests.quantize.pairs import network, paired
from tests.strategies import GRAPH_SETTINGS, cnn_models

FLOAT = QuantizationPlan()


def integers(model: ir.Model) -> dict[str, np.ndarray]:
    """The weights of the file that are int8 and more than zero points, by name."""
    arrays = {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}
    return {name: array for name, array in arrays.items() if array.dtype == np.int8 and name.endswith("_quantized")}


def near(expected: Sequence[np.ndarray], seen: Sequence[np.ndarray], share: float) -> None:
    for wanted, given_ in zip(expected, seen, strict=True):
        assert np.sqrt(np.mean((wanted - given_) ** 2)) <= share * np.abs(wanted).max()


@GRAPH_SETTINGS
@given(cnn_models())
def test_what_ships_computes_what_was_trained(source: ir.Model) -> None:
    model = fold_batchnorm(normalise(source))
    images = inputs_of(model, 2)
    training = paired(model, images)
    shipped = folded(training)
    near(run(training, images, optimised=False), run(shipped, images, optimised=False), 0.02)


@pytest.mark.parametrize("activations", ["int8", "uint8"])
@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 64)])
def test_weights_are_symmetric_integers_with_a_scale_a_channel(activations: str, bits: int, largest: int) -> None:
    model = network("residual", "separable")
    images = inputs_of(model, 4)
    plan = replace(FLOAT, weight_bits=bits, activations=activations)  # type: ignore[arg-type]
    shipped = folded(paired(model, images, plan))
    held = integers(shipped)
    assert len(held) == len(weighted_nodes(model))
    assert {int(np.abs(array.astype(int)).max()) for array in held.values()} == {largest}
    layers = precision_table(shipped).layers
    assert all(layer.per_channel and layer.weight_type == "int8" and layer.precision == "int8" for layer in layers)
    near(run(model, images), run(shipped, images, optimised=False), 0.1)


def test_nodes_of_the_plan_stay_float() -> None:
    model = network("residual")
    first, *others = weighted_nodes(model)
    shipped = folded(paired(model, inputs_of(model, 2), FLOAT.keeping(first)))
    precisions = [layer.precision for layer in precision_table(shipped).layers]
    assert precisions == ["fp32", *["int8"] * len(others)]


def test_everything_in_float_is_the_network_itself() -> None:
    model = network("residual")
    plan = FLOAT.keeping(*(str(node.name) for node in model.graph))
    images = inputs_of(model, 2)
    near(run(model, images), run(folded(paired(model, images, plan)), images), 1e-5)


def test_a_last_product_gives_floats_without_rounding() -> None:
    model = network("residual")
    shipped = folded(paired(model, inputs_of(model, 2)))
    (output,) = shipped.graph.outputs
    assert output.producer().op_type != "DequantizeLinear"  # type: ignore[union-attr]
    assert output_nodes(model) == (weighted_nodes(model)[-1],)


def test_what_comes_behind_the_last_layers_stays_float() -> None:
    source = normalise(ir.from_proto(_decoding_head()))
    shipped = folded(paired(source, inputs_of(source, 2)))
    behind = [node.op_type for node in shipped.graph if node.op_type in ("Sigmoid", "Mul", "Concat")]
    assert behind == ["Sigmoid", "Mul", "Concat"]
    assert all(
        value is None or value.producer() is None or value.producer().op_type != "QuantizeLinear"  # type: ignore[union-attr]
        for node in shipped.graph
        if node.op_type in ("Mul", "Concat")
        for value in node.inputs
    )
    assert sum(node.op_type == "QuantizeLinear" for node in shipped.graph) == 2  # the image, and what the layer gives


def test_a_relu_behind_a_product_is_not_lost() -> None:
    model = normalise(ir.from_proto(_relu_behind_product()))
    images = inputs_of(model, 8)
    shipped = folded(paired(model, images))
    assert run(model, images)[0].min() == 0.0
    assert run(shipped, images, optimised=False)[0].min() >= 0.0


def test_the_structure_has_the_costs_of_what_ships() -> None:
    model = network("residual", "separable")
    real, assumed = costs(folded(paired(model, inputs_of(model, 2)))), costs(structural(model, FLOAT))
    assert (assumed.params, assumed.macs, assumed.integer_macs) == (real.params, real.macs, real.integer_macs)
    assert abs(assumed.size_bytes - real.size_bytes) < 0.01 * real.size_bytes
    assert abs(assumed.memory_bound_bytes - real.memory_bound_bytes) < 0.01 * real.memory_bound_bytes
    assert real.integer_macs == real.macs


@pytest.mark.parametrize("seed", range(3))
def test_a_file_for_arm_gives_on_any_host_what_it_gives_there(tmp_path: Path, seed: int) -> None:
    """Kernels of an x86 without VNNI add products of bytes in 16 bits, which overflow; Arm's don't."""
    model = network("plain", "residual", "inverted", seed=seed, activation="HardSwish")
    images = inputs_of(model, 16)
    path = tmp_path / "signed.onnx"
    save_model(folded(paired(model, images)), path)
    (batch,) = images.values()
    given, exact = (ImageSession(path, optimised=optimised).run(batch)[0] for optimised in (True, False))
    assert np.abs(given - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("activation", ["Relu", "HardSwish", "Sigmoid"])
@pytest.mark.parametrize("blocks", [("plain", "residual"), ("inverted", "separable"), ("gated", "grouped")])
def test_what_ships_is_no_larger_than_its_structure(blocks: tuple[str, ...], activation: str) -> None:
    """A budget in bytes is held by the structure, before anything is calibrated; copies of a graph name its nodes."""
    model = network(*blocks, activation=activation)
    shipped = folded(paired(model, inputs_of(model, 16))).clone()
    size, assumed = len(serialize(shipped)), size_of(structural(model, FLOAT))
    assert size <= assumed < 1.02 * size + 256


def test_pairs_weigh_little_in_a_small_file() -> None:
    model = network("residual", "separable")
    shipped = folded(paired(model, inputs_of(model, 2)))
    names = sum(len(str(value.name)) for node in shipped.graph for value in (*node.inputs, *node.outputs) if value)
    assert names < 15 * sum(len(node.inputs) + len(node.outputs) for node in shipped.graph)
    constants = [value.const_value for value in shipped.graph.initializers.values() if value.const_value is not None]
    zeros = [each for each in constants if each.dtype == ir.DataType.INT8 and not each.numpy().any()]
    assert len(zeros) == len({each.size for each in zeros})


def test_an_older_opset_is_raised() -> None:
    model = network("residual", opset=11)
    assert structural(model, FLOAT).opset_imports[""] == LEAST_OPSET
    assert model.opset_imports[""] == 11


def test_symmetric_activations_have_no_zero_point() -> None:
    model = network("residual")
    shipped = folded(paired(model, inputs_of(model, 2), replace(FLOAT, symmetric=True)))
    zeros = {
        int(value.const_value.numpy().reshape(-1)[0])
        for name, value in shipped.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype == ir.DataType.INT8 and value.const_value.size == 1
    }
    assert zeros == {0}


def test_it_can_be_undone() -> None:
    model = network("residual")
    images = inputs_of(model, 2)
    near(run(model, images), run(dequantize(folded(paired(model, images))), images), 0.05)


def _decoding_head() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "two"], ["m"]),
        helper.make_node("Concat", ["s", "m"], ["y"], axis=1),
    ]
    return _model(
        nodes, {"w": np.random.default_rng(0).normal(size=(4, 3, 1, 1)), "two": np.array(2.0)}, [None, 8, 8, 8]
    )


def _relu_behind_product() -> onnx.ModelProto:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["g"], name="fc"),
        helper.make_node("Relu", ["g"], ["y"]),
    ]
    return _model(nodes, {"w": np.random.default_rng(0).normal(size=(3, 5))}, [None, 5])


def _model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int | None]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *shape[1:]])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
