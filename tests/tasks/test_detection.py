"""Detection: what is read, by a head, a file's own tail or a user's function; agreement, score and loss."""

import pickle
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.labels.values import Mask, Objects
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from n2n_edge.tasks.choice import choose_task
from n2n_edge.tasks.detection import Detection
from n2n_edge.tasks.head import OutputForm, Signature
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.tail import tail_of
from n2n_edge.training.settings import DistillSettings

SIDE, CLASSES = 64, 2
CELLS = 8 * 8 + 4 * 4 + 2 * 2
YOLO = Signature(SIDE, SIDE, (OutputForm("output0", (4 + CLASSES, CELLS)),), frozenset({"Sigmoid", "Concat"}))
TASK = Detection(YOLO, "yolov8", class_names=("cat", "dog"))
RANDOM = np.random.default_rng(0)


def raw(images: int = 3, objects: int = 3, seed: int = 0) -> np.ndarray:
    """Return outputs of a YOLOv8 head with so many objects an image, apart from each other."""
    source = np.random.default_rng(seed)
    outputs = np.zeros((images, 4 + CLASSES, CELLS), np.float32)
    outputs[:, :2] = source.uniform(0, SIDE, (images, 2, CELLS))
    outputs[:, 2:4] = 4.0
    outputs[:, 4:] = source.uniform(0, 0.0005, (images, CLASSES, CELLS))
    for image in range(images):
        for place in range(objects):
            outputs[image, :4, place] = (12 + 20 * place, 10 + 5 * image, 14, 12)
            outputs[image, 4 + place % CLASSES, place] = 0.9 - 0.1 * place
    return outputs


def evaluated(
    own: np.ndarray, teacher: np.ndarray | None = None, labels: object = None, task: Detection = TASK
) -> Evaluation:
    meter = task.meter()
    meter.add([own], None if teacher is None else [teacher], labels)  # type: ignore[arg-type]
    return meter.evaluation()


def labels_of(outputs: np.ndarray) -> list[Objects]:
    found = [each.above(0.3) for each in TASK.read([outputs])]
    return [Objects(each.boxes, each.classes) for each in found]


def test_a_teacher_agrees_with_itself_in_tensors_and_arrays() -> None:
    teacher = raw()
    assert evaluated(teacher, teacher).fidelity == 1.0
    meter = TASK.meter()
    meter.add([torch.from_numpy(teacher)], [torch.from_numpy(teacher)], None)
    assert meter.evaluation().fidelity == 1.0


def test_what_is_missed_and_what_is_nowhere_costs_agreement() -> None:
    teacher = raw()
    some = teacher.copy()
    some[:, 4:, 0] = 0.0
    more = teacher.copy()
    more[:, :4, 40] = np.array([50, 50, 8, 8])
    more[:, 4, 40] = 0.95
    assert evaluated(some, teacher).fidelity == pytest.approx(0.75, abs=0.01)  # half of one class, all of the other
    assert 0.3 < (evaluated(more, teacher).fidelity or 0.0) < 0.95


def test_a_teacher_that_finds_nothing_agrees_with_a_student_that_finds_nothing() -> None:
    nothing = raw(objects=0)
    assert evaluated(nothing, nothing).fidelity == 1.0
    assert evaluated(raw(), nothing).fidelity == 0.0
    assert evaluated(nothing, raw()).fidelity == 0.0


def test_labels_score_by_class_and_images_without_objects_or_labels_are_allowed() -> None:
    outputs = raw()
    labels: list[Objects | None] = [*labels_of(outputs)[:2], None]
    found = evaluated(outputs, None, labels)
    assert found.score == 1.0
    assert set(found.details) == {"ap50", "ap:cat", "ap:dog"}
    empty = Objects(np.zeros((0, 4)), np.zeros(0, np.int64))
    assert evaluated(outputs, None, [labels[0], empty, None]).score == pytest.approx(0.7, abs=0.3)
    assert evaluated(outputs, None, [empty] * 3).score is None


