"""`n2n_edge.compress` from end to end on the built-in example."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import n2n_edge
from n2n_edge import Run
from n2n_edge._example import teacher_path
from n2n_edge.data.source_digits import read as read_digits
from n2n_edge.errors import BudgetMissedError, InputError
from n2n_edge.search.trial import Trial
from tests.runs.small import images_npz, teacher_file
from tests.runs.stopping import begun

pytest.importorskip("sklearn", reason="the built-in example needs scikit-learn")

SMALL = {"device": "raspberry-pi-4", "effort": "quick", "candidates": 3, "epochs": 2}
BUDGETS = {"max_mb": 0.4, "max_latency_ms": 1.6, "max_macs": 6e6}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the built-in images."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    images = read_digits("builtin:digits", (1, 16, 16)).train
    np.savez(path, x=images.images[::3], y=images.labels[::3])
    return path


@pytest.fixture(scope="module")
def result(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return n2n_edge.compress(teacher_path(), data=digits, out=out, corruptions=True, **BUDGETS, **SMALL)  # type: ignore[arg-type]


def test_the_run_folder_holds_what_other_programs_rely_on(result: Run) -> None:
    names = {path.name for path in result.folder.iterdir()}
    assert {"run.toml", "journal.sqlite", "student.onnx", "report.html", "report.json", "model-card.md"} <= names
    assert not [name for name in names if "partial" in name or "checkpoint" in name]


def test_the_shipped_file_meets_every_budget(result: Run) -> None:
    assert result.met
    assert {verdict.budget.cost for verdict in result.verdicts} == {"size_mb", "latency_ms", "macs"}
    assert result.student.stat().st_size <= 0.4e6
    report = json.loads((result.folder / "report.json").read_text())
    assert report["student"]["size_mb"]["value"] == pytest.approx(result.student.stat().st_size / 1e6)


@pytest.mark.processor
def test_the_student_is_smaller_and_still_knows_its_digits(result: Run) -> None:
    report = result.report
    assert report["student"]["params"]["value"] < report["teacher"]["params"]["value"] / 2
    accuracy = report["student"]["accuracy"]
    assert accuracy is not None
    assert float(accuracy["value"]) > 0.8


def test_every_figure_says_where_it_comes_from(result: Run) -> None:
    for model in (result.report["teacher"], result.report["student"]):
        latencies = model["latency_ms"]
        assert latencies["cpu"]["provenance"] == "measured"
        assert latencies["raspberry-pi-4"]["provenance"] == "calibrated"
        assert latencies["raspberry-pi-4"]["low"] < latencies["raspberry-pi-4"]["high"]
        assert model["params"]["provenance"] == "computed"


def test_a_predicted_latency_is_held_by_its_upper_bound_and_names_its_evidence(result: Run) -> None:
    (budget,) = [each for each in result.report["budgets"] if each["cost"] == "latency_ms"]
    reached = budget["reached"]
    assert reached["provenance"] == "calibrated"
    assert float(reached["value"]) < float(reached["high"]) <= 1.6
    assert (budget["met"], budget["accept_expected"]) == (True, False)
    evidence = result.report["device"]["evidence"]
    assert evidence["measured_on"] == "raspberry-pi-4"
    assert any("evidence: " in note for note in result.report["notes"])
    assert not any("evidence: " in warning or "source: " in warning for warning in result.report["warnings"])
    page = (result.folder / "report.html").read_text()
    assert "upper bound at most 1.6 ms" in page
    assert "models timed with" in page


def test_other_conditions_are_judged_at_every_severity(result: Run) -> None:
    conditions = result.report["conditions"]
    assert conditions["metric"] == "accuracy"
    assert len(conditions["rows"]) == 25
    for row in conditions["rows"]:
        assert row["teacher"] is not None
        assert 0 <= float(row["student"]["value"]) <= 1
        assert row["student"]["n"] == result.report["data"]["test"]
    noise = [
        float(row["teacher"]["value"]) for row in conditions["rows"] if row["teacher"] and row["corruption"] == "noise"
    ]
    assert noise[-1] < noise[0]
    for name in ("report.html", "model-card.md"):
        assert "Under other conditions" in (result.folder / name).read_text()


def test_torch_and_onnxruntime_agree_and_the_student_loads_as_a_module(result: Run) -> None:
    import torch

    assert result.report["parity"]["max_relative_error"] < 1e-3
    inputs = np.random.default_rng(0).standard_normal((4, 1, 16, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(result.student), providers=["CPUExecutionProvider"])
    module = n2n_edge.load_student(result.student)
    assert isinstance(module, torch.nn.Module)
    with torch.inference_mode():
        mine = module(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(mine, session.run(None, {"input": inputs})[0], rtol=1e-4, atol=1e-4)


def test_the_file_says_what_it_is(result: Run) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(result.student).metadata_props}
    assert metadata["n2n_edge.device"] == "raspberry-pi-4"
    assert json.loads(metadata["n2n_edge.budgets"])["size_mb"] == 0.4
    assert json.loads(metadata["n2n_edge.metrics.figures"])["latency_ms"]["provenance"] == "calibrated"
    assert "n2n_edge.mean" in metadata


def test_the_journal_holds_every_candidate(result: Run) -> None:
    database = sqlite3.connect(result.folder / "journal.sqlite")
    rows = database.execute("SELECT stage, feasible, accuracy FROM candidates").fetchall()
    database.close()
    assert len(rows) == len(result.report["search"]["candidates"])
    assert {stage for stage, _, _ in rows} == {"removal", "shrinkage"}
    assert all(accuracy is None for _, feasible, accuracy in rows if not feasible)


def proposed(rows: list[Trial]) -> list[tuple[str, int, str]]:
    return [(row.stage, row.number, row.key) for row in rows]


@pytest.fixture
def small(tmp_path: Path) -> dict[str, object]:
    """Settings of a run with a small teacher."""
    teacher, data = teacher_file(tmp_path / "teacher.onnx"), images_npz(tmp_path / "data.npz")
    return {"teacher": teacher, "data": data, "mean": (0.5,), "std": (0.5,), "max_params": 4_000.0, **SMALL}


def test_a_kill_amid_the_search_changes_nothing(small: dict[str, object], tmp_path: Path) -> None:
    words = {**small, "mean": 0.5, "std": 0.5, "out": tmp_path / "broken"}
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in words.items() if name != "teacher"]
    with subprocess.Popen(
        [sys.executable, "-m", "n2n_edge", "compress", str(small["teacher"]), *settings],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert any(line.startswith("removal 1/") for line in lines)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "broken" / "student.onnx").exists()
    again = n2n_edge.compress(out=tmp_path / "broken", resume=True)
    threads = again.settings.threads
    unbroken = n2n_edge.compress(out=tmp_path / "unbroken", threads=threads, **small)  # type: ignore[arg-type]
    assert again.report["architecture"] == unbroken.report["architecture"]
    assert again.student.read_bytes() == unbroken.student.read_bytes()


@pytest.mark.slow
def test_every_policy_goes_its_own_way_through_the_same_door(small: dict[str, object], tmp_path: Path) -> None:
    ways = {
        policy: proposed(begun(tmp_path / policy, searched=True, **{**small, "policy": policy, "candidates": 4}))
        for policy in ("reinforce", "random", "greedy")
    }
    assert all(ways.values())
    assert len({str(way) for way in ways.values()}) == len(ways)


def test_what_cannot_be_reached_is_said_with_the_distance(small: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(BudgetMissedError, match=r"max_params 10: \d+ params, \d+% over") as caught:
        n2n_edge.compress(out=tmp_path / "run", **{**small, "max_params": 10.0})  # type: ignore[arg-type]
    assert caught.value.exit_code == 1
    assert not (tmp_path / "run" / "student.onnx").exists()


def test_a_changed_teacher_stops_a_resumed_run(small: dict[str, object], tmp_path: Path) -> None:
    begun(tmp_path / "run", **small)
    model = onnx.load(str(small["teacher"]))
    model.doc_string = "changed"
    onnx.save(model, str(small["teacher"]))
    with pytest.raises(InputError, match="teacher has changed"):
        n2n_edge.compress(out=tmp_path / "run", resume=True)


def test_resuming_a_finished_run_changes_nothing(result: Run) -> None:
    before = {path.name: path.read_bytes() for path in result.folder.iterdir() if path.suffix != ".sqlite"}
    again = n2n_edge.compress(out=result.folder, resume=True)
    assert again.verdicts == result.verdicts
    assert before == {path.name: path.read_bytes() for path in result.folder.iterdir() if path.suffix != ".sqlite"}
