"""What a student learns to give: a model's outputs, or what goes into a tail that selects or counts."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.learned import changed_behind, learned_outputs, with_learned_outputs
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.tasks.outputs import class_count
from n2n_edge.training.executor import GraphModule
from tests.graph.test_free_batch import CHANNELS, SIZE, Body, Net, images, network


def classes(net: Net, y: str) -> str:
    pooled = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.op("Gemm", pooled, net.random(5, CHANNELS), net.random(5), transB=1)


def selected(net: Net, y: str) -> str:
    """Take the boxes with the best scores, as DETR heads do."""
    boxes = net.op("Reshape", net.conv(y, CHANNELS, 4), net.ints(1, 4, -1))
    scores = net.op("Reshape", net.op("Sigmoid", net.conv(y, CHANNELS, 1)), net.ints(1, -1))
    best = net.op("TopK", scores, net.ints(7), outputs=2, axis=1).replace("_0", "_1")
    place = net.op("Expand", net.op("Unsqueeze", best, net.ints(1)), net.ints(1, 4, 7))
    return net.op("GatherElements", boxes, place, axis=2)


def peaks(net: Net, y: str) -> str:
    """Keep the scores that are the largest around them, as detectors without boxes do."""
    scores = net.op("Sigmoid", net.conv(y, CHANNELS, 2))
    largest = net.op("MaxPool", scores, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return net.op("Mul", scores, net.op("Cast", net.op("Equal", scores, largest), to=1))


def safely_divided(net: Net, y: str) -> str:
    """Divide by a norm unless it is nought, as exports of JAX do."""
    out = classes(net, y)
    norm = net.op("ReduceL2", out, axes=[1])
    nought = net.op("Equal", norm, net.constant(0.0))
    return net.op("Div", out, net.op("Where", nought, net.constant(1.0), norm))


def branching(net: Net, y: str) -> str:
    """Double the boxes, which the branches read from around them, where a score is high."""
    boxes = net.op("Reshape", net.conv(y, CHANNELS, 4), net.ints(1, -1, 4))
    scores = net.op("Sigmoid", net.op("Reshape", net.conv(y, CHANNELS, 1), net.ints(1, -1)))
    branches = {}
    for name, factor in (("then_branch", 2.0), ("else_branch", -1.0)):
        node = helper.make_node("Mul", [boxes, net.constant(factor)], [name])
        given = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([node], name, [], [given])
    high = net.op("Greater", net.op("ReduceMax", scores, keepdims=0), net.constant(0.7))
    return net.op("If", high, **branches)


def with_anchors(net: Net, y: str) -> str:
    """Give the anchors that boxes are relative to, whatever the image."""
    return net.op("Identity", net.random(7, 4))


TAILS: dict[str, tuple[Body, list[str]]] = {
    "argmax": (lambda net, y: net.op("Cast", net.op("ArgMax", classes(net, y), axis=1), to=1), ["Gemm"]),
    "argmax behind softmax": (
        lambda net, y: net.op("Cast", net.op("ArgMax", net.op("Softmax", classes(net, y), axis=1), axis=1), to=1),
        ["Softmax"],
    ),
    "threshold": (
        lambda net, y: net.op("Cast", net.op("Greater", net.op("Sigmoid", classes(net, y)), net.constant(0.5)), to=1),
        ["Sigmoid"],
    ),
    "activation made of comparisons": (
        lambda net, y: net.op(
            "Where", net.op("Greater", classes(net, y), net.constant(0.0)), classes(net, y), net.constant(0.0)
        ),
        ["Where"],
    ),
    "the largest scores around": (peaks, ["MaxPool", "Sigmoid"]),
    "scores above a threshold": (
        lambda net, y: net.op(
            "Mul", classes(net, y), net.op("Cast", net.op("Greater", classes(net, y), net.constant(0.1)), to=1)
        ),
        ["Gemm", "Gemm"],
    ),
    "a division that is safe": (safely_divided, ["Div"]),
    "branches that read boxes from around": (branching, ["ReduceMax", "Reshape"]),
    "the best of a detector's boxes": (selected, ["Reshape", "Reshape"]),
    "an operator without a torch function": (lambda net, y: net.op("Hardmax", classes(net, y), axis=1), ["Gemm"]),
    "a choice in front of layers": (
        lambda net, y: classes(net, net.op("TopK", y, net.ints(SIZE), outputs=2, axis=3)),
        ["Gemm"],
    ),
    "nothing of the kind": (classes, ["Gemm"]),
}


@pytest.mark.parametrize("name", TAILS)
def test_what_is_learned_stands_in_front_of_what_teaches_nothing(name: str) -> None:
    body, ops = TAILS[name]
    model = Teacher(network(body, tail=False)).model

    producers = [value.producer() for value in learned_outputs(model)]

    assert sorted(node.op_type for node in producers if node is not None) == sorted(ops)


@pytest.mark.parametrize("name", [name for name in TAILS if not name.startswith("branches")])
def test_torch_gives_what_is_learned_and_all_of_the_file(name: str) -> None:
    model = Teacher(network(TAILS[name][0], tail=False)).model
    batch = images()
    learned = GraphModule(model).train()

    outputs = learned(torch.from_numpy(batch))
    given = outputs if isinstance(outputs, tuple) else (outputs,)
    torch.stack([output.square().mean() for output in given]).sum().backward()

    with torch.inference_mode():
        whole = GraphModule(model, whole=True)(torch.from_numpy(batch))
        again = learned.eval()(torch.from_numpy(batch))
    assert isinstance(whole, torch.Tensor)
    assert np.allclose(whole.numpy(), ImageSession(model).run(batch)[0], atol=1e-3)
    for expected, tensor in zip(
        ImageSession(with_learned_outputs(model)).run(batch),
        again if isinstance(again, tuple) else (again,),
        strict=True,
    ):
        assert np.allclose(expected, tensor.numpy(), atol=1e-3)
    assert any(weight.grad is not None and bool(weight.grad.abs().max() > 0) for weight in learned.weights())


def test_an_output_that_no_layer_has_a_part_in_is_not_learned() -> None:
    def body(net: Net, y: str) -> str:
        anchors.append(with_anchors(net, y))
        return classes(net, y)

    anchors: list[str] = []
    model = network(body, tail=False)
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    model.graph.outputs.insert(0, values[anchors[0]])
    teacher = Teacher(model)

    (learned,) = learned_outputs(teacher.model)

    assert learned is teacher.model.graph.outputs[1]
    assert changed_behind(teacher.model, build(teacher, teacher.full)) == ""


def test_classes_are_counted_in_front_of_their_choice() -> None:
    assert class_count(Teacher(network(TAILS["argmax"][0], tail=False)).model, "classes") == 5


def test_a_file_as_written_and_as_normalised_learn_the_same() -> None:
    model = network(selected, tail=False)

    assert len(learned_outputs(model)) == len(learned_outputs(Teacher(model).model)) == 2
    assert isinstance(with_learned_outputs(model), ir.Model)


@pytest.mark.parametrize("name", TAILS)
def test_what_is_behind_the_learned_values_ships_as_it_is(name: str) -> None:
    teacher = Teacher(network(TAILS[name][0], tail=False))
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, max(1, group.width // 2))
    removable = [layer.name for layer in teacher.layers if layer.removable]
    architecture = architecture.remove(*teacher.repaired(frozenset(removable[:1])))

    student = build(teacher, architecture)

    assert student.graph.num_nodes() > 0
    assert changed_behind(teacher.model, student) == ""


@pytest.mark.parametrize("what", ["constant", "attribute", "operator", "gone"])
def test_a_change_behind_the_learned_values_is_told(what: str) -> None:
    teacher = Teacher(network(selected, tail=False))
    student = build(teacher, teacher.full)
    best = next(node for node in student.graph if node.op_type == "TopK")
    output = best.outputs[0]
    if what == "constant":
        count = best.inputs[1]
        assert count is not None
        count.const_value = ir.tensor(np.array([6], np.int64))
    elif what == "attribute":
        best.attributes["largest"] = ir.AttrInt64("largest", 0)
    elif what == "operator":
        best.op_type = "TopKOfAnotherKind"
    else:
        gathered = student.graph.outputs[0].producer()
        assert gathered is not None
        student.graph.outputs[0] = best.inputs[0]  # type: ignore[assignment]
        student.graph.remove(gathered)
        output = gathered.outputs[0]

    assert changed_behind(teacher.model, student) == output.name
