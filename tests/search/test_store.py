"""Journal of a run: what was committed outlives the process, and one process holds a run."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.graph.architecture import Architecture, Vocabulary
from n2n_edge.metrics.figures import Figure
from n2n_edge.search.store import SCHEMA, Journal
from n2n_edge.search.trial import Trial, TrialCosts

TRIAL = Trial(
    Architecture(frozenset({"conv2"}), (("g1", 8),), Vocabulary((("conv2", ""),))),
    TrialCosts(0.1, 1234, 5678, 0.2, {"pi": Figure(1.5, "ms", "calibrated", 1.0, 2.0)}),
    reward=0.1 + 0.2,
    feasible=False,
    actions=(1, 0, 1),
)

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from n2n_edge.graph.architecture import Architecture
from n2n_edge.search.store import Journal
from n2n_edge.search.trial import Trial, TrialCosts

trial = Trial(Architecture(), TrialCosts(1.0, 1, 1, 1.0), 0.5, True, score=0.9, actions=(1, 0))
with Journal.create(Path(sys.argv[1]), {"seed": 7}) as journal:
    for number in range(100_000):
        journal.record_trial(replace(trial, number=number, batch=number // 4))
        print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def start_writer(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )


def test_gives_back_what_was_recorded(path: Path) -> None:
    trained = replace(TRIAL, number=1, feasible=True, score=float(np.float32(0.9)))
    with Journal.create(path, {"seed": 3, "budgets": {"size_mb": 0.5}}) as journal:
        journal.record_trial(trained)
        journal.record_trial(replace(TRIAL, stage="shrinkage"))
        journal.record_trial(TRIAL)
        journal.store("latency", "a1/this-host", {"value": np.float64(1.5), "unit": "ms"})
        journal.set_meta("stage", "shrinkage")

    with Journal.open(path) as journal:
        assert journal.trials("removal") == [TRIAL, trained]
        assert journal.trials() == [TRIAL, trained, replace(TRIAL, stage="shrinkage")]
        assert journal.trials()[0].key == TRIAL.key
        assert journal.cached("latency", "a1/this-host") == {"value": 1.5, "unit": "ms"}
        assert journal.cached("latency", "a1/other-host") is None
        assert journal.cached("accuracy", "a1/this-host") is None
        assert journal.meta() == {"seed": 3, "budgets": {"size_mb": 0.5}, "stage": "shrinkage"}


@given(st.permutations([f"layer{number}" for number in range(8)]), st.integers(0, 8), st.integers(0, 255))
def test_an_architecture_has_the_same_key_when_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, layers: list[str], cut: int, kept: int
) -> None:
    """Whichever of a network's layers are gone, merged and in int8: reports find its results by the key."""
    chosen = [name for place, name in enumerate(layers) if kept >> place & 1]
    removed, linear = frozenset(chosen[:cut]), frozenset(chosen[cut:])
    names = Vocabulary(tuple((name, "") for name in layers), (), tuple(reversed(layers)), tuple(layers))
    architecture = Architecture(removed, (("g2", 3), ("g1", 8)), names, frozenset(chosen[::2]), linear)
    with Journal.create(tmp_path_factory.mktemp("journal") / "journal.sqlite") as journal:
        journal.record_trial(replace(TRIAL, architecture=architecture))
        (trial,) = journal.trials()
    assert trial.architecture == architecture
    assert trial.key == architecture.key


def test_a_journal_of_the_first_version_is_read(path: Path) -> None:
    Journal.create(path).close()
    costs = '{"size_mb":0.1,"params":1234.0,"macs":5678.0,"memory_bound_mb":0.2,"latency_ms":1.5}'
    sql(
        path,
        "CREATE TABLE epochs (training TEXT NOT NULL, epoch INTEGER NOT NULL, figures TEXT NOT NULL)",
        "CREATE TABLE events (id INTEGER PRIMARY KEY, created_s REAL NOT NULL, kind TEXT NOT NULL)",
        "INSERT INTO candidates VALUES ('removal', 0, 0, '[1,0,1]', 'a1', "
        f"""'{{"removed":["conv2"],"widths":{{"g1":8}}}}', '{costs}', 0.5, NULL, 0, 'calibrated', 1.0)""",
        "PRAGMA user_version=1",
    )
    with Journal.open(path) as journal:
        (trial,) = journal.trials()
    assert trial.key == TRIAL.key
    assert trial.costs.latencies == {"": Figure(1.5, "ms", "calibrated")}  # it didn't name the device


