"""Accuracy and fidelity, in torch and for the file in ONNX Runtime."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import InputError
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.tasks.choice import metric_name
from n2n_edge.tasks.outputs import output_kind
from n2n_edge.training.distillation import distill
from n2n_edge.training.evaluation import batch_for, evaluate
from n2n_edge.training.file_evaluation import evaluate_file, file_meters
from n2n_edge.training.settings import DistillSettings
from tests.training.small import small_cnn


def with_batch(model: ir.Model, size: int) -> ir.Model:
    fixed = model.clone()
    shape = fixed.graph.inputs[0].shape
    assert shape is not None
    fixed.graph.inputs[0].shape = ir.Shape([size, *list(shape)[1:]])
    return fixed


def detector() -> ir.Model:
    """Make a model of two outputs, one of them with more than two axes."""
    model = small_cnn(width=4, classes=3)
    middle = next(node.outputs[0] for node in model.graph if node.op_type == "Add")
    middle.shape, middle.dtype = ir.Shape(["batch", 4, 8, 8]), ir.DataType.FLOAT
    model.graph.outputs.append(middle)
    return model


def test_accuracy_counts_right_answers(striped_data: Data) -> None:
    model = small_cnn(width=4, classes=3)
    own = np.zeros((len(striped_data.test), 3), np.float32)
    own[np.arange(len(own)), 1] = 1
    bias = model.graph.initializers["head.bias"]
    bias.const_value = ir.tensor(np.float32([0, 1000, 0]), name="head.bias")  # always says class 1
    result = evaluate(model, striped_data.test, striped_data, teacher=model)
    assert striped_data.test.labels is not None
    assert result.score == pytest.approx((striped_data.test.labels == 1).mean())
    assert (result.fidelity, result.n) == (1.0, 96)
    assert result.metric == result.score


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_the_file_is_judged_as_the_graph_is(striped_data: Data, tmp_path: Path, batch: int) -> None:
    student, teacher = small_cnn(width=4, classes=3), small_cnn(width=6, classes=3, seed=1)
    ir.save(with_batch(student, batch) if batch else student, tmp_path / "student.onnx")
    ir.save(teacher, tmp_path / "teacher.onnx")
    in_runtime = evaluate_file(
        tmp_path / "student.onnx", striped_data.test, striped_data, teacher=tmp_path / "teacher.onnx", threads=1
    )
    in_torch = evaluate(student, striped_data.test, striped_data, teacher=teacher)
    assert in_runtime == in_torch


@pytest.mark.parametrize("fidelity", [(True, True), (False, True), (False, False)])
def test_two_files_are_each_run_once(
    striped_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fidelity: tuple[bool, bool]
) -> None:
    paths = tmp_path / "teacher.onnx", tmp_path / "student.onnx"
    for seed, path in enumerate(paths):
        ir.save(with_batch(small_cnn(width=6 - seed, classes=3, seed=seed), 1 + 6 * seed), path)
    compared = [paths[0] if each else None for each in fidelity]
    alone = [
        evaluate_file(path, striped_data.test, striped_data, teacher=teacher, threads=1)
        for path, teacher in zip(paths, compared, strict=True)
    ]
    seen = Counter[str]()
    run = ImageSession.run

    def counting(session: ImageSession, images: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        seen[str(session)] += len(images)
        return run(session, images)

    monkeypatch.setattr(ImageSession, "run", counting)
    meters = file_meters(*paths, striped_data.test, striped_data, fidelity=fidelity, threads=1)
    assert [meter.evaluation() for meter in meters] == alone
    assert sorted(seen.values()) == [96, 96]


def test_other_models_are_judged_by_their_error(striped_data: Data, tmp_path: Path) -> None:
    model = detector()
    assert metric_name(model, striped_data) == "fidelity"
    same = evaluate(model, striped_data.test, striped_data, teacher=model)
    assert (same.score, same.fidelity) == (None, 1.0)
    nearly = model.clone()
    weight = nearly.graph.initializers["stem.weight"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.05), name="stem.weight")
    near = evaluate(nearly, striped_data.test, striped_data, teacher=model).fidelity
    far = evaluate(small_detector_of_other_weights(), striped_data.test, striped_data, teacher=model).fidelity
    assert near is not None
    assert far is not None
    assert 0.9 < near < 1.0
    assert far < near
    ir.save(nearly, tmp_path / "student.onnx")
    ir.save(model, tmp_path / "teacher.onnx")
    shipped = evaluate_file(
        tmp_path / "student.onnx", striped_data.test, striped_data, teacher=tmp_path / "teacher.onnx", threads=1
    )
    assert shipped.fidelity == pytest.approx(near, abs=1e-5)


def small_detector_of_other_weights() -> ir.Model:
    model = small_cnn(width=4, classes=3, seed=9)
    middle = next(node.outputs[0] for node in model.graph if node.op_type == "Add")
    middle.shape, middle.dtype = ir.Shape(["batch", 4, 8, 8]), ir.DataType.FLOAT
    model.graph.outputs.append(middle)
    return model


def test_other_models_are_distilled_too(striped_data: Data) -> None:
    settings = DistillSettings(epochs=3, batch_size=32, threads=1)
    teacher, student = detector(), small_detector_of_other_weights()
    before = evaluate(student, striped_data.test, striped_data, teacher=teacher).fidelity
    result = distill(student, teacher, striped_data, settings)
    after = evaluate(result.model, striped_data.test, striped_data, teacher=teacher).fidelity
    assert before is not None
    assert after is not None
    assert after > before + 0.2


def test_without_labels_and_teacher_there_is_nothing_to_judge_by(striped_data: Data) -> None:
    bare = Split(striped_data.test.images, None)
    result = evaluate(small_cnn(width=4, classes=3), bare, striped_data)
    with pytest.raises(InputError, match="without labels and without a teacher"):
        _ = result.metric


@pytest.mark.parametrize(
    ("end", "kind"),
    [("", "logits"), ("Softmax", "probabilities"), ("LogSoftmax", "log_probabilities"), ("Sigmoid", "other")],
)
def test_the_kind_of_outputs_is_read_from_the_graph(striped_data: Data, end: str, kind: str) -> None:
    model = small_cnn(width=4, classes=3, end=end)
    assert output_kind(model) == kind
    assert metric_name(model, striped_data) == ("fidelity" if kind == "other" else "accuracy")
    bare = replace(striped_data, validation=Split(striped_data.validation.images, None))
    assert metric_name(model, bare) == "fidelity"


@pytest.mark.parametrize(("side", "images"), [(16, 256), (96, 256), (224, 47), (640, 8)])
def test_of_large_images_fewer_are_evaluated_at_a_time(side: int, images: int) -> None:
    split = Split(np.zeros((1, side, side, 3), np.uint8), None)
    data = Data(split, split, split, (), Preprocessing(split.images.shape[1:3]))
    assert batch_for(data) == images
    assert batch_for(data, 4) == 4
