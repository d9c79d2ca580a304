"""The pareto command: what a run found, and any candidate of it shipped; a run for several devices, with its curves."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest

import n2n_edge
from n2n_edge import Run
from n2n_edge._example import teacher_path
from n2n_edge.data.source_digits import read as read_digits
from n2n_edge.errors import InputError
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.search.store import Journal
from n2n_edge.training.reports import EpochReport

pytest.importorskip("sklearn", reason="the built-in example needs scikit-learn")

PI, JETSON = "raspberry-pi-4", "jetson-orin-nano"
COSTS = ("params", "size_mb", "macs", "memory_bound_mb", "latency_ms")

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "schemas" / "pareto.json").read_text())

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small run for two devices on few images, with event files."""
    folder = tmp_path_factory.mktemp("runs")
    digits = read_digits("builtin:digits", (1, 16, 16)).train
    np.savez(folder / "digits.npz", x=digits.images[::4], y=digits.labels[::4])
    shutil.copy(teacher_path(), folder / "teacher.onnx")
    return n2n_edge.compress(
        folder / "teacher.onnx",
        data=folder / "digits.npz",
        out=folder / "run",
        device=[PI, "jetson"],
        max_mb=0.2,
        max_latency_ms=1.3,
        effort="quick",
        candidates=4,
        epochs=2,
        policy="n2n",
        tensorboard=True,
    )


@pytest.fixture
def copied(result: Run, tmp_path: Path) -> Path:
    """A copy of the run to do things to."""
    return Path(shutil.copytree(result.folder, tmp_path / "copied"))


def listed(call: Call, *words: object) -> dict[str, Any]:
    code, out, err = call("pareto", *words, "--json")
    assert code == 0, err
    document = json.loads(out, parse_constant=pytest.fail)
    assert isinstance(document, dict)
    jsonschema.validate(document, SCHEMA)
    return document


def refusal(call: Call, *words: object) -> str:
    code, out, err = call(*words)
    assert (code, out) == (2, ""), err
    assert err.startswith("n2n-edge: ")
    assert err.count("\n") == 1, err
    return err


def another(result: Run) -> int:
    """Return the number of a trained candidate that didn't win."""
    rows, winner = result.report["search"]["candidates"], result.report["search"]["winner"]
    assert winner is not None
    alike = {place for place, row in enumerate(rows) if row["params"] == rows[winner]["params"]}
    return next(place + 1 for place, row in enumerate(rows) if row["trained"] and place not in alike)


def test_no_candidate_of_the_journal_beats_the_front(result: Run, call: Call) -> None:
    with Journal.read(result.folder / "journal.sqlite") as journal:
        rows = [row for row in journal.trials() if row.score is not None]
    for cost in COSTS:
        for device in (PI, JETSON) if cost == "latency_ms" else (None,):
            document = listed(call, result.folder, "--cost", cost, *(["--device", device] if device else []))
            by_number = {each["candidate"]: each for each in document["candidates"]}
            front = [by_number[number] for number in document["front"]]
            assert front
            for each in front:
                own = each[cost][device]["value"] if device else each[cost]["value"]
                for row in rows:
                    other = row.costs.latencies[device].value if device else row.costs.as_mapping()[cost]
                    accuracy = row.score or 0.0
                    better = other <= own and accuracy >= each["accuracy"]["value"]
                    assert not better or (other, accuracy) == (own, each["accuracy"]["value"])


def test_the_document_has_every_trained_candidate_with_figures(result: Run, call: Call) -> None:
    document = listed(call, result.folder)
    rows = result.report["search"]["candidates"]
    assert (document["schema_version"], document["metric"], document["device"]) == (1, "accuracy", None)
    assert document["cost"] == document["objective"] == result.report["search"].get("objective")
    assert document["devices"] == [PI, JETSON]
    assert [each["option"] for each in document["budgets"]] == ["--max-mb", "--max-latency-ms"]
    assert [each["candidate"] for each in document["candidates"]] == [
        place + 1 for place, row in enumerate(rows) if row["trained"]
    ]
    for each in document["candidates"]:
        row = rows[each["candidate"] - 1]
        assert each["params"] == {"value": row["params"], "unit": "params", "provenance": "computed"}
        assert each["memory_bound_mb"]["value"] == row["memory_bound_mb"]
        assert each["accuracy"]["value"] == row["score"]
        assert each["entropy"] == row["entropy"]
        assert each["meets_budgets"]
        for device, figure in each["latency_ms"].items():
            assert (figure["unit"], figure["provenance"]) == ("ms", "calibrated")
            assert figure["value"] == row["latencies_ms"][device]
            assert figure["low"] < figure["value"] < figure["high"] <= 1.3
    assert set(document["latency_fronts"]) == {PI, JETSON}
    shipped = [each for each in document["candidates"] if each["shipped"]]
    assert [each["candidate"] - 1 for each in shipped] == [result.report["search"]["winner"]]
    assert shipped[0]["shipped"] == str(result.student)