def test_boxes_end_at_the_edges_of_the_input() -> None:
    outputs = raw(images=1)
    outputs[0, :4, 0] = (0, 0, 30, 40)
    boxes = TASK.read([outputs])[0].boxes
    assert boxes.min() >= 0
    assert boxes.max() <= SIDE


def test_the_loss_falls_towards_the_teacher_and_minds_what_the_teacher_sees() -> None:
    teacher, student = torch.from_numpy(raw()), torch.from_numpy(raw(seed=3))
    student[:, 4:] = 0.3
    task = TASK.measured(lambda: [[teacher]])
    steps = [student + share * (teacher - student) for share in (0.0, 0.5, 0.9, 1.0)]
    losses = [float(task.loss([each], [teacher], None, DistillSettings())) for each in steps]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0.0, abs=1e-4)
    object_, background = teacher.clone(), teacher.clone()
    object_[:, :4, 0] += 5.0
    background[:, :4, 50] += 5.0
    near, far = (float(task.loss([each], [teacher], None, DistillSettings())) for each in (background, object_))
    assert far > 20 * near


def test_a_task_is_a_value_that_survives_pickling_also_once_used() -> None:
    TASK.read([raw()])
    again = pickle.loads(pickle.dumps(TASK))
    assert again == TASK
    assert np.array_equal(again.read([raw()])[0].boxes, TASK.read([raw()])[0].boxes)


def test_labels_are_objects_only() -> None:
    images = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    assert TASK.labels(Split(images, None)) is None
    assert TASK.labels(Split(images, None, None, [Mask(images[0, ..., 0]), None])) is None
    assert TASK.labels(Split(images, None, None, [Objects(np.zeros((0, 4)), np.zeros(0, np.int64)), None])) is not None


# functions that people write


def listed(outputs: list[np.ndarray]) -> object:
    boxes = [np.concatenate([image[:2] - 5, image[:2] + 5]).T[:3] for image in outputs[0]]
    return boxes, [image[4][:3] for image in outputs[0]], [np.zeros(3) for _ in outputs[0]]


def two_things(outputs: list[np.ndarray]) -> object:
    return outputs[0], outputs[0]


def of_one_image(outputs: list[np.ndarray]) -> object:
    return outputs[0][:1, :4].transpose(0, 2, 1), outputs[0][:1, 4], outputs[0][:1, 4]


def odd_shapes(outputs: list[np.ndarray]) -> object:
    count = len(outputs[0])
    return np.zeros((count, 5, 3)), np.zeros((count, 5)), np.zeros((count, 5))


def broken_classes(outputs: list[np.ndarray]) -> object:
    count = len(outputs[0])
    return np.zeros((count, 5, 4)), np.zeros((count, 5)), np.full((count, 5), 0.5)


def centres(outputs: list[np.ndarray]) -> object:
    return outputs[0][:, :4].transpose(0, 2, 1), outputs[0][:, 4], outputs[0][:, 5] * 0


def not_finite(outputs: list[np.ndarray]) -> object:
    count = len(outputs[0])
    return np.full((count, 5, 4), np.nan), np.zeros((count, 5)), np.zeros((count, 5))


def failing(outputs: list[np.ndarray]) -> object:
    return outputs[7]


def by(function: Callable[..., object]) -> Detection:
    return Detection(YOLO, f"{__name__}:{function.__name__}")


