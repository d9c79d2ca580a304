"""`n2n_edge.compress` from end to end on the built-in example."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import n2n_edge
from n2n_edge import Run
from n2n_edge.errors import BudgetMissedError, InputError

pytest.importorskip("sklearn", reason="the built-in example needs scikit-learn")

SMALL = {"device": "raspberry-pi-4", "effort": "quick", "candidates": 3, "epochs": 2}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return n2n_edge.compress(out=out, max_mb=0.4, max_latency_ms=1.6, max_macs=6e6, corruptions=True, **SMALL)  # type: ignore[arg-type]


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


def test_equal_settings_ship_equal_files(result: Run, tmp_path: Path) -> None:
    again = n2n_edge.compress(
        out=tmp_path / "again", max_mb=0.4, max_latency_ms=1.6, max_macs=6e6, corruptions=True, **SMALL
    )  # type: ignore[arg-type]
    assert again.student.read_bytes() == result.student.read_bytes()


def test_a_policy_goes_on_from_another_run(result: Run, tmp_path: Path) -> None:
    later = n2n_edge.compress(out=tmp_path / "later", max_params=60_000.0, policy_from=str(result.folder), **SMALL)  # type: ignore[arg-type]
    assert later.met


@pytest.mark.parametrize("policy", ["random", "greedy"])
def test_the_yardsticks_run_through_the_same_door(policy: str, tmp_path: Path) -> None:
    run = n2n_edge.compress(out=tmp_path / "run", max_params=40_000.0, policy=policy, **SMALL)  # type: ignore[arg-type]
    assert run.met
    assert run.report["search"]["policy"] == policy


def test_what_cannot_be_reached_is_said_with_the_distance(tmp_path: Path) -> None:
    with pytest.raises(BudgetMissedError, match=r"max_params 10: \d+ params, \d+% over") as caught:
        n2n_edge.compress(out=tmp_path / "run", max_params=10.0, **SMALL)  # type: ignore[arg-type]
    assert caught.value.exit_code == 1
    assert not (tmp_path / "run" / "student.onnx").exists()


def test_an_accuracy_that_is_not_reached_is_not_pretended(tmp_path: Path) -> None:
    run = n2n_edge.compress(out=tmp_path / "run", max_params=2_000.0, min_accuracy=0.999, **SMALL)  # type: ignore[arg-type]
    assert not run.met
    assert [verdict.budget.cost for verdict in run.verdicts if not verdict.met] == ["accuracy"]


def test_a_changed_teacher_stops_a_resumed_run(result: Run, tmp_path: Path) -> None:
    from n2n_edge._example import teacher_path

    teacher = tmp_path / "teacher.onnx"
    teacher.write_bytes(teacher_path().read_bytes())
    out = tmp_path / "run"
    n2n_edge.compress(teacher, data="builtin:digits", out=out, max_params=40_000.0, **SMALL)  # type: ignore[arg-type]
    model = onnx.load(teacher)
    model.doc_string = "changed"
    onnx.save(model, teacher)
    (out / "report.json").unlink()  # as if it had been stopped just before the end
    with pytest.raises(InputError, match="teacher has changed"):
        n2n_edge.compress(out=out, resume=True)


def test_resuming_a_finished_run_changes_nothing(result: Run) -> None:
    before = {path.name: path.read_bytes() for path in result.folder.iterdir() if path.suffix != ".sqlite"}
    again = n2n_edge.compress(out=result.folder, resume=True)
    assert again.verdicts == result.verdicts
    assert before == {path.name: path.read_bytes() for path in result.folder.iterdir() if path.suffix != ".sqlite"}
