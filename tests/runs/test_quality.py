"""What a run says of a student that has lost most of its teacher's score, or that anybody could guess as well as."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import onnx
import pytest

import n2n_edge
from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.graph.load import load_model
from n2n_edge.report.document import RunReport
from n2n_edge.runs.quality import quality_of
from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.task import Labels, Meter, Outputs
from tests.graph.test_free_batch import Net

if TYPE_CHECKING:
    from n2n_edge.runs.prepare import Prepared

CLASSES, SIZE = 6, 12


def teacher(path: Path) -> Path:
    """Tells by the mean colour which of three channels is bright, and whether very much so."""
    net = Net()
    y = net.op("Relu", net.conv("x", 3, 8))
    mixed = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv(y, 8, 8))))
    colour = net.op("Flatten", net.op("GlobalAveragePool", "x"))
    weights = np.concatenate([10 * np.eye(3), 20 * np.eye(3)]).astype(np.float32)
    bias = np.array([0.0] * 3 + [-6.0] * 3, np.float32)
    scores = net.op("Gemm", colour, net.constant(weights, np.float32), net.constant(bias, np.float32), transB=1)
    small = np.random.default_rng(1).normal(0, 0.001, (CLASSES, 8)).astype(np.float32)
    scores = net.op("Add", scores, net.op("Gemm", mixed, net.constant(small, np.float32), transB=1))
    onnx.save(net.model(scores, ["N", 3, SIZE, SIZE], ["N", CLASSES]), path)
    return path


def images(path: Path, *, shuffled: bool = False) -> Path:
    random = np.random.default_rng(0)
    kinds = np.arange(600) % CLASSES
    pixels = random.integers(0, 20, (len(kinds), SIZE, SIZE, 3))
    pixels[np.arange(len(kinds)), :, :, kinds % 3] += np.where(kinds < 3, 90, 220)[:, None, None]
    np.savez(path, x=pixels.astype(np.uint8), y=random.permutation(kinds) if shuffled else kinds)
    return path


def compressed(folder: Path, data: Path) -> n2n_edge.Run:
    return n2n_edge.compress(
        teacher(folder / "t.onnx"), data=data, mean=(0.0,), std=(1.0,), device="raspberry-pi-4", effort="quick",
        candidates=2, epochs=1, seed=1, out=folder / "run",
    )  # fmt: skip


def told(report: RunReport) -> dict[str, str]:
    return dict(zip(report["warning_codes"], report["warnings"], strict=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> n2n_edge.Run:
    folder = tmp_path_factory.mktemp("run")
    return compressed(folder, images(folder / "data.npz"))


def shipped(run: n2n_edge.Run, order: list[int], out: Path) -> dict[str, str]:
    """Ship the student with the colours' scores in another order; -1 leaves a class without any."""
    module = n2n_edge.load_student(run.student)
    for parameter in module.state_dict().values():
        if parameter.shape[:1] == (CLASSES,):
            kept = parameter.clone()
            for row, source in enumerate(order):
                parameter[row] = kept[source] if source >= 0 else 0
    return told(run.ship(module, out=out).report)


def test_a_student_that_keeps_the_score_is_told_nothing(run: n2n_edge.Run) -> None:
    assert run.report["student"]["accuracy"]["value"] > 0.5
    assert not {"poor-student", "student-at-chance"} & {*run.report["warning_codes"]}


def test_a_student_that_has_lost_most_is_poor(run: n2n_edge.Run, tmp_path: Path) -> None:
    warnings = shipped(run, [0, 1, 4, 5, 3, 2], tmp_path / "poor")
    assert "student-at-chance" not in warnings
    assert "the student's accuracy is 33.3%, the teacher's is 100.0%: it was cut too far" in warnings["poor-student"]
    assert warnings["poor-student"].endswith("; give more images, epochs or minutes, or allow more")


def test_a_student_that_always_answers_the_same_is_at_chance(run: n2n_edge.Run, tmp_path: Path) -> None:
    warnings = shipped(run, [-1] * CLASSES, tmp_path / "constant")
    assert "poor-student" not in warnings
    text = "the same answer for every image (16.7%), the teacher's is 100.0%: it was cut too far"
    assert text in warnings["student-at-chance"]


def test_of_a_teacher_that_guesses_there_is_nothing_to_learn(tmp_path: Path) -> None:
    warnings = told(compressed(tmp_path, images(tmp_path / "data.npz", shuffled=True)).report)
    assert {"teacher-at-chance", "student-at-chance"} <= {*warnings}
    assert "there was nothing to learn; check preprocessing, and that labels mean" in warnings["student-at-chance"]


class Picky(Classification):
    """Refuses scores that are no whole numbers, as decoders refuse averages of class numbers."""

    def meter(self) -> Meter:
        plain = super().meter()
        add = plain.add

        def checked(outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
            if any((np.asarray(each) % 1).any() for each in outputs):
                raise IndexError("no whole number")
            add(outputs, teacher, labels)

        plain.add = checked  # type: ignore[method-assign]
        return plain


def test_where_an_average_says_nothing_a_run_says_nothing_of_it(tmp_path: Path) -> None:
    net = Net()
    scores = net.op("Round", net.op("Flatten", net.op("GlobalAveragePool", "x")))
    onnx.save(net.model(scores, ["N", 3, SIZE, SIZE], ["N", 3]), tmp_path / "t.onnx")
    split = Split(np.random.default_rng(0).integers(0, 255, (9, SIZE, SIZE, 3), np.uint8), np.arange(9) % 3)
    data = Data(split, split, split, ("a", "b", "c"), Preprocessing((SIZE, SIZE), pixels="0..255"), task=Picky())
    prepared = SimpleNamespace(
        data=data,
        teacher_data=data,
        student_images=None,
        teacher=SimpleNamespace(model=load_model(tmp_path / "t.onnx")),
        teacher_path=tmp_path / "t.onnx",
    )
    found = quality_of(cast("Prepared", prepared), tmp_path / "t.onnx")
    assert (found.constant, found.notices) == (None, ())