def test_the_table_says_what_it_shows_and_what_to_do_next(result: Run, call: Call) -> None:
    code, out, _ = call("pareto", result.folder, "--device", "jetson", "--cost", "latency_ms")
    assert code == 0
    assert f"on the front of accuracy against latency on {JETSON}" in out
    assert f"latency on {JETSON}: calibrated: predicted" in out
    assert "--max-latency-ms 1.3" in out
    assert "--ship N" in out
    _, every, _ = call("pareto", result.folder, "--all")
    trained = [row for row in result.report["search"]["candidates"] if row["trained"]]
    assert sum("met" in line.split() for line in every.splitlines()) == len(trained)
    assert "student.onnx" in every


def test_listing_needs_neither_torch_nor_the_teacher(copied: Path) -> None:
    (copied / "run.toml").write_text(re.sub("teacher.onnx|digits.npz", "gone", (copied / "run.toml").read_text()))
    code = (
        "import sys\nfor name in ('torch', 'safetensors', 'PIL', 'tensorboardX'): sys.modules[name] = None\n"
        f"sys.argv = ['n2n-edge', 'pareto', {str(copied)!r}, '--json']\n"
        "from n2n_edge.cli.app import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["front"]


def test_an_interrupted_run_is_listed_too(result: Run, copied: Path, call: Call) -> None:
    for name in ("report.json", "report.html", "student.onnx", "model-card.md"):
        (copied / name).unlink()
    document, whole = listed(call, copied), listed(call, result.folder)
    assert document["front"] == whole["front"]
    assert all(each["shipped"] is None for each in document["candidates"])


def test_a_run_for_one_device_of_an_older_version_is_listed(copied: Path, call: Call) -> None:
    database = sqlite3.connect(copied / "journal.sqlite")
    for stage, position, costs in database.execute("SELECT stage, position, costs FROM candidates").fetchall():
        older = {name: value for name, value in json.loads(costs).items() if name != "latencies"}
        database.execute(
            "UPDATE candidates SET costs = ? WHERE stage = ? AND position = ?", (json.dumps(older), stage, position)
        )
    database.execute("DELETE FROM meta WHERE key IN ('other_profiles', 'objective', 'metric')")
    database.execute("DELETE FROM facts WHERE kind = 'entropy'")
    database.commit()
    database.close()
    document = listed(call, copied, "--cost", "latency_ms")
    assert (document["device"], document["devices"]) == (PI, [PI])
    assert document["front"]
    assert {each["entropy"] for each in document["candidates"]} == {None}
    assert document["candidates"][0]["latency_ms"][PI]["provenance"] == "calibrated"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cost", "speed"], ["--cost speed", "memory_bound_mb"]),
        (["--cost", "accuracy"], ["--cost accuracy", "no such cost"]),
        (["--cost", "params", "--device", "jetson"], ["--device jetson", "params", "same on every device"]),
        (["--device", "cpu"], ["--device cpu", PI, JETSON]),
        (["--epochs", "3"], ["--epochs 3", "--ship N"]),
        (["--out", "o"], ["--out o", "--ship N"]),
        (["--ship", "1", "--cost", "params"], ["--cost params", "leave it out"]),
        (["--ship", "0"], ["--ship 0", "candidates 1 to"]),
        (["--ship", "999"], ["--ship 999", "candidates 1 to"]),
        (["--ship", "1", "--epochs", "0"], ["--epochs 0", "above 0"]),
        (["--ship", "1", "--minutes", "-1"], ["--minutes -1", "above 0"]),
    ],
)
def test_nonsense_is_refused_in_a_line(result: Run, call: Call, words: list[str], told: list[str]) -> None:
    line = refusal(call, "pareto", result.folder, *words)
    for word in told:
        assert word in line


