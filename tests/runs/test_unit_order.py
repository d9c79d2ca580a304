"""The order in which a run's channels go: found once, kept in its journal, and left alone in older runs."""

from pathlib import Path

import numpy as np
import pytest

import n2n_edge
from n2n_edge.devices.registry import load_profile
from n2n_edge.runs import unit_order
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.prepare import Prepared, prepare
from n2n_edge.runs.schedule import Schedule
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.unit_order import with_kept_order, with_unit_order
from n2n_edge.search.store import Journal
from tests.runs.small import images_npz, teacher_file
from tests.runs.stopping import begun

SCHEDULE = Schedule("cpu", 16, 64, evaluate_s=0.1)
"""An image takes a tenth of a second; 4% of a minute are 2.4."""


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    settings = CompressSettings(
        teacher=str(teacher_file(tmp_path / "teacher.onnx")), data=str(images_npz(tmp_path / "images.npz")),
        train_device="cpu", train_precision="fp32",
    )  # fmt: skip
    return prepare(settings, (load_profile("cpu"),), RunFolder.new(tmp_path / "run"), RunCallback())


def kept_units(prepared: Prepared) -> np.ndarray:
    return prepared.teacher.base_graph(frozenset()).importance


def test_the_order_is_found_once_and_kept(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal.create(tmp_path / "journal.sqlite", {}) as journal:
        ordered = with_unit_order(prepared, journal, SCHEDULE, None)
        assert not np.array_equal(kept_units(ordered), kept_units(prepared))
        monkeypatch.setattr(unit_order, "data_importance", None)  # isn't asked again
        again = with_unit_order(prepared, journal, SCHEDULE, None)
        np.testing.assert_array_equal(kept_units(again), kept_units(ordered))
        np.testing.assert_array_equal(kept_units(with_kept_order(prepared, journal)), kept_units(ordered))


def test_minutes_bound_the_images_that_are_looked_at(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def importance(teacher: n2n_edge.Teacher, *_: object, images: int) -> np.ndarray:
        asked.append(images)
        return np.full(teacher.labels.count, np.nan)

    monkeypatch.setattr(unit_order, "data_importance", importance)
    for number, minutes in enumerate((None, 1.0, 0.1)):
        with Journal.create(tmp_path / f"{number}.sqlite", {}) as journal:
            with_unit_order(prepared, journal, SCHEDULE, minutes)
    assert asked == [128, 23, 8]


def test_a_run_that_began_without_an_order_goes_on_without(given_run: Path, prepared: Prepared) -> None:
    with Journal.open(given_run / "journal.sqlite") as journal:
        assert with_kept_order(prepared, journal) is not prepared
        journal._write("DELETE FROM meta WHERE key = ?", ("unit_importance",))
        assert with_unit_order(prepared, journal, SCHEDULE, None) is prepared


@pytest.fixture
def given_run(tmp_path: Path) -> Path:
    out = tmp_path / "begun"
    teacher, data = teacher_file(tmp_path / "other.onnx"), images_npz(tmp_path / "other.npz")
    begun(
        out, teacher=teacher, data=data, max_params=3000, effort="quick", candidates=2, epochs=1, train_device="cpu",
        train_precision="fp32",
    )  # fmt: skip
    return out
