"""Examples of a report: what teacher and student say of test images, the worst first."""

import base64
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.graph.load import save_model
from n2n_edge.report.html import render_html
from n2n_edge.runs.examples import worst_examples
from n2n_edge.tasks.marks import Box, Marks
from n2n_edge.tasks.task import Outputs, arrays_of
from n2n_edge.tasks.values import Values
from tests.report.sample import sample_document
from tests.training.small import small_cnn

SIDE = 16


class Boxes(Values):
    """A box that is as wide as the first output says, over a map of what is bright."""

    def marks(self, outputs: Outputs) -> list[Marks]:
        (values,) = arrays_of(outputs)
        area = np.zeros((SIDE, SIDE), np.uint8)
        area[:2] = 1
        return [Marks((Box((0.0, 0.0, float(row[0]), 4.0), 1, 0.5),), ((1.0, 2.0),), area) for row in values]


def data(task: Values) -> Data:
    pixels = np.random.default_rng(0).integers(0, 255, (12, SIDE, SIDE, 1), dtype=np.uint8)
    split = Split(pixels, None)
    return Data(split, split, split, ("cat", "dog"), Preprocessing((SIDE, SIDE), channels=1), task=task)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "teacher.onnx", tmp_path / "student.onnx"
    for seed, path in enumerate(paths):
        save_model(small_cnn(width=4, classes=3, seed=seed), path)
    return paths


def test_the_worst_come_first_and_are_drawn(files: tuple[Path, Path]) -> None:
    examples = worst_examples(*files, data(Boxes()))
    assert examples is not None
    agreements = [each["agreement"] for each in examples["images"]]
    assert len(agreements) == 6
    assert agreements == sorted(agreements)
    first = examples["images"][0]
    kinds = {key: Image.open(BytesIO(base64.b64decode(text.partition(",")[2]))) for key, text in (
        ("image", first["image"]), ("area", first["teacher"]["area"]),
    )}  # fmt: skip
    assert kinds["image"].size == (first["width"], first["height"]) == (SIDE, SIDE)
    assert kinds["area"].convert("RGBA").getpixel((0, 0))[3] > 0  # class 1 is seen,
    assert kinds["area"].convert("RGBA").getpixel((0, SIDE - 1))[3] == 0  # class 0 is not

    document = sample_document()
    document["examples"] = examples
    page = render_html(document, document["search"]["candidates"])
    assert page.count("Student</p>") == 6
    assert "dog 0.50" in page


def test_a_file_against_itself_agrees(files: tuple[Path, Path]) -> None:
    examples = worst_examples(files[0], files[0], data(Boxes()))
    assert examples is not None
    assert {each["agreement"] for each in examples["images"]} <= {1.0, None}
    assert all(each["teacher"] == each["student"] for each in examples["images"])


def test_values_have_no_place_in_an_image(files: tuple[Path, Path]) -> None:
    assert worst_examples(*files, data(Values())) is None
    assert worst_examples(*files, replace(data(Values()), task=None)) is None
