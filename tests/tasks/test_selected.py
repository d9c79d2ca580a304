"""Detectors with their own suppression inside are distilled by what goes into it, weighted by the teacher's scores."""

import pickle
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.labels.values import Objects
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.teacher import Teacher
from n2n_edge.tasks.boxes import Detections
from n2n_edge.tasks.channels import channel_scales
from n2n_edge.tasks.choice import choose_task
from n2n_edge.tasks.conformance import check_task
from n2n_edge.tasks.detection import Detection
from n2n_edge.tasks.head import OutputForm
from n2n_edge.tasks.selected import selected_in
from n2n_edge.tasks.selected_loss import selected_loss
from n2n_edge.training.settings import DistillSettings
from tests.graph.test_free_batch import CHANNELS, SIZE, Net

CLASSES, ANCHORS = 3, SIZE * SIZE
RANDOM = np.random.default_rng(0)


def suppressing(*, end: str = "Sigmoid") -> ir.Model:
    """Return a detector of an anchor a cell that ends in NonMaxSuppression: boxes, scores and classes of what stays."""
    net = Net()
    y = net.op("Relu", net.conv("x", 3, CHANNELS))
    low, wide = (net.op("Mul", net.op("Sigmoid", net.conv(y, CHANNELS, 2)), net.constant(4.0)) for _ in range(2))
    boxes = net.op("Concat", low, net.op("Add", low, wide), axis=1)
    boxes = net.op("Reshape", boxes, net.ints(1, 4, -1))
    boxes = net.op("Transpose", boxes, perm=[0, 2, 1])
    scores = net.op("Reshape", net.conv(y, CHANNELS, CLASSES), net.ints(1, CLASSES, -1))
    scores = net.op(end, scores, **({"axis": 1} if end == "Softmax" else {})) if end else scores
    kept = net.op(
        "NonMaxSuppression", boxes, scores, net.ints(5), net.constant([0.5]), net.constant([0.1])
    )  # image, class, box
    columns = [net.op("Gather", kept, net.constant(place, np.int64), axis=1) for place in (1, 2)]
    outputs = [
        net.op("Gather", net.op("Squeeze", boxes, net.ints(0)), columns[1], axis=0),
        net.op("GatherND", scores, net.op("Gather", kept, net.ints(0, 1, 2), axis=1)),
        net.op("Cast", columns[0], to=1),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE])]
    graph = helper.make_graph(net.nodes, "g", given, infos, net.constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Teacher(ir.from_proto(made)).model


def as_they_are(outputs: list[NDArray[Any]]) -> object:
    return outputs[0], outputs[1], outputs[2]


def with_labels(images: NDArray[np.uint8], labels: list[Objects] | None) -> Data:
    split = Split(images, None, None, labels)
    return Data(split, split, split, (), Preprocessing((SIZE, SIZE)))


def detection(model: ir.Model, labels: list[Objects] | None = None) -> tuple[Detection, list[torch.Tensor]]:
    """Return the task, and what the model gives to learn for some images."""
    images = RANDOM.integers(0, 255, (6, SIZE, SIZE, 3), dtype=np.uint8)
    data = with_labels(images, labels)
    task = choose_task(model, data, decode=f"{__name__}:as_they_are")[1].task
    assert isinstance(task, Detection)
    outputs = ImageSession.learned(model).run(data.inputs(images))
    return task, [torch.from_numpy(np.ascontiguousarray(output)) for output in outputs]


@pytest.mark.parametrize("end", ["Sigmoid", "Softmax", ""])
def test_objects_count_more_than_background(end: str) -> None:
    task, teacher = detection(suppressing(end=end))
    assert task.tail is not None
    assert task.selected is not None
    boxes, scores = task.selected.pairs[0]
    assert teacher[boxes].shape == (6, ANCHORS, 4)
    assert teacher[scores].shape == (6, CLASSES, ANCHORS)
    low, high = (-8.0, 3.0) if not end else (0.001, 0.95)
    teacher[scores][:] = low
    if end == "Softmax":  # the first class is that nothing is there
        teacher[scores][:, 0] = 1 - 2 * low
        teacher[scores][:, 0, 5] = 1 - low - high
    teacher[scores][:, 2, 5] = high  # all that is seen

    def loss(anchor: int | None) -> float:
        student = [each.clone() for each in teacher]
        if anchor is not None:
            student[boxes][:, anchor] += 1.0
        return float(task.loss(student, teacher, None, DistillSettings()))

    assert loss(None) == pytest.approx(0, abs=1e-6)
    assert loss(5) > 100 * loss(17) > 0
    assert pickle.loads(pickle.dumps(task)).loss(teacher, teacher, None, DistillSettings()) == loss(None)


def test_gradients_reach_boxes_and_scores() -> None:
    task, teacher = detection(suppressing())
    student = [(each + 0.05).requires_grad_() for each in teacher]
    task.loss(student, teacher, None, DistillSettings()).backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is not None and bool(each.grad.any()) for each in student)


