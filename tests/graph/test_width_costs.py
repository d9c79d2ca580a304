"""The costs of many widths at once are those of the graphs that `build` makes."""

import numpy as np
import onnx_ir as ir
from hypothesis import given

from n2n_edge.graph.costs import costs, counted, node_costs
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.graph.width_costs import WidthCosts
from tests.strategies import GRAPH_SETTINGS, cnn_models

CANDIDATES = 4


@given(model=cnn_models())
@GRAPH_SETTINGS
def test_equal_to_the_built_graphs(model: ir.Model) -> None:
    teacher = Teacher(model)
    removable = [layer.name for layer in teacher.layers if layer.removable]
    random = np.random.default_rng(0)
    for removed in (frozenset(), teacher.repaired(frozenset(removable[::3]))):
        base = teacher.base_graph(removed)
        at = WidthCosts(base)
        full = [group.width for group in base.groups]
        lowest = [1 if group.shrinkable else group.width for group in base.groups]
        widths = random.integers(lowest, np.array(full) + 1, (CANDIDATES, len(base.groups)))
        widths[0] = full
        found = at.costs(widths)
        for index, row in enumerate(widths):
            architecture = teacher.full.remove(*removed)
            for group, width in zip(base.groups, row, strict=True):
                if group.shrinkable:
                    architecture = architecture.resize(group.name, min(int(width), architecture.width(group.name)))
            built = build(teacher, architecture)
            exact = costs(built)
            assert found.params[index] == exact.params
            assert found.macs[index] == exact.macs
            assert abs(found.memory_bound_bytes[index] - exact.memory_bound_bytes) <= 0.01 * exact.memory_bound_bytes
            assert abs(at.size_bytes(found)[index] - exact.size_bytes) <= 400
            for place, node in enumerate(node_costs(counted(built)) if index == 0 else ()):
                assert (at.plan.nodes[place].name, at.plan.nodes[place].op_type) == (node.name, node.op_type)
                assert found.node_macs[place, 0] == node.macs
                assert found.node_output_bytes[place, 0] == node.output_bytes
