"""BatchNorms come back into a folded teacher, and go again, without a change of what it computes."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from onnx import helper

from n2n_edge.graph.batchnorm import fold_batchnorm, restore_batchnorm
from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import serialize
from n2n_edge.graph.shape_run import run_graph
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.running import assert_same_outputs, inputs_of, run
from tests.graph.test_free_batch import Net
from tests.strategies import GRAPH_SETTINGS, GraphBuilder, Tensor, cnn_models

CONVOLUTIONS = ("Conv", "ConvTranspose")


def op_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@GRAPH_SETTINGS
@given(cnn_models(batch_norm=False))
def test_norms_come_back_and_go_without_changing_the_function(model: ir.Model) -> None:
    teacher = Teacher(model)
    inputs = inputs_of(model, 3)
    expected = run(model, inputs)

    restored, names = restore_batchnorm(teacher.model, [inputs_of(model, 4, seed) for seed in (1, 2)])
    again = Teacher(restored)
    folded = fold_batchnorm(restored, names)

    onnx.checker.check_model(onnx.ModelProto.FromString(serialize(restored)), full_check=True)
    assert_same_outputs(expected, run(restored, inputs))
    assert_same_outputs(expected, run(build(again, again.full), inputs))
    assert_same_outputs(expected, run(folded, inputs))
    assert op_types(teacher.model) == op_types(folded)
    assert [layer.name for layer in teacher.layers] == [layer.name for layer in again.layers]
    real = {name: array.shape for name, array in run_graph(restored, inputs_of(restored, 1)).items()}
    noted = {str(value.name): value.shape for node in restored.graph for value in node.outputs}
    assert {name: len(shape) for name, shape in real.items()} == {name: len(shape) for name, shape in noted.items()}


@GRAPH_SETTINGS
@given(cnn_models(batch_norm=True))
def test_folding_keeps_the_function_and_leaves_no_norm_behind_a_convolution(model: ir.Model) -> None:
    teacher = Teacher(model)
    inputs = inputs_of(model, 2)

    folded = fold_batchnorm(teacher.model)

    assert_same_outputs(run(model, inputs), run(folded, inputs))
    for node in folded.graph:
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if node.op_type == "BatchNormalization" and source is not None and source.op_type in CONVOLUTIONS:
            assert len(node.inputs[0].uses()) > 1  # type: ignore[union-attr]


def test_a_norm_normalises_what_calibration_showed() -> None:
    model, batches = plain_network(), [calibration(seed) for seed in range(4)]
    teacher = Teacher(model)

    restored, names = restore_batchnorm(teacher.model, batches)

    assert names == ("n_conv_0.norm", "n_conv_2.norm")
    norm = next(node for node in restored.graph if node.name == names[0])
    seen = np.concatenate([run_graph(teacher.model, batch)["conv_0"] for batch in batches])
    scale, shift, mean, variance = (value.const_value.numpy() for value in norm.inputs[1:])  # type: ignore[union-attr]
    np.testing.assert_allclose(mean, seen.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, seen.var(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale, np.sqrt(variance + 1e-5), rtol=1e-5)
    np.testing.assert_array_equal(shift, mean)


def test_a_teacher_with_all_its_norms_is_left_as_it_is() -> None:
    teacher = Teacher(plain_network(batch_norm=True))

    model, names = restore_batchnorm(teacher.model, [])

    assert names == ()
    assert serialize(model) == serialize(teacher.model)
    assert model is not teacher.model


def test_only_the_named_norms_are_folded() -> None:
    teacher = Teacher(plain_network(batch_norm=True))
    first = next(str(node.name) for node in teacher.model.graph if node.op_type == "BatchNormalization")

    folded = fold_batchnorm(teacher.model, [first])

    assert op_types(teacher.model).count("BatchNormalization") == 1 + op_types(folded).count("BatchNormalization")
    assert first not in {node.name for node in folded.graph}
    assert first in {node.name for node in teacher.model.graph}


def test_a_convolution_that_gives_the_graph_output_gets_none() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x = builder.conv(builder.conv(Tensor("input", 3, (8, 8)), 4), 2, act=False)
    model = ir.from_proto(builder.to_proto(3, 8, x, free_batch=True, batch=1))

    restored, names = restore_batchnorm(Teacher(model).model, [calibration(0)])

    assert op_types(restored) == ["Conv", "BatchNormalization", "Relu", "Conv"]
    assert len(names) == 1


def test_a_norm_that_gives_the_graph_output_is_folded_under_its_name() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    x = builder.conv(Tensor("input", 3, (8, 8)), 2, act=False)
    model = ir.from_proto(builder.to_proto(3, 8, x, free_batch=True, batch=1))
    teacher = Teacher(model).model

    folded = fold_batchnorm(teacher)

    assert op_types(folded) == ["Conv"]
    assert [value.name for value in teacher.graph.outputs] == [value.name for value in folded.graph.outputs]
    assert_same_outputs(run(model, calibration(0)), run(folded, calibration(0)))


def test_no_parameters_come_that_the_teacher_does_not_have() -> None:
    """A depthwise convolution without bias, as MediaPipe's are, and a head that two maps share."""
    net = Net()
    x = net.op("Conv", "x", net.random(4, 1, 3, 3), pads=[1] * 4, group=4)
    x = net.op("Relu", net.conv(x, 4, 8))
    head = net.random(3, 8, 3, 3), net.random(3)
    maps = [net.op("Relu", net.op("Conv", y, *head)) for y in (x, net.op("MaxPool", x, kernel_shape=[2, 2]))]
    pooled = [net.op("GlobalMaxPool", y) for y in maps]
    shape = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4, 8, 8])]
    graph = helper.make_graph(
        net.nodes, "g", shape, [helper.make_tensor_value_info(net.op("Add", *pooled), 1, ["N", 3, 1, 1])], net.constants
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    teacher = Teacher(model)
    batch = {"x": np.random.default_rng(0).normal(size=(4, 4, 8, 8)).astype(np.float32)}

    restored, names = restore_batchnorm(teacher.model, [batch])
    again = Teacher(restored)
    folded = fold_batchnorm(build(again, again.full), names)

    assert len(names) == 1
    assert costs(folded).params == costs(model).params
    assert_same_outputs(run(model, batch), run(folded, batch))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_convolutions(groups: int) -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    x = builder.conv(Tensor("input", 3, (8, 8)), 4)
    weight = builder.constant("up.weight", builder.rng.normal(size=(4, 8 // groups, 2, 2)).astype(np.float32))
    x = Tensor(builder.op("ConvTranspose", [x.name, weight], strides=[2, 2], group=groups), 8, (16, 16))
    x = builder.conv(builder.act(builder.norm(x)), 3)
    output = builder.dense(builder.flatten(builder.global_pool(x, "GlobalAveragePool")), 2)
    teacher = Teacher(ir.from_proto(builder.to_proto(3, 8, output, free_batch=True, batch=1)))
    inputs = calibration(3)
    expected = run(teacher.model, inputs)

    folded = fold_batchnorm(teacher.model)
    restored, names = restore_batchnorm(folded, [calibration(0)])

    assert "BatchNormalization" not in op_types(folded)
    assert len(names) == 3
    assert_same_outputs(expected, run(folded, inputs))
    assert_same_outputs(expected, run(restored, inputs))


def test_calibration_data_is_needed() -> None:
    with pytest.raises(ValueError, match="without a batch of calibration data"):
        restore_batchnorm(Teacher(plain_network()).model, [])


@pytest.mark.parametrize("name", ["ultraface_RFB-320", "mlperftiny_vww_mbv1_025_fp32", "yunet_n_320_320"])
def test_real_models(shared_data: Path, name: str) -> None:
    teacher = Teacher.load(shared_data / "models" / f"{name}.onnx")
    inputs = inputs_of(teacher.model, 1)
    expected = run(teacher.model, inputs)

    restored, names = restore_batchnorm(teacher.model, [inputs_of(teacher.model, 1, seed) for seed in (1, 2)])

    assert names
    assert_same_outputs(expected, run(restored, inputs))
    assert_same_outputs(expected, run(fold_batchnorm(restored, names), inputs))
    assert_same_outputs(expected, run(fold_batchnorm(restored), inputs), relative=5e-5)


def plain_network(*, batch_norm: bool = False) -> ir.Model:
    builder = GraphBuilder(17, np.random.default_rng(0), batch_norm=batch_norm)
    x = builder.conv(builder.conv(Tensor("input", 3, (8, 8)), 4), 6)
    output = builder.dense(builder.flatten(builder.global_pool(x, "GlobalAveragePool")), 2)
    return ir.from_proto(builder.to_proto(3, 8, output, free_batch=True, batch=1))


def calibration(seed: int) -> dict[str, np.ndarray]:
    return {"input": np.random.default_rng(seed).standard_normal((5, 3, 8, 8)).astype(np.float32)}