def test_what_is_no_run_is_refused(tmp_path: Path, call: Call) -> None:
    assert "holds no run" in refusal(call, "pareto", tmp_path)
    assert "holds no run" in refusal(call, "pareto", "nowhere", "--ship", "1")
    assert "schema" in refusal(call, "pareto", damaged(tmp_path / "damaged"))


def damaged(path: Path) -> Path:
    path.mkdir()
    (path / "run.toml").write_text("seed = 0\n")
    with Journal.create(path / "journal.sqlite"):
        pass
    database = sqlite3.connect(path / "journal.sqlite")
    database.execute("PRAGMA user_version=99")
    database.close()
    return path


def test_a_run_that_has_judged_nothing_yet(tmp_path: Path, call: Call) -> None:
    (tmp_path / "run.toml").write_text("seed = 0\n")
    with Journal.create(tmp_path / "journal.sqlite"):
        pass
    assert "judged no candidate yet" in refusal(call, "pareto", tmp_path)
    assert "no candidates yet" in refusal(call, "pareto", tmp_path, "--ship", "1")


def test_a_run_in_which_nothing_met_the_budgets(copied: Path, call: Call) -> None:
    database = sqlite3.connect(copied / "journal.sqlite")
    database.execute("UPDATE candidates SET accuracy = NULL, feasible = 0")
    database.commit()
    database.close()
    for name in ("report.json", "student.onnx"):
        (copied / name).unlink()
    code, out, _ = call("pareto", copied, "--cost", "latency_ms")
    assert code == 0
    assert "no candidate met the budgets, so none was trained" in out
    document = listed(call, copied)
    assert (document["front"], document["candidates"]) == ([], [])
    database = sqlite3.connect(copied / "journal.sqlite")
    database.execute("UPDATE candidates SET costs = json_remove(costs, '$.latencies', '$.latency_ms')")
    database.commit()
    database.close()
    assert listed(call, copied, "--device", PI)["front"] == []
    assert "start a new run that allows more" in refusal(call, "pareto", copied, "--ship", "1")


@pytest.mark.parametrize("damage", ["{", "{}", '{"schema_version": 1}', "[]"])
def test_a_damaged_report_keeps_nobody_from_the_journal(copied: Path, call: Call, damage: str) -> None:
    (copied / "report.json").write_text(damage)
    assert listed(call, copied)["front"]


def test_a_damaged_journal_is_refused_in_a_line(copied: Path, call: Call) -> None:
    database = sqlite3.connect(copied / "journal.sqlite")
    database.execute("DROP TABLE meta")
    database.commit()
    database.close()
    assert "journal" in refusal(call, "pareto", copied)


def test_a_run_that_never_looked_at_latency_says_so(copied: Path, call: Call) -> None:
    database = sqlite3.connect(copied / "journal.sqlite")
    database.execute("UPDATE candidates SET costs = json_remove(costs, '$.latencies', '$.latency_ms')")
    database.commit()
    database.close()
    assert "didn't find out" in refusal(call, "pareto", copied, "--cost", "latency_ms")
    assert listed(call, copied, "--cost", "macs")["candidates"][0]["latency_ms"] == {}


def test_another_candidate_is_shipped_and_says_so(result: Run, copied: Path, call: Call) -> None:
    number = another(result)
    before = {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()}
    code, out, err = call("pareto", copied, "--ship", number, "--epochs", "1")
    assert code == 0, err
    assert "searching" not in err
    folder = copied / f"candidate-{number}"
    assert f"student: {folder / 'student.onnx'}" in out
    assert {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()} == before
    report = json.loads((folder / "report.json").read_text())
    assert report["chosen"] == {"run": str(copied), "candidate": number}
    assert report["search"]["winner"] == number - 1
    assert report["student"]["params"]["value"] == report["search"]["candidates"][number - 1]["params"]
    assert report["command"] == f"n2n-edge pareto {copied} --ship {number} --epochs 1"
    assert len(report["training"]["epochs"]) == 1
    assert all(budget["met"] for budget in report["budgets"])
    page, card = ((folder / name).read_text() for name in ("report.html", "model-card.md"))
    assert f"Candidate {number} of the run in {copied}" in page
    assert report["command"] in page
    assert f"Candidate {number} of the run in {copied.name}," in card
    assert f"n2n-edge pareto {copied.name} --ship {number} --epochs 1" in card
    assert str(copied) not in card
    shown = {each["candidate"]: each["shipped"] for each in listed(call, copied)["candidates"]}
    assert shown[number] == str(folder / "student.onnx")
    again = call("pareto", copied, "--ship", number, "--epochs", "1", "--json")
    assert (again[0], json.loads(again[1])) == (0, report)
    assert "was begun by" in refusal(call, "pareto", copied, "--ship", number, "--epochs", "2")


