import pytest
import torch

from n2n_edge.tasks.channels import channel_scales
from n2n_edge.tasks.detection_loss import anchor_weights, detection_loss
from n2n_edge.tasks.head import Head
from n2n_edge.tasks.heads import fitting_heads
from tests.tasks.test_heads import WRITERS

TAUGHT = [name for name in WRITERS if name not in ("end-to-end", "listed")]


def taught(name):
    form, outputs, _ = WRITERS[name]()
    (head,) = [head for head in fitting_heads(form) if head.name == name]
    noise = torch.Generator().manual_seed(0)
    teacher = [torch.from_numpy(output) for output in outputs]
    others = [[each + 0.01 * torch.rand(each.shape, generator=noise) for each in teacher] for _ in range(4)]
    return head, teacher, channel_scales(others)


@pytest.mark.parametrize("name", TAUGHT)
def test_the_loss_falls_to_nought_as_outputs_approach_the_teachers(name):
    head, teacher, scales = taught(name)
    noise = torch.Generator().manual_seed(1)
    apart = [torch.rand(each.shape, generator=noise) for each in teacher]
    losses = [
        float(
            detection_loss(
                [each + far * shift for each, shift in zip(teacher, apart, strict=True)], teacher, head, scales
            )
        )
        for far in (0.5, 0.1, 0.01, 0.0)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 0.001
    assert losses[-1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", TAUGHT)
def test_boxes_count_where_the_teacher_sees_something(name):
    head, teacher, scales = taught(name)
    weights = anchor_weights(head, teacher)
    assert (weights > 0.5).sum() == 3
    seen = int(weights[0].argmax())
    empty = int(weights[0].argmin())
    grown = {anchor: _moved(head, teacher, scales, anchor) for anchor in (seen, empty)}
    assert grown[seen] > 10 * grown[empty] > 0


def _moved(head: Head, teacher, scales, anchor):
    """Give the loss where the edges at one anchor are others."""
    student = [each.clone() for each in teacher]
    for output, layout in zip(student, head.layouts, strict=True):
        place = anchor - layout.start
        rows = output.flatten(2).transpose(1, 2) if layout.axis == 1 else output
        start = 0
        for width, role in layout.parts:
            if role in ("box", "distribution") and 0 <= place < layout.stop - layout.start:
                far = 60.0 if role == "distribution" else 1.0
                rows[0, place, start : start + width] += torch.linspace(0.1, far, width)
            start += width
    return float(detection_loss(student, teacher, head, scales))


def test_gradients_reach_every_output():
    head, teacher, scales = taught("yunet")
    student = [(each + 0.1).requires_grad_() for each in teacher]
    detection_loss(student, teacher, head, scales).backward()
    assert all(each.grad is not None and bool(each.grad.abs().sum() > 0) for each in student)


def test_heads_that_select_say_nothing_of_their_outputs():
    form, outputs, _ = WRITERS["listed"]()
    (head,) = fitting_heads(form)
    tensors = [torch.from_numpy(output) for output in outputs]
    with pytest.raises(ValueError, match="head listed doesn't say"):
        detection_loss(tensors, tensors, head, [])
