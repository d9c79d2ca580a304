"""Post-training quantization: what it is measured against."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.graph.costs import counted
from n2n_edge.graph.teacher import Teacher
from n2n_edge.quantize import ptq
from n2n_edge.quantize.equalise import Equalised
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.ptq import Validation, lost_in_words, post_train
from n2n_edge.quantize.qdq import folded
from tests.runs.small import CLASSES, images_npz, teacher_file


@pytest.fixture
def teacher(tmp_path: Path) -> ir.Model:
    return Teacher.load(teacher_file(tmp_path / "teacher.onnx")).model


@pytest.fixture
def data(tmp_path: Path) -> Data:
    source = images_npz(tmp_path / "images.npz", labels=False)
    preprocessing = Preprocessing((12, 12), mean=(0.0,) * 3, std=(1.0,) * 3)
    return load_data(str(source), preprocessing=preprocessing, classes=CLASSES)


def student_of(teacher: ir.Model) -> ir.Model:
    """A network that gives other classes than its teacher."""
    student = teacher.clone()
    weights = student.graph.initializers["fc.weight"]
    assert weights.const_value is not None
    weights.const_value = ir.tensor(np.ascontiguousarray(weights.const_value.numpy()[::-1]), name="fc.weight")
    return student


def test_a_students_drop_is_what_it_lost_to_its_own_float_form(teacher: ir.Model, data: Data) -> None:
    student = student_of(teacher)
    alone = Validation(teacher, data, data.train, 64)
    validation = Validation(teacher, data, data.train, 64, twin=student)
    assert alone.drop(student) > 30
    assert validation.drop(student) == 0
    said: list[str] = []
    found = post_train(student, data, validation, QuantizationPlan(), images=16, methods=("minmax",), watch=said.append)
    assert abs(found.drop) < 10
    assert set(found.drops) == set(found.steps) == {"calibrated", "equalised", "corrected"}
    assert all("the float twin" in text for text in said)


def test_training_form_is_that_of_what_ships(teacher: ir.Model, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    validation = Validation(teacher, data, data.train, 64)
    monkeypatch.setattr(
        Validation, "drop", lambda self, model: sum(node.op_type == "QuantizeLinear" for node in model.graph)
    )
    monkeypatch.setattr(Validation, "drop_of", lambda self, outputs: 100.0)
    found = post_train(teacher, data, validation, QuantizationPlan(), images=16, methods=("minmax",), max_drop=2)
    assert found.returned
    assert found.drop == found.drops["returned"] <= 2
    assert found.training is not None
    assert weights_of(folded(found.training)) == weights_of(found.model)


def weights_of(model: ir.Model) -> dict[str, bytes]:
    return {name: held.const_value.tobytes() for name, held in model.graph.initializers.items() if held.const_value}


def test_a_gain_is_called_one() -> None:
    assert lost_in_words(0.5) == "0.50 points lost to the float twin"
    assert lost_in_words(-0.5) == "0.50 points gained on the float twin"


def test_of_large_values_a_batch_has_fewer_images(
    teacher: ir.Model, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All values of a batch are kept: what they weigh decides, besides the size of images."""
    seen: list[int] = []
    plain = ptq.equalised

    def noted(model: ir.Model, batches: list[dict[str, np.ndarray]]) -> Equalised:
        seen.extend(len(next(iter(batch.values()))) for batch in batches)
        return plain(model, batches)

    monkeypatch.setattr(ptq, "equalised", noted)
    validation = Validation(teacher, data, data.train, 16)
    each = counted(teacher).amounts.node_output_bytes[:, 0].sum()
    for room, most in ((1e9, 16), (3.5 * each, 3), (0.1 * each, 1)):
        seen.clear()
        monkeypatch.setattr(ptq, "_VALUES_BYTES", room)
        post_train(teacher, data, validation, QuantizationPlan(), images=16, methods=("minmax",), max_drop=np.inf)
        assert (sum(seen), max(seen)) == (16, most)
