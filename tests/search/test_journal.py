"""A run's journal: what was committed outlives the process, and one process holds a run."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.search.journal import SCHEMA, Candidate, Journal

CANDIDATE = Candidate(
    stage="removal",
    position=0,
    batch=0,
    actions=(1, 0, 1),
    key="a1",
    architecture={"removed": ["conv2"]},
    costs={"params": 1234, "size_mb": 0.1},
    reward=0.1 + 0.2,
    accuracy=None,
    feasible=False,
    provenance="computed",
)

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from n2n_edge.search.journal import Candidate, Journal

candidate = Candidate("removal", 0, 0, (1, 0), "a", {}, {"params": 1}, 0.5, 0.9, True, "computed")
with Journal.create(Path(sys.argv[1]), {"seed": 7}) as journal:
    for position in range(100_000):
        journal.record_candidate(replace(candidate, position=position, batch=position // 4))
        print(position, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def start_writer(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )


def test_gives_back_what_was_recorded(path: Path) -> None:
    trained = replace(CANDIDATE, position=1, feasible=True, accuracy=float(np.float32(0.9)))
    with Journal.create(path, {"seed": 3, "budgets": {"size_mb": 0.5}}) as journal:
        journal.record_candidate(trained)
        journal.record_candidate(CANDIDATE)
        journal.record_candidate(replace(CANDIDATE, stage="shrinkage"))
        journal.store("latency", "a1/this-host", {"value": np.float64(1.5), "unit": "ms"})
        journal.set_meta("stage", "shrinkage")
        journal.record_epoch("final", 2, {"loss": 0.5})
        journal.record_epoch("final", 1, {"loss": 0.7})
        journal.record_event("resumed", {"from": "shrinkage"})

    with Journal.open(path) as journal:
        removal = journal.candidates("removal")
        assert [CANDIDATE, trained] == [replace(candidate, created_s=0.0) for candidate in removal]
        assert all(candidate.created_s > 0 for candidate in removal)
        assert len(journal.candidates()) == 3
        assert journal.cached("latency", "a1/this-host") == {"value": 1.5, "unit": "ms"}
        assert journal.cached("latency", "a1/other-host") is None
        assert journal.cached("accuracy", "a1/this-host") is None
        assert journal.meta() == {"seed": 3, "budgets": {"size_mb": 0.5}, "stage": "shrinkage"}
        assert list(journal.epochs("final").items()) == [(1, {"loss": 0.7}), (2, {"loss": 0.5})]
        assert [(event.kind, event.details) for event in journal.events()] == [("resumed", {"from": "shrinkage"})]


def test_numbers_come_back_bit_for_bit(path: Path) -> None:
    value = {"accuracy": 1 / 3, "loss": 1e-300}
    with Journal.create(path) as journal:
        journal.record_candidate(CANDIDATE)
        journal.store("accuracy", "a1", value)

        assert journal.candidates()[0].reward == CANDIDATE.reward
        assert journal.cached("accuracy", "a1") == value


def test_a_place_is_taken_once_and_a_reward_is_a_number(path: Path) -> None:
    with Journal.create(path) as journal:
        journal.record_candidate(CANDIDATE)
        with pytest.raises(ValueError, match="candidate 0 of stage removal is recorded already"):
            journal.record_candidate(CANDIDATE)
        with pytest.raises(ValueError, match="must be finite, not nan"):
            journal.record_candidate(replace(CANDIDATE, position=1, reward=float("nan")))


@pytest.mark.parametrize("survivors", [1, 23])
def test_a_killed_process_loses_nothing_committed(path: Path, survivors: int) -> None:
    with start_writer(path) as writer:
        assert writer.stdout is not None
        for _ in range(survivors):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)

    with Journal.open(path) as journal:
        positions = [candidate.position for candidate in journal.candidates()]
        assert positions == list(range(len(positions)))
        assert len(positions) > last
        assert journal.meta() == {"seed": 7}
        journal.record_candidate(replace(CANDIDATE, position=len(positions)))


def test_one_process_holds_a_run(path: Path) -> None:
    with start_writer(path) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(InputError, match="in use by another n2n-edge process"):
            Journal.open(path)
        writer.send_signal(signal.SIGKILL)

    Journal.open(path).close()


def test_one_journal_at_a_time_holds_a_run(path: Path) -> None:
    with Journal.create(path), pytest.raises(InputError, match="in use"):
        Journal.open(path)
    with Journal.open(path) as journal:
        journal.close()


def test_a_creation_that_was_killed_leaves_no_half_journal(path: Path) -> None:
    path.with_name(path.name + ".new").write_bytes(b"half a file")

    with Journal.create(path, {"seed": 1}) as journal:
        assert journal.meta() == {"seed": 1}


def test_a_folder_that_holds_a_run_is_refused(path: Path) -> None:
    Journal.create(path).close()

    with pytest.raises(InputError, match="exists already"):
        Journal.create(path)


def test_what_is_no_journal_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run to resume"):
        Journal.open(path)

    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(InputError, match="not a readable journal"):
        Journal.open(path)

    other = tmp_path / "other.sqlite"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE things (name TEXT)")
    database.close()
    with pytest.raises(InputError, match="not the journal of a run"):
        Journal.open(other)


def test_a_newer_journal_is_refused(path: Path) -> None:
    Journal.create(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={SCHEMA + 1}")
    database.close()

    with pytest.raises(InputError, match=f"has schema {SCHEMA + 1}, this n2n-edge knows {SCHEMA}"):
        Journal.open(path)


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be written"):
        Journal.create(tmp_path / "missing" / "journal.sqlite")


def test_a_journal_can_be_read_while_its_run_goes_on_and_reading_changes_nothing(path: Path) -> None:
    with Journal.create(path) as journal:
        journal.record_candidate(CANDIDATE)
        with Journal.read(path) as reader:
            assert [row.key for row in reader.candidates()] == ["a1"]
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                reader.store("latency", "a1", {"value": 1.0})
        journal.record_candidate(replace(CANDIDATE, position=1))  # the writer still holds it
        with pytest.raises(InputError, match="in use"):
            Journal.open(path)
    with Journal.read(path) as reader:
        reader.close()
    assert [name.name for name in path.parent.iterdir() if "wal" in name.name or "shm" in name.name] == []


def test_reading_what_is_no_journal_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="give the folder that a compress run wrote"):
        Journal.read(path)
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match="not a readable journal"):
        Journal.read(path)


def sql(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def written(path: Path) -> Path:
    with Journal.create(path, {"seed": 3}) as journal:
        for position in range(40):
            journal.record_candidate(replace(CANDIDATE, position=position))
        journal.store("accuracy", "a", {"accuracy": 0.5})
        journal.record_epoch("final", 1, {"loss": 0.5})
        journal.record_event("resumed", {})
    return path


def look_everywhere(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.meta()
        journal.candidates()
        journal.cached("accuracy", "a")
        journal.epochs("final")
        journal.events()


DAMAGE = {
    **{f"no {table}": f"DROP TABLE {table}" for table in ("meta", "candidates", "facts", "epochs", "events")},
    "no column": "ALTER TABLE candidates DROP COLUMN reward",
    **{f"meta {value}": f"UPDATE meta SET value = '{value}'" for value in ("{", "")},
    **{f"facts {value}": f"UPDATE facts SET value = '{value}'" for value in ("{", "[]", "3", "null", "")},
    **{f"epochs {value}": f"UPDATE epochs SET figures = '{value}'" for value in ("{]", "[]")},
    "events": "UPDATE events SET details = 'x'",
    **{f"actions {value}": f"UPDATE candidates SET actions = '{value}'" for value in ("{]", "{}", '["a"]', "7")},
    "architecture": "UPDATE candidates SET architecture = '[]'",
    "costs": "UPDATE candidates SET costs = 'x'",
    **{f"deep {column}": f"UPDATE candidates SET {column} = '{'[' * 100_000}'" for column in ("costs", "actions")},
    "deep meta": f"UPDATE meta SET value = '{'[' * 100_000}'",
    **{
        f"bytes in {column}": f"UPDATE candidates SET {column} = x'ff'"
        for column in ("actions", "key", "provenance", "feasible", "batch", "created_s", "reward", "accuracy")
    },
    "stage bytes": "UPDATE candidates SET stage = x'ff'",
    "reward inf": "UPDATE candidates SET reward = 9e999",
    "reward text": "UPDATE candidates SET reward = 'much'",
    "accuracy text": "UPDATE candidates SET accuracy = 'good'",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_journal_with_other_content_is_called_damaged(path: Path, name: str) -> None:
    sql(written(path), DAMAGE[name])
    with pytest.raises(InputError, match=r"is damaged.*new run with another out") as caught:
        look_everywhere(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [100, 3000, 4096 * 2 + 100, 4096 * 4])
def test_a_truncated_journal_is_called_damaged(path: Path, place: int) -> None:
    content = written(path).read_bytes()
    assert len(content) > place
    path.write_bytes(content[:place])
    with pytest.raises(InputError, match=r"damaged|not a readable journal|not the journal"):
        look_everywhere(path)


@pytest.mark.parametrize("place", [0, 4096 + 8])
def test_an_overwritten_journal_is_called_damaged(path: Path, place: int) -> None:
    content = bytearray(written(path).read_bytes())
    content[place : place + 2000] = bytes(range(250)) * 8
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"damaged|not a readable journal|not the journal"):
        look_everywhere(path)


def test_what_a_run_always_writes_and_is_missing_is_damage(path: Path) -> None:
    sql(written(path), "UPDATE facts SET value = '{}'", "DELETE FROM meta")
    with Journal.open(path) as journal:
        found = journal.cached("accuracy", "a")
        assert found is not None
        for stored, key in ((found, "accuracy"), (journal.meta(), "objective")):
            assert stored.get(key) is None
            with pytest.raises(InputError, match=f"damaged.*'{key}' is missing"):
                stored[key]


@pytest.mark.parametrize("act", ["removed", "moved", "replaced", "folder removed"])
def test_a_journal_that_is_taken_away_stops_its_run(tmp_path: Path, act: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "journal.sqlite"
    with Journal.create(path, {}) as journal:
        journal.store("accuracy", "a", {"accuracy": 0.5})
        if act == "removed":
            path.unlink()
        elif act == "moved":
            folder.rename(tmp_path / "elsewhere")
        elif act == "replaced":
            path.unlink()
            path.write_bytes(b"something else")
        else:
            shutil.rmtree(folder)
        for write in (
            lambda: journal.store("accuracy", "b", {"accuracy": 0.5}),
            lambda: journal.record_candidate(CANDIDATE),
            lambda: journal.record_epoch("final", 1, {}),
            lambda: journal.set_meta("metric", "accuracy"),
            journal.check_there,
        ):
            with pytest.raises(
                UnsuitableEnvironmentError, match=r"moved, removed or replaced.*compress --resume --out"
            ):
                write()


def test_a_journal_that_stays_locked_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n_edge.search.journal._RUN_WAITS_S", 0.1)
    written(path)
    with Journal.open(path) as journal:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnsuitableEnvironmentError, match=r"keeps it locked.*compress --resume --out"):
            journal.store("accuracy", "b", {"accuracy": 0.5})
        other.close()
        journal.store("accuracy", "b", {"accuracy": 0.5})


def test_a_full_disk_says_so(path: Path) -> None:
    with Journal.create(path, {}) as journal:
        journal._database.execute("PRAGMA max_page_count=20")
        with pytest.raises(UnsuitableEnvironmentError, match=r"disk is full.*compress --resume --out"):
            journal.store("accuracy", "a", {"accuracy": "x" * 100_000})