def test_labels_teach_where_it_shows_how_boxes_are_written() -> None:
    labels = [Objects(np.array([[1, 1, 5, 6]], np.float32), np.array([2]))] * 6
    task, teacher = detection(suppressing(), labels)
    assert task.code == "corners pixels"
    check_task(task, [each.numpy() for each in teacher], labels=labels, agreement=False)
    unlabelled, _ = detection(suppressing())
    assert unlabelled.code is None
    assert unlabelled.taught(labels, torch.device("cpu")) is None


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("unit", ["pixels", "shares"])
@pytest.mark.parametrize("form", ["corners", "centres", "rows"])
def test_codes_are_told_by_what_comes_out(form: str, unit: str, background: bool) -> None:
    height, width, count = 96, 128, 12
    low = RANDOM.uniform(0, 60, (2, count, 2))
    corners = np.concatenate([low, low + RANDOM.uniform(5, 35, low.shape)], axis=2).astype(np.float32)
    scores = RANDOM.uniform(0, 1, (2, count, CLASSES + background)).astype(np.float32)
    found = [
        Detections(boxes, each[np.arange(count), background + kinds], kinds)
        for boxes, each, kinds in zip(corners, scores, RANDOM.integers(0, CLASSES, (2, count)), strict=True)
    ]
    written = corners / np.array([width, height] * 2, np.float32) if unit == "shares" else corners
    match form:
        case "centres":
            written = np.concatenate(
                [(written[..., :2] + written[..., 2:]) / 2, written[..., 2:] - written[..., :2]], 2
            )
        case "rows":
            written = written[..., [1, 0, 3, 2]]
    selected = selected_in(forms((count, 4), (count, CLASSES + background)))
    assert selected is not None
    code = f"{form} {unit}{' background' if background else ''}"
    assert selected.code_of([written, scores], found, (height, width)) == code
    head = selected.coded(code, (height, width))
    assert head.boxes is not None
    assert head.boxes.decode(written) == pytest.approx(corners, abs=1e-3)
    assert head.boxes.decode(torch.from_numpy(written)).numpy() == pytest.approx(corners, abs=1e-3)
    assert selected.code_of([written + 20, scores], found, (height, width)) is None
    assert selected.code_of([written, 1 - scores], found, (height, width)) is None


def forms(*shapes: tuple[int, ...]) -> list[OutputForm]:
    return [OutputForm(f"v{place}", shape, (), frozenset({"Sigmoid"})) for place, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("shapes", "pairs", "others"),
    [
        ([(50, 4), (50, 3)], ((0, 1),), ()),
        ([(3, 50), (4, 50)], ((1, 0),), ()),
        ([(50,), (50, 1, 4)], ((1, 0),), ()),
        ([(50, 4), (50, 4)], ((0, 1),), ()),  # of four classes
        ([(50, 4), (50, 3), (20, 4), (20, 3), (7,)], ((0, 1), (2, 3)), (4,)),
        ([(50, 4), (50, 3), (32, 9, 9)], ((0, 1),), (2,)),
        ([(50, 4), (20, 3)], None, ()),
        ([(50, 7)], None, ()),
        ([], None, ()),
    ],
)
def test_boxes_and_scores_are_told_by_their_sizes(
    shapes: list[tuple[int, ...]], pairs: tuple[tuple[int, int], ...] | None, others: tuple[int, ...]
) -> None:
    found = selected_in(forms(*shapes))
    if found is None:
        assert pairs is None
        return
    assert found.pairs == pairs
    assert found.others == others
    tensors = [torch.rand(2, *shape) for shape in shapes]
    scales = channel_scales([tensors])
    assert float(selected_loss(found, tensors, tensors, scales)) == pytest.approx(0, abs=1e-6)
    assert float(selected_loss(found, [each * 0.9 for each in tensors], tensors, scales)) > 0
