"""Several candidates shipped at once: the same students side by side, and what one loses is none of the others'."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import psutil
import pytest

import n2n_edge
from n2n_edge import NotShippedError, Run
from n2n_edge.runs import shipping_several
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.training.reports import EpochReport
from tests.cluster.fake_ray import Died, fake_ray
from tests.runs.small import images_npz, teacher_file

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "schemas" / "shipped.json").read_text())

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, finished."""
    folder = tmp_path_factory.mktemp("searched")
    teacher, data = teacher_file(folder / "teacher.onnx"), images_npz(folder / "data.npz")
    return n2n_edge.compress(
        teacher, data, max_params=4000.0, effort="quick", candidates=4, epochs=2, mean=(0.5,), std=(0.5,),
        out=folder / "run",
    ).folder  # fmt: skip


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Run:
    """A copy of it."""
    return Run.open(shutil.copytree(searched, tmp_path / "run"))


@pytest.fixture
def numbers(run: Run) -> tuple[int, ...]:
    """Three of its trained candidates."""
    found = tuple(trial.number for trial in run.trials if trial.metric is not None)[-3:]
    assert len(found) == 3
    return found


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads in place of Ray's workers."""
    monkeypatch.setitem(sys.modules, "ray", fake_ray())


class Heard(RunCallback):
    """What a callback is told; at a message that ends with `until` the user stops it all."""

    def __init__(self, until: str | None = None) -> None:
        self.until = until
        self.messages: list[str] = []
        self.epochs: list[int] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)
        if self.until is not None and self.until in text:
            raise KeyboardInterrupt

    def on_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report.epoch)


def students(runs: tuple[Run, ...]) -> list[bytes]:
    return [run.student.read_bytes() for run in runs]


@pytest.fixture
def alone(run: Run, numbers: tuple[int, ...], tmp_path: Path) -> list[bytes]:
    """The students of two candidates that were shipped one after the other, into a folder."""
    runs = run.ship(numbers[:2], out=tmp_path / "alone")
    assert [each.folder for each in runs] == [tmp_path / "alone" / f"candidate-{number}" for number in numbers[:2]]
    assert all(each.met for each in runs)
    return students(runs)


def spoiled(run: Run, number: int) -> Path:
    """Begin the training of a candidate, and damage its checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        run.ship(number, callbacks=[Heard("training candidate")])
    checkpoint = run.folder / f"candidate-{number}" / "training.checkpoint"
    checkpoint.write_bytes(b"damaged")
    return checkpoint


def test_side_by_side_or_not_each_ends_as_its_own_student_and_one_that_fails_is_told(
    run: Run, numbers: tuple[int, ...], alone: list[bytes], workers: None, call: Call
) -> None:
    checkpoint = spoiled(run, numbers[2])
    words = ["pareto", run.folder, "--ship", ",".join(map(str, numbers)), "--workers", 2]
    code, out, err = call(*words, "--json")
    assert code == 2, err
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    assert [(row["candidate"], row["passed"]) for row in document["candidates"]] == [
        (numbers[0], True), (numbers[1], True), (numbers[2], False),
    ]  # fmt: skip
    assert "evaluating on 2 workers" in err
    lines = [line for line in err.splitlines() if "can't be read" in line]
    assert lines[0].startswith(f"candidate {numbers[2]}: not shipped, checkpoint '{checkpoint}' can't be read")
    assert (
        err.splitlines()[-1] == lines[-1] == f"n2n-edge: candidate {numbers[2]}: " + lines[0].partition("shipped, ")[2]
    )
    assert [(Path(row["folder"]) / "student.onnx").read_bytes() for row in document["candidates"][:2]] == alone
    assert document["candidates"][0]["report"]["command"] == f"n2n-edge pareto {run.folder} --ship {numbers[0]}"
    checkpoint.unlink()
    heard = Heard()
    assert students(run.ship(numbers, workers=2, callbacks=[heard]))[:2] == alone
    assert sum("has been shipped to" in text for text in heard.messages) == 2
    assert call(*words)[0] == 0


def test_what_is_stopped_keeps_what_is_finished_and_goes_on_from_there(
    run: Run, numbers: tuple[int, ...], alone: list[bytes], workers: None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run.ship(numbers[:2], workers=2, callbacks=[Heard("trained, 0 more under way")])
    heard = Heard()
    assert students(run.ship(numbers[:2], callbacks=[heard])) == alone  # and without workers
    assert heard.epochs == []


def test_a_worker_that_is_lost_too_often_costs_its_candidate_alone(
    run: Run, numbers: tuple[int, ...], workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = shipping_several.train_candidate

    def dies(run: Path, number: int, **others: object) -> None:
        if number == numbers[0]:
            raise Died
        train(run, number, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(shipping_several, "train_candidate", dies)
    heard = Heard()
    with pytest.raises(NotShippedError, match=rf"^candidate {numbers[0]}: .* ended \(killed, crashed") as caught:
        run.ship(numbers[:2], workers=2, epochs=1, callbacks=[heard])
    assert caught.value.exit_code == 3
    assert caught.value.shipped[numbers[1]].met
    assert sum("begun again" in text for text in heard.messages) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ship", "one"], "--ship one: not a candidate's number; give one such as 3, or several such as 3,5,9"),
        (["--ship", "1,,2"], "--ship 1,,2: not a candidate's number"),
        (["--ship", "1,2,1"], "--ship 1,2,1: candidate 1 is given twice; give it once"),
        (["--ship", "1,999"], "--ship 999: "),
        (["--ship", "1,2", "--workers", "0"], "--workers 0: must be a number above 0"),
        (["--ship", "1,2", "--cluster", "mars"], "--cluster mars: give auto, local, or the address"),
        (["--ship", "1,2", "--out", "run/run.toml"], "run.toml is no folder, and several candidates go into folders"),
        (["--ship", "1", "--workers", "2"], "--workers 2: belongs to several candidates, such as --ship 3,5"),
        (["--workers", "2"], "--workers 2: belongs to --ship N"),
    ],
)
def test_nonsense_is_one_line_and_begins_nothing(run: Run, call: Call, words: list[str], told: str) -> None:
    before = sorted(path.name for path in run.folder.iterdir())
    code, out, err = call("pareto", run.folder, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert sorted(path.name for path in run.folder.iterdir()) == before


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray, the extra [cluster]")
def test_workers_of_ray_train_the_same_students_though_one_is_killed(
    run: Run, numbers: tuple[int, ...], alone: list[bytes], local_ray: None
) -> None:
    over = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not over.wait(0.1) and not killed:
            if list(run.folder.glob("candidate-*/training.checkpoint")):
                for process in psutil.Process().children(recursive=True):
                    if "ray::Worker.evaluate" in " ".join(process.cmdline()):
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(process.pid)
                        return

    thread = threading.Thread(target=kill)
    thread.start()
    heard = Heard()
    try:
        assert students(run.ship(numbers[:2], workers=2, callbacks=[heard])) == alone
    finally:
        over.set()
        thread.join()
    assert not killed or any("begun again (1 of 2)" in text for text in heard.messages)
    assert time.monotonic()
