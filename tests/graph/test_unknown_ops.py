"""An op outside the known set makes untouchable what it touches, is named, and never stops anything."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from n2n_edge.graph.costs import costs
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.running import assert_same_outputs, inputs_of, run
from tests.strategies import GraphBuilder, Tensor


def network_with(op_type: str) -> ir.Model:
    """Three Convs in a row, the op between the second and the third, then a classifier."""
    builder = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x = builder.conv(builder.conv(Tensor("input", 3, (8, 8)), 8), 8)
    match op_type:
        case "CumSum":
            name = builder.op("CumSum", [x.name, builder.constant("axis", np.array(1, np.int64))])
        case "Einsum":
            name = builder.op("Einsum", [x.name], equation="nchw->nchw")
        case "TopK":
            name = builder.op("TopK", [x.name, builder.ints(8)], outputs=2, axis=1)
        case "If":
            name = conditional(builder, x)
        case _:
            name = builder.op(op_type, [x.name])
    x = builder.conv(Tensor(name, 8, x.size), 8)
    output = builder.dense(builder.flatten(builder.global_pool(builder.conv(x, 8), "GlobalAveragePool")), 3)
    return ir.from_proto(builder.to_proto(3, 8, output, free_batch=True, batch=1))


def conditional(builder: GraphBuilder, x: Tensor) -> str:
    """An If that depends on the image and whose branches take `x` from outside."""
    brightest = builder.op("ReduceMax", ["input"], keepdims=0)
    condition = builder.op("Greater", [brightest, builder.constant("bound", np.array(0, np.float32))])
    branches = []
    for op_type in ("Neg", "Abs"):
        output = helper.make_tensor_value_info(f"{op_type}_out", TensorProto.FLOAT, None)
        node = helper.make_node(op_type, [x.name], [output.name])
        branches.append(helper.make_graph([node], op_type, [], [output]))
    return builder.op("If", [condition], then_branch=branches[0], else_branch=branches[1])


@pytest.mark.parametrize("op_type", ["CumSum", "Einsum", "TopK", "If"])
def test_what_an_unknown_op_touches_stays_and_the_op_is_named(op_type: str) -> None:
    model = network_with(op_type)
    teacher = Teacher(model)
    first, before, after, last = teacher.layers[:4]
    outputs = {layer.name: group_of_output(teacher, layer.weight) for layer in teacher.layers}

    assert f"op {op_type} 'n_{op_type.lower()}_" in outputs[before.name].reason
    assert [before.removable, after.removable] == [False, False]
    assert f"op {op_type}" in before.reason
    assert f"op {op_type}" in after.reason
    assert [outputs[first.name].shrinkable, outputs[after.name].shrinkable] == [True, True]
    assert last.removable

    architecture = teacher.full.resize(outputs[first.name].name, 2).resize(outputs[after.name].name, 3)
    student = build(teacher, architecture.remove(last.name))
    inputs = inputs_of(model, 2)
    assert [array.shape for array in run(model, inputs)] == [array.shape for array in run(student, inputs)]
    assert costs(student).params < costs(teacher.model).params
    assert_same_outputs(run(model, inputs), run(build(teacher, teacher.full), inputs))


def test_a_weight_that_an_unknown_op_reads_too_is_not_cut() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0), batch_norm=False)
    x = builder.conv(builder.conv(Tensor("input", 3, (8, 8)), 8), 8)
    weight = next(tensor.name for tensor in builder.initializers if tensor.dims == [8, 8, 3, 3])
    everything = builder.op("Einsum", [weight, x.name], equation="oikl,nchw->n")
    features = builder.flatten(builder.global_pool(x, "GlobalAveragePool"))
    unsqueezed = builder.op("Unsqueeze", [everything, builder.ints(1)])
    output = builder.dense(Tensor(builder.op("Add", [features.name, unsqueezed]), 8, ()), 3)
    teacher = Teacher(ir.from_proto(builder.to_proto(3, 8, output, free_batch=True, batch=1)))

    reasons = [group.reason for group in teacher.groups if any(name == weight for name, _ in group.dims)]

    assert len(reasons) == 2
    assert all("Einsum" in reason for reason in reasons)


def test_a_whole_model_of_strange_ops_is_analysed_without_anything_to_do() -> None:
    builder = GraphBuilder(17, np.random.default_rng(0))
    name = builder.op("Einsum", [builder.op("CumSum", ["input", builder.constant("axis", np.array(1, np.int64))])],
                     equation="nchw->nc")  # fmt: skip
    model = ir.from_proto(builder.to_proto(3, 8, Tensor(name, 3, ()), free_batch=True, batch=1))

    teacher = Teacher(model)

    assert (teacher.layers, teacher.groups) == ((), ())
    inputs = inputs_of(model, 3)
    assert_same_outputs(run(model, inputs), run(build(teacher, teacher.full), inputs))


@pytest.mark.parametrize(("opset", "frozen"), [(12, True), (13, False)])
def test_softmax_over_rows_and_columns(opset: int, frozen: bool) -> None:
    """Before opset 13 Softmax over axis 1 means over all axes from it on; later it is one axis, here the last."""
    builder = GraphBuilder(opset, np.random.default_rng(0), batch_norm=False)
    x = builder.conv(Tensor("input", 3, (8, 8)), 8)
    x = builder.conv(Tensor(builder.op("Softmax", [x.name]), 8, x.size), 8)
    output = builder.dense(builder.flatten(builder.global_pool(x, "GlobalAveragePool")), 3)

    teacher = Teacher(ir.from_proto(builder.to_proto(3, 8, output, free_batch=True, batch=1)))

    assert frozen == ("Softmax" in group_of_output(teacher, teacher.layers[0].weight).reason)


def test_an_op_of_another_domain_is_named() -> None:
    proto = ir.to_proto(network_with("Relu"))
    node = next(node for node in proto.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = "Gelu", "com.microsoft"
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert isinstance(proto, onnx.ModelProto)

    teacher = Teacher(ir.from_proto(proto))

    assert "op Gelu" in group_of_output(teacher, teacher.layers[0].weight).reason


def group_of_output(teacher: Teacher, weight: str):  # type: ignore[no-untyped-def]
    return next(group for group in teacher.groups if (weight, 0) in group.dims)
