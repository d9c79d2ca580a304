"""Graphs that are far deeper than Python's recursion goes are analysed, costed and cut like any other."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import IncompressibleError, InputError
from n2n_edge.graph.costs import costs, inferred_costs
from n2n_edge.graph.load import load_model
from n2n_edge.graph.operands import is_fixed
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.latency.model import LatencyModel
from tests.deep_graphs import DEEP_GRAPHS, deep_model

LEVELS, NODES = 100, 150
"""How much deeper Python may go than it is when a test begins, and a graph that is deeper than that."""

QUANTIZED = frozenset({"quantized", "quantized_weight"})
FUNCTIONS = "nested_functions"


@pytest.fixture(autouse=True)
def few_levels() -> Iterator[None]:
    """Recursion ends far sooner than after the usual 1,000 levels, so that graphs need not be as large."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + LEVELS)
    yield
    sys.setrecursionlimit(limit)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep.onnx"


@pytest.mark.parametrize("kind", sorted(DEEP_GRAPHS.keys() - QUANTIZED - {FUNCTIONS}))
def test_a_deep_graph_is_analysed_costed_and_cut(kind: str, path: Path) -> None:
    onnx.save(deep_model(kind, NODES), path)

    model = load_model(path)
    told, complete = inferred_costs(model)
    predicted = LatencyModel(load_profile("raspberry-pi-4")).estimate(model)
    teacher = Teacher.load(path)

    assert complete
    assert told == costs(model)
    assert predicted.figure.value > 0
    removable = [layer.name for layer in teacher.layers if layer.removable]
    widths = {group.name: max(1, group.width // 2) for group in teacher.groups if group.shrinkable}
    student = build(teacher, teacher.architecture(sorted(teacher.repaired(frozenset(removable))), widths))
    assert costs(student).macs <= costs(teacher.model).macs


@pytest.mark.parametrize("kind", sorted(QUANTIZED))
def test_a_deep_quantized_graph_has_costs(kind: str, path: Path) -> None:
    onnx.save(deep_model(kind, NODES), path)

    model = load_model(path)

    assert inferred_costs(model)[1]
    assert LatencyModel(load_profile("raspberry-pi-4")).estimate(model).figure.value > 0
    with pytest.raises(IncompressibleError):
        Teacher.load(path)


def test_functions_that_call_each_other_too_deeply_are_refused_in_one_line(path: Path) -> None:
    onnx.save(deep_model(FUNCTIONS, 1_200), path)

    with pytest.raises(InputError, match="call each other over 200 levels deep; export the model without functions"):
        load_model(path)


def test_functions_that_call_each_other_deeply_are_inlined(path: Path) -> None:
    onnx.save(deep_model(FUNCTIONS, 100), path)

    assert [node.op_type for node in Teacher.load(path).model.graph][:2] == ["Conv", "Relu"]


def test_a_constant_behind_many_forms_is_treated_as_calculated() -> None:
    values = [ir.Value(name="w", const_value=ir.tensor([1.0]))]
    for index in range(2_000):
        node = ir.Node("", "Identity", [values[-1]], name=f"n{index}")
        values.append(node.outputs[0])

    assert [is_fixed(value) for value in values[:5]] == [True] * 5
    assert not is_fixed(values[-1])
