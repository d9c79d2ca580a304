"""Detectors learn from labelled objects: every head that says how its boxes are coded."""

import numpy as np
import pytest
import torch

from n2n_edge.data.labels.values import Objects
from n2n_edge.tasks.boxes import box_iou
from n2n_edge.tasks.conformance import check_task
from n2n_edge.tasks.detection import Detection
from n2n_edge.tasks.detection_labels import _said, as_rows, detection_by_labels
from n2n_edge.tasks.heads import fitting_heads
from tests.tasks import test_heads
from tests.tasks.test_detection_loss import TAUGHT
from tests.tasks.test_heads import BOXES, HEIGHT, KINDS, SCORES, WIDTH, WRITERS

SURE = np.full(3, 0.995, np.float32)


def written(name, scores=SCORES, boxes=BOXES):
    """Give the head of that name, its task, and its outputs for an image with these objects."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_heads, "SCORES", scores)
        patch.setattr(test_heads, "BOXES", boxes)
        form, outputs, _ = WRITERS[name]()
    if name == "fastestdet":  # whose noughts are boxes of half the image
        outputs[0][:, 3:5][np.repeat(outputs[0][:, :1] == 0, 2, axis=1)] = -6
    (head,) = [head for head in fitting_heads(form) if head.name == name]
    return head, Detection(form, name), [output.astype(np.float32) for output in outputs]


def kinds_of(name):
    return KINDS * (name != "scrfd")


def tensors(outputs):
    return [torch.from_numpy(output.copy()) for output in outputs]


def rows(*objects):
    return as_rows(list(objects))


@pytest.mark.parametrize("name", TAUGHT)
def test_scores_and_boxes_in_torch_are_those_that_are_read(name):
    head, _, outputs = written(name)
    random = np.random.default_rng(0)
    outputs = [output + random.uniform(0, 0.1, output.shape).astype(np.float32) for output in outputs]
    raw, said = head.raw(outputs), _said(head, tensors(outputs))
    np.testing.assert_allclose(said.boxes.numpy(), raw.boxes, rtol=1e-4, atol=1e-3)
    read = raw.scores > (0.01 if name != "fastestdet" else 0.05)  # of which only the best class counts
    if name == "ssd":  # noise made these no shares
        read &= raw.scores < 1
    np.testing.assert_allclose(said.scores.exp().numpy()[read], np.minimum(raw.scores[read], 1), rtol=1e-4)
    assert read.any()


@pytest.mark.parametrize("name", TAUGHT)
def test_every_head_passes_the_suite_of_tasks_with_labels(name):
    _, task, outputs = written(name)
    _, _, right = written(name, SURE)
    random = np.random.default_rng(1)

    def noisy(output):
        return (np.concatenate([output] * 6) + random.uniform(0, 0.05, (6, *output.shape[1:]))).astype(np.float32)

    labels = [Objects(BOXES, kinds_of(name))] * 6
    check_task(
        task,
        [noisy(output) for output in outputs],
        labels=labels,
        right=[np.concatenate([output] * 6) for output in right],
        agreement=False,
    )


def loss_of(name, student, teacher, *labels):
    return detection_by_labels(student, teacher, rows(*labels), written(name)[0])


@pytest.mark.parametrize("name", ["nanodet", "yolox", "ssd"])
def test_gradients_are_where_objects_are_and_where_a_labelled_image_has_none(name):
    _, _, outputs = written(name)
    twice = [np.concatenate([output] * 2) for output in outputs]
    student = [each.requires_grad_() for each in tensors(twice)]
    found = loss_of(name, student, tensors(twice), Objects(BOXES, kinds_of(name)), None)
    assert float(found.told) == 0.5
    found.value.backward()
    slopes = sum(each.grad.abs().flatten(1).sum(1) for each in student if each.grad is not None)
    assert float(slopes[0].detach()) > 0
    assert float(slopes[1].detach()) == 0
    nothing = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    empty = loss_of(name, tensors(outputs), tensors(outputs), nothing)
    assert float(empty.told) == 1
    assert float(empty.value) > 0.5  # three are seen where nothing is
    assert float(loss_of(name, tensors(outputs), tensors(outputs), None).value) == 0
    everywhere = np.array([[0, 0, WIDTH, HEIGHT]], np.float32)
    crowd = Objects(everywhere, np.zeros(1, np.int64), np.ones(1, np.bool_))
    assert float(loss_of(name, tensors(outputs), tensors(outputs), crowd).value) < 1e-3


@pytest.mark.parametrize("name", ["nanodet", "yunet", "fastestdet"])
def test_descent_along_the_labels_finds_what_the_teacher_missed(name):
    """An object of which the teacher says nothing is learned, and one that it sees where nothing is labelled goes."""
    head, task, teacher = written(name)
    missed = np.array([[36, 60, 66, 92]], np.float32)
    labels = Objects(np.concatenate([BOXES[:2], missed]), np.append(kinds_of(name)[:2], 0))
    student = [each.requires_grad_() for each in tensors(teacher)]
    optimiser = torch.optim.Adam(student, 0.1)
    losses = []
    for _ in range(120):
        found = loss_of(name, student, tensors(teacher), labels)
        optimiser.zero_grad()
        found.value.backward()
        optimiser.step()
        with torch.no_grad():  # these outputs are behind a Sigmoid
            for output, layout in zip(student, head.layouts, strict=True):
                start = 0
                for width, role in layout.parts:
                    part = output[:, start : start + width] if layout.axis == 1 else output[..., start : start + width]
                    if role == "score":
                        part.clamp_(0.01, 0.99)
                    start += width
        losses.append(float(found.value.detach()))
    assert losses[-1] < 0.3 * losses[0]
    (detections,) = task.read([each.detach().numpy() for each in student])
    seen = detections.above(0.3)
    near = box_iou(labels.boxes, seen.boxes).max(axis=1)
    assert (near > 0.6).all()
    assert len(seen) == 3


def test_an_object_that_a_crop_leaves_little_of_is_neither_there_nor_missing():
    task = written("nanodet")[1]
    objects = Objects(np.array([[0, 0, 40, 40], [50, 10, 90, 60], [0, 0, 12, 8]], np.float32), np.array([0, 1, 2]))
    moved = task.moved(objects, np.array([[1.0, 0, -34], [0, 1, 0]]), (HEIGHT, WIDTH))
    assert moved.boxes.tolist() == [[0, 0, 6, 40], [16, 10, 56, 60]]
    assert moved.classes.tolist() == [0, 1]
    assert moved.crowd.tolist() == [True, False]
    assert task.moved(objects, None, (HEIGHT, WIDTH)) is None
    found = task.taught([moved, None], torch.device("cpu"))
    assert found.shape == (2, 2, 5)
    assert found[:, :, 0].tolist() == [[-2, 1], [-3, -3]]
