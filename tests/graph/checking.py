"""Everything that must hold of a teacher, whatever its graph: `assert_sound`."""

import random

import numpy as np
import onnx
import onnx_ir as ir

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.load import serialize
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.dead import with_dead_channels
from tests.graph.running import assert_same_outputs, inputs_of, run

__all__ = ["assert_sound", "group_of", "halved"]


def assert_sound(proto: onnx.ModelProto, *, batches: tuple[int, ...] = (1, 3), dead: bool = True) -> Teacher:
    """Return the teacher of `proto` after the checks.

    The full architecture gives the same outputs and is no larger; students of random widths and removals run and give
    outputs of the same shapes, in ONNX Runtime and alike in torch; dropping channels that nothing reads changes
    nothing, which `dead` leaves out where zeros can't be normalised.
    """
    source = ir.from_proto(proto)
    teacher = Teacher(source)
    full = build(teacher, teacher.full)
    for batch in batches:
        inputs = inputs_of(source, batch)
        assert_same_outputs(run(source, inputs), run(full, inputs), relative=1e-6)
    opened = teacher.model.graph.inputs[0].shape != source.graph.inputs[0].shape
    repeats = sum(node.op_type == "Expand" for node in full.graph) if opened else 0
    # what is repeated for every image of a batch that was opened takes some nodes, not weights
    assert len(serialize(full)) <= len(proto.SerializeToString()) + 700 * repeats
    inputs = inputs_of(source, batches[-1])
    shapes = [array.shape for array in run(source, inputs)]
    for seed in range(4):
        student = build(teacher, random_architecture(teacher, seed))
        outputs = run(student, inputs)
        assert [array.shape for array in outputs] == shapes
        assert_torch_agrees(student, inputs, outputs)
    assert_torch_agrees(full, inputs, run(full, inputs))
    if dead:
        assert_dead_channels_count_nothing(teacher, inputs)
    return teacher


def random_architecture(teacher: Teacher, seed: int) -> Architecture:
    chooser = random.Random(seed)
    removable = [layer.name for layer in teacher.layers if layer.removable]
    gone = frozenset(name for name in removable if seed % 2 and chooser.random() < 0.5)
    architecture = teacher.full.remove(*teacher.repaired(gone))
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, chooser.randint(1, group.width))
    return architecture


def halved(teacher: Teacher) -> Architecture:
    """Every group that can shrink at half its width."""
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, group.width // 2)
    return architecture


def assert_torch_agrees(model: ir.Model, inputs: dict[str, np.ndarray], expected: list[np.ndarray]) -> None:
    try:
        import torch

        from n2n_edge.training.executor import GraphModule
    except ImportError:
        return
    module = GraphModule(model)
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(inputs[str(value.name)]) for value in model.graph.inputs))
    arrays = [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
    assert_same_outputs(expected, arrays, relative=1e-4)


def assert_dead_channels_count_nothing(teacher: Teacher, inputs: dict[str, np.ndarray]) -> None:
    keep = {group.name: tuple(range(0, group.width, 2)) for group in teacher.groups if group.shrinkable}
    units = {group.name: group.units for group in teacher.groups}
    dead = [unit for name, kept in keep.items() for index, unit in enumerate(units[name]) if index not in kept]
    model = with_dead_channels(teacher, dead, ignored=True)
    dying = Teacher(model)
    assert_same_outputs(run(model, inputs), run(build(dying, dying.full, keep=keep), inputs), relative=1e-4)


def group_of(teacher: Teacher, weight: str, axis: int = 0):  # type: ignore[no-untyped-def]
    """Return the channel group of one axis of a weight."""
    return next(group for group in teacher.groups if (weight, axis) in group.dims)
