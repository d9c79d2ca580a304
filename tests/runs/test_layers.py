"""Per-layer rows of a run: the teacher's layers in order, with what they cost before and after."""

from pathlib import Path

import pytest

import n2n_edge
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.load import save_model
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.latency.file_figures import ModelFile
from n2n_edge.runs.layers import layer_rows

EXAMPLE = Path(n2n_edge.__file__).parent / "_example" / "digits_teacher.onnx"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Teacher, frozenset[str], Path]:
    teacher = Teacher.load(EXAMPLE)
    removed = [layer.name for layer in teacher.layers if layer.removable and layer.skip_end][:1]
    architecture = teacher.full.remove(*removed)
    group = next(group for group in teacher.base_graph(architecture.removed).groups if group.shrinkable)
    path = tmp_path_factory.mktemp("layers") / "student.onnx"
    save_model(build(teacher, architecture.resize(group.name, 8)), path)
    return teacher, architecture.removed, path


def test_every_layer_of_the_teacher_has_a_row_in_its_order(pair: tuple[Teacher, frozenset[str], Path]) -> None:
    teacher, removed, student = pair
    board = load_profile("raspberry-pi-4")
    rows = layer_rows(teacher, removed, ModelFile(EXAMPLE), ModelFile(student), [board])
    assert [row["name"] for row in rows[:-1]] == [layer.name for layer in teacher.layers]
    assert {row["name"] for row in rows if row["removed"]} == removed
    assert rows[-1]["name"] == "other"
    assert rows[-1]["op_type"] == ""


def test_a_removed_layer_takes_no_time_and_a_prediction_says_that_it_is_one(
    pair: tuple[Teacher, frozenset[str], Path],
) -> None:
    teacher, removed, student = pair
    rows = layer_rows(teacher, removed, ModelFile(EXAMPLE), ModelFile(student), [load_profile("raspberry-pi-4")])
    for row in rows:
        latency = row["latency_ms"]["raspberry-pi-4"]
        assert latency["teacher"] is not None
        assert latency["teacher"]["provenance"] in ("calibrated", "analytic")
        assert (latency["student"] is None) == row["removed"]
        if "channels" in row:
            assert (row["channels"]["after"] is None) == row["removed"]
    assert any(row["channels"]["after"] == 8 for row in rows if "channels" in row)


def test_layers_are_measured_on_this_host(pair: tuple[Teacher, frozenset[str], Path]) -> None:
    teacher, removed, student = pair
    rows = layer_rows(teacher, removed, ModelFile(EXAMPLE), ModelFile(student), [load_profile("cpu")])
    teacher_ms = [row["latency_ms"]["cpu"]["teacher"] for row in rows]
    assert all(figure is None or figure["provenance"] == "measured" for figure in teacher_ms)
    assert sum(figure is not None for figure in teacher_ms) >= len(teacher.layers)


def test_a_device_that_cannot_tell_is_left_out(pair: tuple[Teacher, frozenset[str], Path], tmp_path: Path) -> None:
    teacher, removed, student = pair
    rows = layer_rows(teacher, removed, ModelFile(tmp_path / "gone.onnx"), ModelFile(student), [load_profile("cpu")])
    assert all(not row["latency_ms"] for row in rows)
    assert rows[-1]["name"] != "other"


def test_a_merged_layer_names_the_one_that_it_is_part_of(tmp_path: Path) -> None:
    teacher = Teacher.load(EXAMPLE)
    link = teacher.links[0]
    path = tmp_path / "student.onnx"
    save_model(build(teacher, teacher.full.linearise(link.layer)), path)
    board = load_profile("raspberry-pi-4")

    rows = layer_rows(
        teacher, frozenset(), ModelFile(EXAMPLE), ModelFile(path), [board], linear=frozenset({link.layer})
    )

    merged = {row["name"]: row["merged_into"] for row in rows if "merged_into" in row}
    assert merged == {link.layer: link.into}
    (row,) = (row for row in rows if row["name"] == link.layer)
    assert not row["removed"]
    assert row["channels"]["after"] is None
    assert row["latency_ms"][board.name]["student"] is None