class StoppedError(Exception):
    """Stands for a kill."""


class Stops(RunCallback):
    """Ends the training after an epoch."""

    def on_epoch(self, report: EpochReport) -> None:
        raise StoppedError


class Notes(RunCallback):
    """Remembers the epochs that were trained."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report.epoch)


def test_shipping_the_winner_again_goes_on_from_the_last_epoch_to_the_same_student(
    result: Run, copied: Path, tmp_path: Path
) -> None:
    winner, notes = result.report["search"]["winner"], Notes()
    assert winner is not None
    (copied / "report.json").unlink()  # a run that was interrupted will do
    with pytest.raises(StoppedError):
        Run.open(copied).ship(winner + 1, callbacks=[Stops()])
    moved = copied.rename(tmp_path / "moved")
    again = Run.open(moved).ship(winner + 1, callbacks=[notes])
    assert notes.epochs == [2]
    assert again.student == moved / f"candidate-{winner + 1}" / "student.onnx"
    assert again.student.read_bytes() == result.student.read_bytes()
    assert again.met


def test_what_cannot_be_shipped_is_refused(result: Run, copied: Path, tmp_path: Path, call: Call) -> None:
    number = another(result)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    assert "holds something else" in refusal(call, "pareto", copied, "--ship", number, "--out", tmp_path / "full")
    database = sqlite3.connect(copied / "journal.sqlite")
    stage = result.report["search"]["candidates"][number - 1]["stage"]
    position = result.report["search"]["candidates"][number - 1]["index"]
    database.execute(
        "UPDATE candidates SET accuracy = NULL, feasible = 0 WHERE stage = ? AND position = ?",
        ({1: "removal", 2: "shrinkage"}[stage], position),
    )
    database.commit()
    database.close()
    line = refusal(call, "pareto", copied, "--ship", number)
    assert "never trained" in line
    assert "--all" in line


def test_a_changed_teacher_stops_it(result: Run, copied: Path, tmp_path: Path) -> None:
    model = onnx.load(teacher_path())
    model.doc_string = "changed"
    onnx.save(model, tmp_path / "teacher.onnx")
    text = (copied / "run.toml").read_text()
    (copied / "run.toml").write_text(re.sub('teacher = ".*"', f'teacher = "{tmp_path / "teacher.onnx"}"', text))
    number = another(result)
    with pytest.raises(InputError, match="the teacher has changed since this run"):
        Run.open(copied).ship(number)
    assert not (copied / f"candidate-{number}").exists()


def test_a_missed_budget_is_exit_1(copied: Path, result: Run, call: Call) -> None:
    text = (copied / "run.toml").read_text()
    (copied / "run.toml").write_text(text + "min_accuracy = 0.1\nmax_params = 100\n")
    out = copied / "elsewhere"
    code, _, err = call("pareto", copied, "--ship", another(result), "--minutes", "0.001", "--out", out)
    assert code == 1
    report = json.loads((out / "report.json").read_text())
    assert report["command"].endswith(f"--out {out}")
    assert len(report["training"]["epochs"]) == 1  # as many as fit, one at least
    assert "--max-params" in err.splitlines()[-1]
    assert "--min-score" not in err.splitlines()[-1]
    assert (out / "student.onnx").exists()


def test_a_run_for_two_devices_has_a_verdict_for_each(result: Run) -> None:
    assert result.met
    verdicts = [verdict for verdict in result.verdicts if verdict.budget.cost == "latency_ms"]
    assert [verdict.device for verdict in verdicts] == [PI, JETSON]
    report = result.report
    for verdict in verdicts:
        assert f"on {verdict.device}" in verdict.reason
        assert verdict.reached.high is not None
        assert verdict.reached.high <= 1.3
    assert [budget.get("device") for budget in report["budgets"]] == [None, PI, JETSON]
    for model in (report["teacher"], report["student"]):
        assert set(model["latency_ms"]) == {"cpu", PI, JETSON}
    assert report["device"]["name"] == PI
    assert [device["name"] for device in report["devices"]] == [PI, JETSON]
    assert report["devices"][1]["evidence"]["measured_on"] == JETSON
    for row in report["search"]["candidates"]:
        assert set(row["latencies_ms"]) == {PI, JETSON}
        assert row["latency_ms"] in row["latencies_ms"].values()
        assert row["entropy"] is not None
        assert 0 <= row["entropy"] <= 1
    assert f"--device {PI} --device jetson" in report["command"]
    for name in ("report.html", "model-card.md"):
        text = (result.folder / name).read_text()
        assert f"{PI} and {JETSON}" in text
        assert f", {JETSON}" in text
    metadata = {entry.key: entry.value for entry in onnx.load(result.student).metadata_props}
    assert metadata["n2n_edge.device"] == PI
    assert json.loads(metadata["n2n_edge.devices"]) == [PI, JETSON]
    assert set(json.loads(metadata["n2n_edge.metrics.figures"])) >= {"latency_ms", f"latency_ms:{JETSON}"}


def test_resuming_names_the_devices_that_differ(result: Run, call: Call) -> None:
    line = refusal(call, "compress", "--resume", "--out", result.folder, "--device", "jetson")
    assert f"--device jetson: this run was begun with {PI},jetson" in line
    words = ["compress", "--resume", "--out", result.folder, "--device", PI, "--device", "jetson"]
    assert call(*words)[0] == 0


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read event files with the package's own record format: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            length = int.from_bytes(content[place : place + 8], "little")
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                points = found.setdefault(value.tag, [])
                points.append((event.step, float(value.simple_value)))
    return found


def steps(points: Iterable[tuple[int, float]]) -> list[int]:
    return [step for step, _ in points]


def check_curves(found: Mapping[str, list[tuple[int, float]]], result: Run) -> None:
    rows = result.report["search"]["candidates"]
    for stage, name in ((1, "removal"), (2, "shrinkage")):
        own = [(place + 1, row) for place, row in enumerate(rows) if row["stage"] == stage]
        numbers = [number for number, _ in own]
        for curve in ("reward", "entropy", "params", f"latency_ms/{PI}", f"latency_ms/{JETSON}"):
            assert steps(found[f"{name}/{curve}"]) == numbers
        best = [value for _, value in found.get(f"{name}/best_reward", [])]
        assert best == sorted(best)
        assert [value for _, value in found[f"{name}/reward"]] == pytest.approx([row["reward"] for _, row in own])
        trained = {number: row["score"] for number, row in own if row["trained"]}
        assert dict(found.get(f"{name}/accuracy", [])) == pytest.approx(trained)
    epochs = result.report["training"]["epochs"]
    for curve, field in (("loss", "loss"), ("validation", "validation")):
        assert steps(found[f"training/{curve}"]) == [row["epoch"] for row in epochs]
        assert [value for _, value in found[f"training/{curve}"]] == pytest.approx([row[field] for row in epochs])  # type: ignore[literal-required]
    rates = [value for _, value in found["training/learning_rate"]]
    assert len(rates) == len(epochs)
    assert all(0 < rate < 0.051 for rate in rates)
    assert steps(found["settings/text_summary"]) == [0]


def test_the_curves_are_those_of_the_report(result: Run) -> None:
    check_curves(curves(result.folder), result)


def test_a_resumed_run_writes_no_step_twice(result: Run, copied: Path) -> None:
    (copied / "report.json").unlink()  # as if it had been stopped just before the end
    files = sorted((copied / "tensorboard").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-700])  # and what it wrote last had been cut off
    n2n_edge.compress(out=copied, resume=True)
    assert len(list((copied / "tensorboard").iterdir())) == 2
    for path in files:  # what a kill cut off is no record
        whole = whole_records(path.read_bytes())
        path.write_bytes(whole)
    check_curves(curves(copied), result)


def whole_records(content: bytes) -> bytes:
    place = 0
    while place + 12 <= len(content):
        end = place + 16 + int.from_bytes(content[place : place + 8], "little")
        if end > len(content):
            break
        place = end
    return content[:place]


def test_without_the_package_nothing_is_begun(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n_edge.runs.callbacks.find_spec", lambda name: None)
    code, out, err = call("compress", "--tensorboard", "--out", tmp_path / "o")
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert "n2n-edge[tensorboard]" in err
    assert not (tmp_path / "o").exists()