def test_the_slowest_device_of_a_row_is_the_one_it_names(path: Path) -> None:
    wide, slow = Figure(1.0, "ms", "calibrated", 0.5, 4.0), Figure(2.0, "ms", "calibrated", 1.5, 3.0)
    with Journal.create(path) as journal:
        for number, accept in enumerate((False, True)):
            costs = replace(TRIAL.costs, latencies={"wide": wide, "slow": slow}, accept_expected=accept)
            journal.record_trial(replace(TRIAL, number=number, costs=costs))
        assert [trial.costs.latency for trial in journal.trials()] == [wide, slow]


def test_numbers_come_back_bit_for_bit(path: Path) -> None:
    value = {"accuracy": 1 / 3, "loss": 1e-300}
    with Journal.create(path) as journal:
        journal.record_trial(TRIAL)
        journal.store("accuracy", "a1", value)

        assert journal.trials()[0].reward == TRIAL.reward
        assert journal.cached("accuracy", "a1") == value


def test_a_place_is_taken_once_and_a_reward_is_a_number(path: Path) -> None:
    with Journal.create(path) as journal:
        journal.record_trial(TRIAL)
        with pytest.raises(ValueError, match="trial 0 of stage removal is recorded already"):
            journal.record_trial(TRIAL)
        with pytest.raises(ValueError, match="must be finite, not nan"):
            journal.record_trial(replace(TRIAL, number=1, reward=float("nan")))


@pytest.mark.parametrize("survivors", [1, 23])
def test_a_killed_process_loses_nothing_committed(path: Path, survivors: int) -> None:
    with start_writer(path) as writer:
        assert writer.stdout is not None
        for _ in range(survivors):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)

    with Journal.open(path) as journal:
        positions = [trial.number for trial in journal.trials()]
        assert positions == list(range(len(positions)))
        assert len(positions) > last
        assert journal.meta() == {"seed": 7}
        journal.record_trial(replace(TRIAL, number=len(positions)))


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
        journal.record_trial(TRIAL)
        with Journal.read(path) as reader:
            assert reader.trials() == [TRIAL]
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                reader.store("latency", "a1", {"value": 1.0})
        journal.record_trial(replace(TRIAL, number=1))  # the writer still holds it
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
        for number in range(40):
            journal.record_trial(replace(TRIAL, number=number))
        journal.store("accuracy", "a", {"accuracy": 0.5})
    return path


def look_everywhere(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.meta()
        journal.trials()
        journal.cached("accuracy", "a")


DAMAGE = {
    **{f"no {table}": f"DROP TABLE {table}" for table in ("meta", "candidates", "facts")},
    "no column": "ALTER TABLE candidates DROP COLUMN reward",
    **{f"meta {value}": f"UPDATE meta SET value = '{value}'" for value in ("{", "")},
    **{f"facts {value}": f"UPDATE facts SET value = '{value}'" for value in ("{", "[]", "3", "null", "")},
    **{f"actions {value}": f"UPDATE candidates SET actions = '{value}'" for value in ("{]", "{}", '["a"]', "7")},
    "architecture": "UPDATE candidates SET architecture = '[]'",
    "architecture without widths": "UPDATE candidates SET architecture = '{}'",
    "architecture widths": """UPDATE candidates SET architecture = '{"removed":[],"widths":[]}'""",
    "costs": "UPDATE candidates SET costs = 'x'",
    "costs without size": "UPDATE candidates SET costs = '{}'",
    **{f"stage {value!r}": f"UPDATE candidates SET stage = '{value}' WHERE position = 0" for value in ("", "final")},
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
            lambda: journal.record_trial(TRIAL),
            lambda: journal.set_meta("metric", "accuracy"),
            journal.check_there,
        ):
            with pytest.raises(
                UnsuitableEnvironmentError, match=r"moved, removed or replaced.*compress --resume --out"
            ):
                write()


def test_a_journal_that_stays_locked_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n_edge.search.store._RUN_WAITS_S", 0.1)
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
