"""Residual branches: what they have of the costs that budgets limit, and their rises."""

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.graph.teacher import Teacher
from n2n_edge.search.branches import branches_of, limited_shares, spread_rises
from tests.strategies import GraphBuilder, Tensor


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Four residual blocks, of which the last two have six times the parameters."""
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=True)
    x = s.conv(Tensor("input", 3, (16, 16)), 16)
    for width in (8, 8, 48, 48):
        x = s.act(s.add(s.conv(s.conv(x, width), 16, act=False), x))
    output = s.flatten(s.global_pool(s.conv(x, 10, kernel=1, act=False), "GlobalAveragePool"))
    return Teacher(ir.from_proto(s.to_proto(3, 16, output, free_batch=True, batch=1)))


def sums(teacher: Teacher, headroom: dict[str, float], latencies: list[dict[str, float]]) -> list[float]:
    share = limited_shares(teacher, headroom, latencies)
    return [sum(share[name] for name in branch) for branch in branches_of(teacher) if len(branch) > 1]


def test_shares_are_of_what_budgets_limit(teacher: Teacher) -> None:
    times = {node: 1.0 if index < 2 else 0.0 for index, layer in enumerate(teacher.layers) for node in layer.nodes}
    first, second, third, fourth = sums(teacher, {"latency_ms": 0.5, "params": 2.0}, [times])
    assert first > 0 == second == third == fourth  # the second layer is the first branch's
    by_params = sums(teacher, {"params": 0.5, "latency_ms": 1.5}, [times])
    assert by_params[2] > 4 * by_params[0]
    assert sums(teacher, {"params": 0.25}, [times])[2] == pytest.approx(2 * by_params[2])
    both = sums(teacher, {"params": 0.5, "latency_ms": 0.5}, [times])
    assert both == pytest.approx([a + b for a, b in zip(by_params, (first, 0, 0, 0), strict=True)])
    two = sums(teacher, {"latency_ms": 0.5}, [times, dict.fromkeys(times, 0.0)])
    assert two[0] == pytest.approx(first / 2)  # nothing takes time on the second device


@pytest.mark.parametrize("headroom", [{}, {"params": 1.0}, {"latency_ms": 3.0}, {"memory_bound_mb": 0.5}])
def test_without_a_budget_that_layers_can_meet_params_and_macs_count(
    teacher: Teacher, headroom: dict[str, float]
) -> None:
    share = limited_shares(teacher, headroom, [{}])
    assert sum(share.values()) == pytest.approx(2.0)
    assert min(share.values()) > 0


def test_a_branch_shares_its_rise_among_its_layers() -> None:
    rises = {"a+b": 0.6, "c": 0.2, "g1@0.25": 9.0}
    assert spread_rises(rises, [("a", "b"), ("c",), ("d", "e")]) == {"a": 0.3, "b": 0.3, "c": 0.2}
