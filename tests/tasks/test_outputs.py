"""What a model's outputs are taken as: by its graph, by the labels, or as asked."""

import re

import onnx_ir as ir
import pytest

from n2n_edge.errors import InputError
from n2n_edge.tasks.outputs import OutputsName, choose_outputs, class_count, output_kind
from tests.training.small import small_cnn


def network(end: str = "", *, name: str = "output") -> ir.Model:
    model = small_cnn(width=4, classes=3, end=end)
    model.graph.outputs[0].name = name
    return model


def maps() -> ir.Model:
    model = network()
    middle = next(node.outputs[0] for node in model.graph if node.op_type == "Add")
    middle.shape, middle.dtype = ir.Shape(["batch", 4, 8, 8]), ir.DataType.FLOAT
    model.graph.outputs[0] = middle
    return model


def two() -> ir.Model:
    model = network()
    middle = next(node.outputs[0] for node in model.graph if node.op_type == "Add")
    model.graph.outputs.append(middle)
    return model


@pytest.mark.parametrize(
    ("model", "labels", "numeric", "name", "reason"),
    [
        (network("Softmax"), None, False, "classes", "Softmax"),
        (network("LogSoftmax"), 3, False, "classes", "LogSoftmax"),
        (network(), 3, False, "classes", "labels of 3 classes"),
        (network(), None, True, "values", "no class numbers"),
        (network(name="logits"), None, True, "values", "no class numbers"),
        (network(), None, False, "values", "no labels.*--task classification"),
        (network(name="class_scores"), None, False, "classes", "called 'class_scores'.*--task regression"),
        (network("Sigmoid"), 3, False, "values", "Sigmoid"),
        (maps(), 3, False, "values", r"\(N, 4, 8, 8\)"),
        (two(), None, False, "values", "2 outputs"),
    ],
)  # fmt: skip
def test_outputs_are_guessed_and_the_reason_is_told(
    model: ir.Model, labels: int | None, numeric: bool, name: OutputsName, reason: str
) -> None:
    choice = choose_outputs(model, None, labels=labels, numeric_labels=numeric)
    assert choice.name == name
    assert re.search(reason, choice.reason)


@pytest.mark.parametrize("model", [network(), network("Softmax"), network("Sigmoid"), maps(), two()])
def test_values_may_always_be_asked_for(model: ir.Model) -> None:
    assert choose_outputs(model, "values", labels=3, numeric_labels=False).name == "values"
    assert output_kind(model, "values") == "other"
    assert class_count(model, "values") is None


@pytest.mark.parametrize(("end", "kind"), [("", "logits"), ("Sigmoid", "probabilities"), ("Softmax", "probabilities")])
def test_classes_may_be_asked_for_where_there_are_scores(end: str, kind: str) -> None:
    model = network(end)
    assert choose_outputs(model, "classes", labels=None, numeric_labels=False).name == "classes"
    assert output_kind(model, "classes") == kind
    assert class_count(model, "classes") == 3


@pytest.mark.parametrize("model", [maps(), two()])
def test_what_gives_no_scores_is_no_classifier(model: ir.Model) -> None:
    with pytest.raises(InputError, match=r"task classification: the teacher gives .*task regression"):
        choose_outputs(model, "classes", labels=None, numeric_labels=False)


@pytest.mark.parametrize(("end", "wanted"), [("Softmax", None), ("LogSoftmax", None), ("", "classes")])
def test_labels_that_are_not_one_hot_are_refused_where_classes_are_expected(
    end: str, wanted: OutputsName | None
) -> None:
    with pytest.raises(InputError, match=r"neither class numbers nor one-hot rows.*task regression"):
        choose_outputs(network(end), wanted, labels=None, numeric_labels=True)
