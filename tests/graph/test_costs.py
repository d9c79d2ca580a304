"""Costs against figures worked out by hand and against an independent count over what ONNX Runtime really computes."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from hypothesis import given

from n2n_edge.graph.costs import costs, counted, node_costs
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.shape_run import run_graph
from n2n_edge.graph.teacher import Teacher
from tests.graph.running import inputs_of
from tests.strategies import GRAPH_SETTINGS, GraphBuilder, Tensor, cnn_models


def small_network() -> ir.Model:
    """Conv 3x3 (3 to 4), BatchNorm, Relu on 8x8; depthwise 3x3 stride 2; global pool; Gemm 4 to 5 with bias."""
    builder = GraphBuilder(17, np.random.default_rng(0))
    x = builder.conv(Tensor("input", 3, (8, 8)), 4)
    x = builder.conv(x, 4, stride=2, groups=4, norm=False, act=False)
    features = Tensor(builder.op("Flatten", [builder.global_pool(x, "GlobalAveragePool").name]), 4, ())
    weight = builder.constant("fc.weight", np.ones((4, 5), np.float32))
    bias = builder.constant("fc.bias", np.ones(5, np.float32))
    output = Tensor(builder.op("Gemm", [features.name, weight, bias]), 5, ())
    return ir.from_proto(builder.to_proto(3, 8, output, free_batch=True, batch=1))


MACS = 64 * 4 * 27 + 16 * 4 * 9 + 4 * 5


def test_a_known_network_by_hand() -> None:
    model = Teacher(small_network()).model
    first = next(iter(model.graph))
    bias = 4 if len(first.inputs) > 2 else 0

    found = costs(model)

    assert found.macs == MACS
    weights = 4 * 27 + bias + 2 * 4 + 4 * 9 + 4 + 4 * 5 + 5
    assert found.params == weights
    # one 4x8x8 activation in and one out of BatchNorm or Relu are alive at once; statistics are constants too
    assert found.memory_bound_bytes == 4 * (weights + 2 * 4 + 2 * 4 * 64)


def test_costs_are_for_a_batch_of_one_and_come_without_noted_shapes() -> None:
    model = small_network()

    assert costs(Teacher(model).model).macs == costs(model).macs == MACS


def test_settings_are_no_params() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0), batch_norm=False, activation="Clip")
    x = builder.conv(Tensor("input", 3, (8, 8)), 4)
    scales = builder.constant("scales", np.array([1, 1, 2, 2], np.float32))
    x = Tensor(builder.op("Resize", [x.name, "", scales], mode="nearest"), 4, (16, 16))
    x = builder.conv(x, 2, act=False)

    model = ir.from_proto(builder.to_proto(3, 8, x, free_batch=False, batch=1))

    assert costs(model).params == 4 * 27 + 4 + 2 * 36 + 2


def test_size_is_that_of_the_file(tmp_path: Path) -> None:
    model = Teacher(small_network()).model

    save_model(model, tmp_path / "model.onnx")

    assert costs(model).size_bytes == (tmp_path / "model.onnx").stat().st_size
    assert costs(load_model(tmp_path / "model.onnx")) == costs(model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@GRAPH_SETTINGS
@given(cnn_models(free_batch=True))
def test_macs_and_memory_against_a_count_over_real_values(model: ir.Model) -> None:
    teacher = Teacher(model).model
    real = {**inputs_of(teacher, 1), **run_graph(teacher, inputs_of(teacher, 1))}

    assert counted_macs(teacher, real) == costs(teacher).macs
    assert simulated_memory(teacher, real) == costs(teacher).memory_bound_bytes


@GRAPH_SETTINGS
@given(cnn_models())
def test_nodes_sum_up_to_the_model(model: ir.Model) -> None:
    teacher = Teacher(model).model

    nodes = node_costs(counted(teacher))

    assert [node.op_type for node in teacher.graph] == [node.op_type for node in nodes]
    assert costs(teacher).macs == sum(node.macs for node in nodes)
    assert costs(teacher).params == sum(node.params for node in nodes)


def counted_macs(model: ir.Model, real: dict[str, np.ndarray]) -> int:
    """Multiplications of each output element: the size of the kernel, or the length of the contracted axis."""
    total = 0
    for node in model.graph:
        output = real[str(node.outputs[0].name)]
        if node.op_type == "Conv":
            kernel = array_of(node, 1)
            total += output.size * kernel[0].size
        elif node.op_type in ("Gemm", "MatMul"):
            total += output.size * real[str(node.inputs[0].name)].shape[-1]  # type: ignore[union-attr]
    return total


VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


def simulated_memory(model: ir.Model, real: dict[str, np.ndarray]) -> int:
    """Walk through the nodes with a table of live values; a view lives as long as its source and costs nothing."""
    nodes = list(model.graph)
    constants = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    owner = {name: name for name in real}
    for node in nodes:
        if node.op_type in VIEWS:
            owner[str(node.outputs[0].name)] = owner[str(node.inputs[0].name)]  # type: ignore[union-attr]
    ends = {str(value.name) for value in model.graph.outputs}
    peak = 0
    for step, node in enumerate(nodes):
        later = {str(value.name) for item in nodes[step:] for value in item.inputs if value is not None} | ends
        born = {str(value.name) for item in nodes[: step + 1] for value in item.outputs}
        born |= {str(value.name) for value in model.graph.inputs}
        live = {owner[name] for name in born & (later | {str(value.name) for value in node.outputs}) if name in owner}
        peak = max(peak, sum(real[name].nbytes for name in live))
    return constants + peak


def array_of(node: ir.Node, index: int) -> np.ndarray:
    value = node.inputs[index]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()
