"""Candidates that begin where they differ from their teacher give what they give from their first step on."""

import pickle

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from n2n_edge.data.dataset import Data
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.prefix import TeacherPrefix, shared_steps
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.settings import DistillSettings
from tests.strategies import GRAPH_SETTINGS, cnn_models
from tests.training.small import random_data, small_cnn

pytestmark = pytest.mark.processor

SETTINGS = DistillSettings(threads=1)


class Seen:
    """How many nodes ran, and which values were told of."""

    def __init__(self) -> None:
        self.ran, self.told = 0, set[str]()

    def before(self, node: ir.Node, inputs: object) -> None:
        self.ran += 1

    def after(self, node: ir.Node, outputs: object) -> None:
        self.told.add(str(node.outputs[0].name))


def single_cuts(teacher: Teacher) -> list[Architecture]:
    """Return what a profile tries: every layer taken out and every group narrowed alone."""
    removed = [teacher.repaired(frozenset((layer.name,))) for layer in teacher.layers if layer.removable]
    narrow = [teacher.full.resize(g.name, max(1, g.width // 2)) for g in teacher.groups if g.shrinkable]
    return [teacher.full, *(teacher.full.remove(*each) for each in removed if each), *narrow]


def inputs_of(data: Data, count: int) -> torch.Tensor:
    return torch.from_numpy(data.test.images[:count]).permute(0, 3, 1, 2).float() / 255


@given(model=cnn_models(), choice=st.integers(0, 10))
@GRAPH_SETTINGS
def test_profiles_are_the_same_with_shared_steps(model: ir.Model, choice: int) -> None:
    teacher, data = Teacher(model), random_data(model)
    sharing = ShortDistiller.refitting(teacher.model, data, SETTINGS)
    sent = pickle.loads(pickle.dumps(sharing))
    cuts = single_cuts(teacher)
    for architecture in {0: cuts[0], 1: cuts[choice % len(cuts)]}.values():
        student, kept = build(teacher, architecture), surviving(teacher, architecture)
        results = [each.evaluate(student, kept, seed=0) for each in (sharing, sent, sharing)]
        assert len({(result.loss, result.accuracy) for result in results}) == 1
        one, other = (GraphModule(result.model).learned() for result in results[:2])
        assert all(torch.equal(one[name], other[name]) for name in other)


@given(model=cnn_models(), choice=st.integers(0, 10))
@GRAPH_SETTINGS
def test_outputs_are_those_of_a_whole_pass(model: ir.Model, choice: int) -> None:
    teacher, batch = Teacher(model), inputs_of(random_data(model), 4)
    prefix = TeacherPrefix(GraphModule(teacher.model), [batch])
    cuts = single_cuts(teacher)
    module = GraphModule(build(teacher, cuts[choice % len(cuts)])).eval()
    with torch.inference_mode():
        for _ in range(2):  # what is kept isn't written to
            whole, shared = (
                outputs if isinstance(outputs, tuple) else (outputs,)
                for outputs in (module(batch), module(batch, halfway=prefix.halfway(module)[0]))
            )
            assert all(torch.equal(*pair) for pair in zip(whole, shared, strict=True))


def test_steps_before_a_cut_are_not_run_again() -> None:
    teacher = Teacher(small_cnn())
    whole, batch = GraphModule(teacher.model), inputs_of(random_data(teacher.model), 4)
    prefix = TeacherPrefix(whole, [batch])
    first, last = (
        GraphModule(build(teacher, teacher.full.resize(group.name, group.width // 2))).eval()
        for group in (teacher.groups[0], max((g for g in teacher.groups if g.shrinkable), key=lambda g: g.width))
    )
    ran = []
    for module in (first, last, whole):
        seen = Seen()
        module.visit(seen, batch, halfway=prefix.halfway(module)[0])
        ran.append(seen.ran)
    assert ran[0] > ran[1] > ran[2]
    assert ran[0] == len(first.nodes)


def test_what_feeds_a_sum_behind_the_start_is_told() -> None:
    """A layer that makes up for what was removed before a sum is refitted to it, wherever the pass begins."""
    teacher = Teacher(small_cnn())
    module, batch = GraphModule(teacher.model), inputs_of(random_data(teacher.model), 4)
    halfway = TeacherPrefix(module, [batch]).halfway(module)[0]
    assert halfway is not None
    seen = Seen()
    module.visit(seen, batch, halfway=halfway)
    assert set(halfway.values) <= seen.told


def test_a_changed_weight_ends_what_is_shared() -> None:
    model = small_cnn()
    one, other = GraphModule(model), GraphModule(model)
    assert shared_steps(one, other) == len(one.nodes)
    with torch.no_grad():
        other.learned()["block.weight"][0, 0, 0, 0] += 1
    assert one.nodes[shared_steps(one, other)].name == "block.conv"
    other = GraphModule(model)
    other.learned()["top.mean"].add_(1)
    assert one.nodes[shared_steps(one, other)].name == "top.norm"
    assert shared_steps(one, GraphModule(small_cnn(seed=1))) == 0


@pytest.mark.parametrize("attribute", [{"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}, {"kernel_shape": [3, 3]}])
def test_another_attribute_ends_what_is_shared(attribute: dict[str, list[int]]) -> None:
    model = small_cnn()
    one = GraphModule(model)
    changed = model.clone()
    pool = next(node for node in changed.graph if node.op_type == "MaxPool")
    for name, values in attribute.items():
        pool.attributes[name] = ir.AttrInt64s(name, values)
    assert one.nodes[shared_steps(one, GraphModule(changed))].op_type == "MaxPool"


@pytest.mark.parametrize("changed", ["second", "third"])
def test_parts_of_a_node_are_kept_together(changed: str) -> None:
    """A node's outputs that come into play at different depths, and one that nobody reads, are all those of its own."""
    random = np.random.RandomState(0)
    weights = {name: random.randn(4, 4, 3, 3).astype(np.float32) / 6 for name in ("first", "second", "third")}
    text = """<ir_version: 8, opset_import: ["": 18]>
    parts (float[N, 4, 8, 8] images) => (float[N, 4, 8, 8] output) {
        start = Conv <pads = [1, 1, 1, 1]> (images, first)
        wide = Concat <axis = 1> (start, images, start)
        one, two, unread = Split <axis = 1, num_outputs = 3> (wide)
        kept, mask = Dropout (one)
        low = Conv <pads = [1, 1, 1, 1]> (kept, second)
        sum = Add (low, two)
        output = Conv <pads = [1, 1, 1, 1]> (sum, third)
    }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    one, other = (GraphModule(ir.from_proto(proto)).eval() for _ in range(2))
    batch = torch.from_numpy(random.randn(3, 4, 8, 8).astype(np.float32))
    prefix = TeacherPrefix(one, [batch])
    other.learned()[changed].mul_(2)
    halfway = prefix.halfway(other)[0]
    assert halfway is not None
    with torch.inference_mode():
        whole, shared = other(batch), other(batch, halfway=halfway)
        assert torch.equal(whole, shared)
