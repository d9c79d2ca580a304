"""Several candidates shipped at once: the same students side by side, and what one loses is none of the others'."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
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
        teacher, data, max_params=4000.0, effort="quick", candidates=4, epochs=1, policy="random",
        mean=(0.5,), std=(0.5,), out=folder / "run",
    ).folder  # fmt: skip


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Run:
    """A copy of it."""
    return Run.open(shutil.copytree(searched, tmp_path / "run"))


def trained(run: Run) -> tuple[int, ...]:
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


class Refuses(RunCallback):
    """Ends the export of a candidate, as a want of memory would."""

    def __init__(self, number: int) -> None:
        self.number, self.now = f"candidate {number}, ", False

    def on_message(self, text: str) -> None:
        self.now = text.startswith(self.number) or self.now
        if self.now and "parity" in text:
            raise MemoryError


def students(runs: tuple[Run, ...]) -> list[bytes]:
    return [run.student.read_bytes() for run in runs]


@pytest.fixture(scope="module")
def alone(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The students of two candidates that were shipped one after the other, into a folder."""
    out = tmp_path_factory.mktemp("alone")
    run = Run.open(searched)
    chosen = trained(run)[:2]
    runs = run.ship(chosen, out=out)
    assert [each.folder for each in runs] == [out / f"candidate-{number}" for number in chosen]
    assert all(each.met for each in runs)
    return students(runs)


def spoiled(run: Run, number: int) -> Path:
    """Begin the training of a candidate, and damage its checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        run.ship(number, callbacks=[Heard("training candidate")])
    checkpoint = run.folder / f"candidate-{number}" / "training.checkpoint"
    checkpoint.write_bytes(b"damaged")
    return checkpoint


def test_side_by_side_or_not_each_ends_as_its_own_student_whatever_becomes_of_others(
    run: Run, alone: list[bytes], workers: None, call: Call
) -> None:
    first, second, third = numbers = trained(run)
    checkpoint = spoiled(run, second)
    train = shipping_several.train_candidate

    def dies(run: Path, number: int, **others: object) -> None:
        if number == third:
            raise Died
        train(run, number, **others)  # type: ignore[arg-type]

    words = ["pareto", run.folder, "--ship", ",".join(map(str, numbers)), "--workers", 2, "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipping_several, "train_candidate", dies)
        code, out, err = call(*words)
    assert code == 3, err
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    rows = {row["candidate"]: row for row in document["candidates"]}
    assert {number: row["passed"] for number, row in rows.items()} == {first: True, second: False, third: False}
    assert "evaluating on 2 workers" in err
    assert err.count("begun again") == 2
    unreadable = f"checkpoint '{checkpoint}' can't be read"
    assert f"\ncandidate {second}: not shipped, {unreadable}" in err
    told, lost = err.splitlines()[-2:]
    assert told.startswith(f"n2n-edge: candidate {second}: {unreadable}")
    assert lost.startswith(f"n2n-edge: candidate {third}: ")
    assert lost.endswith("ended (killed, crashed, or given up in a step without an end), after 2 other tries")
    assert (Path(rows[first]["folder"]) / "student.onnx").read_bytes() == alone[0]
    assert rows[first]["report"]["command"] == f"n2n-edge pareto {run.folder} --ship {first}"
    # what is stopped when all are trained keeps that, and goes on without workers
    checkpoint.unlink()
    with pytest.raises(KeyboardInterrupt):
        run.ship(numbers, workers=2, callbacks=[Heard("trained, 0 more under way")])
    heard = Heard()
    with pytest.raises(NotShippedError, match=f"^candidate {third}: ") as caught:
        run.ship(numbers, callbacks=[heard, Refuses(third)])
    assert caught.value.exit_code == 3
    assert students(tuple(caught.value.shipped.values())) == alone
    assert heard.epochs == []
    assert sum("has been shipped to" in text for text in heard.messages) == 1


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
def test_workers_of_ray_train_the_same_students_though_one_is_killed(run: Run, alone: list[bytes]) -> None:
    chosen = trained(run)[:2]
    words = ["pareto", str(run.folder), "--ship", ",".join(map(str, chosen)), "--workers", "2"]
    with subprocess.Popen([sys.executable, "-m", "n2n_edge", *words], stderr=subprocess.PIPE, text=True) as process:
        killed = kill_a_worker(process)
        said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    assert "evaluating on 2 workers of this machine" in said
    assert not killed or "; begun again (1 of 2)" in said
    assert [(run.folder / f"candidate-{each}" / "student.onnx").read_bytes() for each in chosen] == alone


def kill_a_worker(process: "subprocess.Popen[str]") -> bool:
    """Kill the first worker of a command that trains; return whether there was one."""
    while process.poll() is None:
        with suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                if "ray::Worker.evaluate" in " ".join(child.cmdline()):
                    child.kill()
                    return True
        time.sleep(0.05)
    return False