def test_a_user_s_function_reads_the_outputs() -> None:
    found = by(listed).read([raw()])
    assert [len(each) for each in found] == [3, 3, 3]
    assert (np.diff(found[0].scores) <= 0).all()
    assert evaluated(raw(), raw(), task=by(listed)).fidelity == 1.0
    loss = by(listed).loss([torch.from_numpy(raw())], [torch.from_numpy(raw(seed=4))], None, DistillSettings())
    assert float(loss) > 0


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (two_things, "instead of three things"),
        (of_one_image, "boxes of 1 images for 3"),
        (odd_shapes, "for one image"),
        (broken_classes, "whole numbers"),
        (centres, "not centres and sizes"),
        (not_finite, "aren't finite"),
        (failing, "failing"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_a_function_gives_wrongly_is_told_in_one_line(function: Callable[..., object], text: str) -> None:
    with pytest.raises(InputError, match=text) as error:
        by(function).read([raw()])
    assert "\n" not in str(error.value)


# choice


def data(labels: list[Objects | None] | None = None) -> Data:
    images = RANDOM.integers(0, 255, (3, SIDE, SIDE, 3), dtype=np.uint8)
    split = Split(images, None, None, labels)
    return Data(split, split, split, ("cat", "dog"), Preprocessing((SIDE, SIDE)))


def network(end: Callable[[ir.Value], ir.Node], shape: tuple[int, ...], *, name: str = "output0") -> ir.Model:
    """Return a convolution of the image with an end that gives `shape`."""
    image = ir.Value(name="images", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 3, SIDE, SIDE]))
    weight = ir.Value(name="w", const_value=ir.tensor(RANDOM.normal(size=(6, 3, 8, 8)).astype(np.float32)))
    conv = ir.node("Conv", [image, weight], {"strides": [8, 8]})
    last = end(conv.outputs[0])
    last.outputs[0].name = name
    last.outputs[0].shape, last.outputs[0].dtype = ir.Shape(["N", *shape]), ir.DataType.FLOAT
    nodes = [conv, last]
    while (producer := nodes[1].inputs[0].producer() if nodes[1].inputs[0] is not None else None) is not conv:
        assert producer is not None
        nodes.insert(1, producer)
    graph = ir.Graph([image], [last.outputs[0]], nodes=nodes, initializers=[weight], opset_imports={"": 17}, name="g")
    return ir.Model(graph, ir_version=8)


def reshaped(value: ir.Value) -> ir.Node:
    sizes = ir.node("Constant", [], {"value_ints": [0, 6, 64]})
    return ir.node("Reshape", [value, sizes.outputs[0]])


def test_on_auto_a_map_or_an_embedding_is_no_detector() -> None:
    model = network(lambda value: ir.node("Softmax", [value], {"axis": 1}), (6, 8, 8))
    assert choose_task(model, data())[1].task.name == "segmentation"
    flat = network(lambda value: ir.node("GlobalAveragePool", [value]), (6, 1, 1))
    assert choose_task(flat, data())[1].task.name == "regression"


def test_where_no_head_fits_the_line_names_the_outputs() -> None:
    flat = network(lambda value: ir.node("GlobalAveragePool", [value]), (6, 1, 1))
    with pytest.raises(InputError, match=r"\(N, 6, 1, 1\).*‹decode› package.module:function|\(N, 6, 1, 1\).*decode"):
        choose_task(flat, data(), "detection")


def test_a_function_makes_any_model_a_detector_and_is_recorded() -> None:
    flat = network(lambda value: ir.node("GlobalAveragePool", [value]), (6, 1, 1))
    chosen = choose_task(flat, data(), decode=f"{__name__}:listed")[1].task
    assert isinstance(chosen, Detection)
    recorded = dict(chosen.to_json())
    assert choose_task(flat, data(), decode=str(recorded["reader"]), recorded=recorded)[1].task == chosen
    with pytest.raises(InputError, match="metadata name code for its outputs"):  # which a file can't make run
        choose_task(flat, data(), recorded=recorded)
    with pytest.raises(InputError, match="metadata name code for its task"):
        choose_task(flat, data(), recorded={"task": "some.module:Task"})
    with pytest.raises(InputError, match="decode"):
        choose_task(flat, data(), "regression", decode=f"{__name__}:listed")
    with pytest.raises(InputError, match="nowhere"):
        choose_task(flat, data(), decode="nowhere.at.all:function")


def test_a_graph_without_a_selection_has_no_tail() -> None:
    assert tail_of(network(lambda value: ir.node("Sigmoid", [value]), (6, 8, 8))) is None
