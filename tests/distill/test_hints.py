"""Feature hints compare what student and teacher have in common; teachers say nothing twice."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from n2n_edge.distill import Data, DistillSettings, EpochReport, StepReport, distill
from n2n_edge.distill.executor import GraphModule
from n2n_edge.distill.hints import FeatureHints
from n2n_edge.distill.reconstruct import Kept
from n2n_edge.distill.teaching import Teaching
from n2n_edge.graph import Teacher, build, surviving
from tests.distill.small import small_cnn

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
    assert hints.count == 2  # 16 and 8 pixels; what the head sees is no feature map
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
    assert FeatureHints(other, GraphModule(teacher.model), {}, torch.rand(1, 1, 16, 16)).count == 0


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
    teaching = Teaching(module, striped_data, settings, None, bf16=False)
    assert teaching.rounds == 2
    lessons = [list(teaching.epoch(epoch)) for epoch in (1, 2, 3)]
    assert module.batches == 2 * len(lessons[0])
    for (first, said, _), (again, repeated, _) in zip(
        lessons[1], lessons[2], strict=True
    ):  # the first epoch isn't augmented
        assert torch.equal(first.inputs, again.inputs)
        assert torch.equal(said[0], repeated[0])
    assert not torch.equal(lessons[0][0][0].inputs, lessons[1][0][0].inputs)
    # one that begins later, as a resumed run does, gives the same
    late = next(islice(Teaching(module, striped_data, settings, None, bf16=False).epoch(3), 1))
    assert torch.equal(late[1][0], lessons[2][0][1][0])


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
