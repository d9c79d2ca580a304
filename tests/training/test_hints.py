"""Feature hints compare what student and teacher have in common; teachers say nothing twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.training.compute import Engine
from n2n_edge.training.distillation import distill
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.hints import FeatureHints
from n2n_edge.training.reconstruct import Kept
from n2n_edge.training.reports import EpochReport, StepReport
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.teacher_outputs import Teaching, affordable_epochs
from tests.training.small import small_cnn

pytestmark = pytest.mark.processor

SETTINGS = DistillSettings(epochs=5, batch_size=32, teacher_images=400, calibration_images=128, threads=1)


def cut(teacher: Teacher) -> tuple[GraphModule, Kept]:
    """Return a student with every group at half its width, and the channels that it kept."""
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, group.width // 2)
    return GraphModule(build(teacher, architecture)), surviving(teacher, architecture)


@pytest.fixture
def teacher() -> Teacher:
    return Teacher(small_cnn(width=8, classes=3))


def test_hints_compare_the_last_feature_map_of_every_size_at_the_kept_channels(teacher: Teacher) -> None:
    student, kept = cut(teacher)
    whole, images = GraphModule(teacher.model), torch.rand(2, 1, 16, 16)
    hints = FeatureHints(student, whole, kept, images)
    assert len(hints.names) == 2  # 16 and 8 pixels; what the head sees is no feature map
    with torch.no_grad():
        own, aim = (dict(hints.run(module, images)[1]) for module in (student, whole))
    assert {name: value.shape[1] for name, value in own.items()} == {
        name: value.shape[1] // 2 for name, value in aim.items()
    }
    assert float(hints.distance(own, aim)) > 0
    same = {name: value[:, torch.from_numpy(np.asarray(kept[name]))] for name, value in aim.items()}
    assert float(hints.distance(same, aim)) == 0


def test_networks_without_a_feature_map_in_common_have_no_hints(teacher: Teacher) -> None:
    other = GraphModule(small_cnn(width=6, classes=3))
    assert FeatureHints(other, GraphModule(teacher.model), {}, torch.rand(1, 1, 16, 16)).names == ()


CPU = Engine(torch.device("cpu"))


class Counting(GraphModule):
    """Counts the batches that it sees."""

    batches = 0

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        self.batches += 1
        return super().forward(*inputs)


def test_batches_come_back_with_what_the_teacher_said(striped_data: Data, teacher: Teacher) -> None:
    module = Counting(teacher.model)
    images = len(striped_data.train)
    settings = replace(SETTINGS, teacher_images=2 * images)
    teaching = Teaching(module, striped_data, settings, None, CPU)
    assert teaching.rounds == 3  # the first, and two that are augmented
    lessons = [[lesson for _, batch in teaching.epoch(epoch) for lesson in batch] for epoch in (1, 2, 3, 4)]
    assert module.batches == 3 * len(lessons[0])
    for first, again in zip(lessons[1], lessons[3], strict=True):
        assert torch.equal(first.inputs, again.inputs)
        assert torch.equal(first.teacher[0], again.teacher[0])
    assert not torch.equal(lessons[1][0].inputs, lessons[2][0].inputs)
    # one that begins later, as a resumed run does, gives the same
    _, late = next(Teaching(module, striped_data, settings, None, CPU).epoch(4))
    assert torch.equal(next(late).teacher[0], lessons[3][0].teacher[0])


def test_hints_lead_to_other_weights_and_a_killed_run_to_the_same(
    striped_data: Data, teacher: Teacher, tmp_path: Path
) -> None:
    architecture = teacher.full.resize(teacher.groups[0].name, 4)
    student, kept = build(teacher, architecture), surviving(teacher, architecture)

    def weights(settings: DistillSettings, **more: object) -> dict[str, bytes]:
        model = distill(student, teacher.model, striped_data, settings, kept=kept, **more).model  # type: ignore[arg-type]
        return {name: v.const_value.tobytes() for name, v in model.graph.initializers.items() if v.const_value}

    def kill(report: EpochReport | StepReport) -> None:
        if report.epoch > 3:
            raise InterruptedError

    unbroken = weights(SETTINGS)
    assert weights(replace(SETTINGS, hint_weight=0.0)) != unbroken
    path = tmp_path / "checkpoint"
    with pytest.raises(InterruptedError):
        weights(SETTINGS, checkpoint=path, on_step=kill)
    assert weights(SETTINGS, checkpoint=path) == unbroken


def test_behind_a_removed_layer_that_changed_the_width_nothing_is_compared() -> None:
    random = np.random.default_rng(0)
    weights = {
        "first": random.standard_normal((16, 1, 3, 3)).astype(np.float32),
        "second": random.standard_normal((8, 16, 3, 3)).astype(np.float32),
        "head": random.standard_normal((3, 8 * 64)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "second"], ["b"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["b"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["output"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 16, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    teacher = Teacher(ir.from_proto(model))
    whole = GraphModule(teacher.model)
    architecture = teacher.full.remove(teacher.layers[1].name)
    group = next(group for group in teacher.base_graph(architecture.removed).groups if group.shrinkable)
    for candidate in (architecture, architecture.resize(group.name, 12)):
        student = GraphModule(build(teacher, candidate))
        hints = FeatureHints(student, whole, surviving(teacher, candidate), torch.rand(1, 1, 16, 16))
        assert "pooled" not in hints.names


def test_epochs_are_what_time_allows() -> None:
    settings = DistillSettings(epochs=100, teacher_images=3000)
    assert settings.rounds(1000) == 4

    def epochs(seconds: float, teacher_bytes: float = 40.0, epoch_s: float = 0.0) -> tuple[int, int | None]:
        return affordable_epochs(settings, 1000, seconds, 0.001, 0.009, teacher_bytes, epoch_s)

    assert epochs(0.0) == (3, 128)
    assert epochs(15.0) == (3, 500)  # too little for three epochs of all images
    assert epochs(15.0, epoch_s=2.0) == (3, 300)
    assert epochs(30.5) == (3, None)  # the teacher takes part in all
    assert epochs(4 * 9.0 + 10.5 * 1.0) == (10, None)  # from the fifth on it is silent
    assert epochs(60.5, teacher_bytes=1e9) == (6, None)  # unless its outputs are too large to keep
    assert epochs(1e9) == (100, None)
