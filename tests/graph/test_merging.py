"""Layers that are merged: the same function as with the activation left out, whatever the network."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge._example import teacher_path
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.convolutions import read_convolution
from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import serialize
from n2n_edge.graph.merging import merges_of
from n2n_edge.graph.op import op_of
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.graph.width_costs import WidthCosts
from tests.graph.checking import assert_torch_agrees
from tests.graph.running import assert_same_outputs, inputs_of, run
from tests.strategies import GRAPH_SETTINGS, GraphBuilder, Tensor, cnn_models

MOBILENET = Path(__file__).parents[2] / "benchmarks" / "teachers" / "mobilenet-v2.onnx"


def linearised(teacher: Teacher, linear: frozenset[str]) -> ir.Model:
    """Return the teacher with the activation of `linear` taken out and padding behind it moved to the front.

    Nothing is merged: this is what a merged network has to calculate.
    """
    model = teacher.model.clone()
    nodes = {str(node.name): node for node in model.graph}
    for layer in reversed(teacher.layers):
        if layer.name not in linear:
            continue
        chain = [nodes[name] for name in layer.nodes]
        own = next(node for node in chain if node.op_type == "Conv")
        if op_of(chain[-1]).activation:
            source = chain[-1].inputs[0]
            assert source is not None
            ir.convenience.replace_all_uses_with(chain[-1].outputs[0], source)
            model.graph.remove(chain[-1], safe=True)
            chain.pop()
        (use,) = chain[-1].outputs[0].uses()
        first, second = read_convolution(own), read_convolution(use.node)
        assert first is not None
        assert second is not None
        for node, pads in ((own, first.padded_for(second).pads), (use.node, second.unpadded().pads)):
            node.attributes["pads"] = ir.AttrInt64s("pads", [p[0] for p in pads] + [p[1] for p in pads])
            node.attributes.pop("auto_pad", None)
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    return model


def inverted(batch_norm: bool = True, blocks: int = 2) -> Teacher:
    """Inverted residuals with skip connections, of six times as many channels in the middle."""
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=batch_norm, activation="Clip")
    x = s.conv(Tensor("input", 3, (16, 16)), 8)
    for _ in range(blocks):
        y = s.conv(s.conv(x, 48, kernel=1), 48, groups=48)
        x = s.add(s.conv(y, 8, kernel=1, act=False), x)
    output = s.dense(s.flatten(s.global_pool(x, "GlobalAveragePool")), 4)
    return Teacher(ir.from_proto(s.to_proto(3, 16, output, free_batch=True, batch=1)))


@GRAPH_SETTINGS
@given(cnn_models(), st.integers(0, 2**16))
def test_a_merged_network_is_the_linear_one(model: ir.Model, seed: int) -> None:
    teacher = Teacher(model)
    names = [link.layer for link in teacher.links]
    chosen = np.random.default_rng(seed).random(len(names)) < 0.6
    linear = frozenset(name for name, taken in zip(names, chosen, strict=True) if taken)
    inputs = inputs_of(model, 2)

    merged = build(teacher, teacher.full.linearise(*linear))

    onnx.checker.check_model(onnx.ModelProto.FromString(serialize(merged)), full_check=True)
    outputs = run(merged, inputs)
    assert_same_outputs(run(linearised(teacher, linear), inputs), outputs, relative=1e-5)
    assert_torch_agrees(merged, inputs, outputs)
    convolutions = [sum(node.op_type == "Conv" for node in each.graph) for each in (teacher.model, merged)]
    assert convolutions[0] - convolutions[1] == len(linear)
    assert {layer.name for layer in Teacher(merged).layers} == {layer.name for layer in teacher.layers} - linear


@GRAPH_SETTINGS
@given(cnn_models(), st.integers(0, 2**16))
def test_a_merged_network_is_narrowed_and_costed_as_it_is_built(model: ir.Model, seed: int) -> None:
    teacher = Teacher(model)
    random = np.random.default_rng(seed)
    removable = [layer.name for layer in teacher.layers if layer.removable]
    removed = teacher.repaired(frozenset(name for name in removable if random.random() < 0.2))
    linear = frozenset(link.layer for link in teacher.links if random.random() < 0.6)
    base = teacher.base_graph(removed, linear)
    widths = [int(random.integers(1, group.width + 1)) if group.shrinkable else group.width for group in base.groups]
    architecture = teacher.full.remove(*removed).linearise(*linear)
    for group, width in zip(base.groups, widths, strict=True):
        if group.shrinkable:
            architecture = architecture.resize(group.name, width)

    student = build(teacher, architecture)

    inputs = inputs_of(model, 2)
    assert [array.shape for array in run(student, inputs)] == [array.shape for array in run(model, inputs)]
    found, known = WidthCosts(base).costs(np.array([widths], np.int64)), costs(student)
    assert (int(found.params[0]), int(found.macs[0])) == (known.params, known.macs)


@pytest.mark.parametrize("path", [teacher_path(), MOBILENET], ids=["example", "mobilenet-v2"])
def test_real_networks_with_one_activation_less_are_the_same_merged(path: Path) -> None:
    teacher = Teacher.load(path)
    inputs = inputs_of(teacher.source, 2)
    for link in teacher.links[:: max(1, len(teacher.links) // 5)]:
        linear = frozenset({link.layer})
        merged = build(teacher, teacher.full.linearise(link.layer))
        assert_same_outputs(run(linearised(teacher, linear), inputs), run(merged, inputs), relative=1e-5)


def test_an_inverted_residual_becomes_one_convolution() -> None:
    teacher = inverted()
    assert len(teacher.links) == 4
    merge = max(merges_of(teacher.links), key=lambda each: len(each.layers))

    merged = build(teacher, teacher.full.linearise(*merge.linear))

    kernels = [tuple(node.attributes.get_ints("kernel_shape") or ()) for node in merged.graph if node.op_type == "Conv"]
    assert sorted(kernels) == [(1, 1), (1, 1), (3, 3), (3, 3), (3, 3)]
    assert not merge.exact_borders
    assert sum(node.op_type == "BatchNormalization" for node in merged.graph) == 5
    assert costs(merged).macs < costs(teacher.model).macs


def test_a_network_without_biases_and_padding_between_merges_exactly() -> None:
    teacher = inverted(batch_norm=False, blocks=1)
    by_layer = {link.layer: link for link in teacher.links}
    expand, depthwise = teacher.layers[1], teacher.layers[2]

    assert by_layer[expand.name].into == depthwise.name
    assert not by_layer[expand.name].exact_borders  # its bias is what lies beyond the border
    assert by_layer[depthwise.name].exact_borders  # a pointwise one pads nothing


def test_only_layers_that_have_one_reader_which_is_a_convolution_can_be_merged() -> None:
    teacher = inverted()
    last = teacher.layers[-1].name

    with pytest.raises(ValueError, match="can't be merged with what reads it"):
        teacher.full.linearise(last)
    with pytest.raises(ValueError, match="isn't in the network"):
        teacher.full.linearise("nowhere")


def test_merges_are_part_of_what_an_architecture_is() -> None:
    teacher = inverted()
    name = teacher.links[0].layer
    merged = teacher.full.linearise(name)

    assert merged != teacher.full
    assert merged.key != teacher.full.key
    assert merged.to_json() == {"removed": [], "widths": {}, "linear": [name]}
    assert "linear" not in teacher.full.to_json()
    assert teacher.architecture([], {}, linear=[name]) == merged
    assert merged.linearise() == teacher.full
    assert Architecture() == teacher.full


def test_a_layer_whose_reader_is_removed_stays_as_it_is() -> None:
    teacher = inverted(blocks=1)
    expand, depthwise, project = teacher.layers[1:4]
    removed = teacher.full.remove(depthwise.name)

    both = build(teacher, removed.linearise(expand.name))

    inputs = inputs_of(teacher.source, 2)
    model = build(teacher, removed)
    kinds = [node.op_type for node in both.graph]
    assert kinds.count("Conv") == [node.op_type for node in model.graph].count("Conv") - 1  # the next reader takes it
    assert [array.shape for array in run(both, inputs)] == [array.shape for array in run(model, inputs)]
    gone = teacher.full.remove(depthwise.name, project.name).linearise(expand.name) if project.removable else None
    assert gone is None or run(build(teacher, gone), inputs)
