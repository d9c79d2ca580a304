"""Vectors stored once since they are equal: they tie nothing, unless all of a layer is used twice."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

from n2n_edge.graph.load import serialize
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.running import inputs_of, run

WIDTH = 6


def chain(statistics: Sequence[int], weights: Sequence[int], *, bias: bool = False) -> ir.Model:
    """Return convolutions one after the other, each with a BatchNorm without scale, or with a bias of noughts.

    Of layer ``i`` the weight and the running statistics are those of a seed each; what is equal is stored once.
    """
    nodes, stored, value = [], {}, "x"

    def store(name: str, array: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> str:
        stored[name] = numpy_helper.from_array(array.astype(np.float32), name)
        return name

    for index, (norm, weight) in enumerate(zip(statistics, weights, strict=True)):
        drawn = np.random.default_rng(weight).normal(size=(WIDTH, WIDTH, 3, 3))
        inputs = [value, store(f"weight{index}", drawn)]
        if bias:
            inputs.append(store(f"bias{index}", np.zeros(WIDTH)))
        nodes.append(helper.make_node("Conv", inputs, [f"conv{index}"], pads=[1, 1, 1, 1]))
        value = f"conv{index}"
        if not bias:
            seen = np.random.default_rng(norm)
            names = [
                store(f"scale{index}", np.ones(WIDTH)),
                store(f"shift{index}", np.zeros(WIDTH)),
                store(f"mean{index}", seen.normal(size=WIDTH)),
                store(f"variance{index}", seen.uniform(0.5, 2, WIDTH)),
            ]
            nodes.append(helper.make_node("BatchNormalization", [value, *names], [f"norm{index}"]))
            value = f"norm{index}"
        nodes.append(helper.make_node("Relu", [value], [f"relu{index}"]))
        value = f"relu{index}"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH, 8, 8]) for name in ("x", value))
    graph = helper.make_graph(nodes, "chain", [x], [y], list(stored.values()))
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    common.DeduplicateInitializersPass()(model)
    return model


def shrinkable(teacher: Teacher) -> list[tuple[str, ...]]:
    return [group.layers for group in teacher.groups if group.shrinkable]


def test_norms_that_share_the_scales_that_they_lack_have_widths_of_their_own() -> None:
    model = chain([1, 2, 3, 4], [1, 2, 3, 4])
    assert len(model.graph.initializers) == 4 + 2 + 8
    teacher = Teacher(model)
    names = [layer.name for layer in teacher.layers]
    assert shrinkable(teacher) == [(names[0], names[1]), (names[1], names[2]), (names[2], names[3])]
    inputs = inputs_of(model, 2)
    np.testing.assert_allclose(run(teacher.model, inputs)[0], run(model, inputs)[0], atol=1e-5)

    first, second, _ = [group.name for group in teacher.groups if group.shrinkable]
    student = build(teacher, teacher.full.resize(first, 2).resize(second, 5))
    onnx.checker.check_model(onnx.load_from_string(serialize(student)))
    assert run(student, inputs)[0].shape == (2, WIDTH, 8, 8)


def test_biases_of_nought_that_are_stored_once_tie_no_layers() -> None:
    model = chain([0] * 3, [1, 2, 3], bias=True)
    assert len(model.graph.initializers) == 3 + 1
    teacher = Teacher(model)
    assert len(shrinkable(teacher)) == 2


def test_a_layer_that_is_used_twice_keeps_what_it_has_once() -> None:
    model = chain([1, 1, 2], [1, 1, 2])
    teacher = Teacher(model)
    # the first two are one layer: its weight and its norm are there once, the third's norm has copies
    assert len(teacher.model.graph.initializers) == 2 + 4 + 4
    assert len(shrinkable(teacher)) <= 1
