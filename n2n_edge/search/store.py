"""Journal of a run: one SQLite file that holds everything decided and measured."""

import json
import math
import os
import re
import sqlite3
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TextIO, get_args
from urllib.parse import quote

from n2n_edge.closing import ClosedAtExit
from n2n_edge.errors import InputError
from n2n_edge.graph.architecture import Architecture, Vocabulary
from n2n_edge.search.store_files import acquire, damaged, failure, missing, release
from n2n_edge.search.trial import StageName, Trial, TrialCosts

__all__ = ["SCHEMA", "Fact", "Journal", "JsonObject", "rung_kind"]

JsonObject = dict[str, Any]
"""A JSON document as Python holds it."""

SCHEMA = 2
"""Version of the tables; a journal of a newer one is refused. Version 1 had two tables more, which nobody read."""


class Fact(StrEnum):
    """Kinds of facts that a journal keeps, each under keys of its own."""

    SCORE = "accuracy"
    """Result of the proxy evaluation, by architecture."""
    RUNG = "rung"
    """Results of the longer evaluations of finalists: see `rung_kind`."""
    RUNG_SIZE = "rung_size"
    """Number of finalists that the time allowed, by rung."""
    SENSITIVITY = "sensitivity"
    """Loss of the teacher with one part cut, by part."""
    LATENCY = "latency"
    """Latency timed on this host, by architecture, device and threads."""
    ENTROPY = "entropy"
    """Entropy of the policy, by stage and batch."""
    STAGE_REACHED = "stage_reached"
    STAGE_OVER = "stage_over"
    """Number of the last trial that the time allowed, and of the first that it didn't, by stage."""
    MERGES = "merges"
    """Merges of layers that the search decides on."""
    EVALUATION = "evaluation"
    """Evaluation that is under way."""
    FINAL = "final"
    """Epochs of the final distillation, and what the teacher's outputs took."""


def rung_kind(number: int) -> str:
    """Return the kind of the results of a rung."""
    return f"{Fact.RUNG}{number}"


_APPLICATION_ID = 0x6E326E65  # "n2ne": tells a journal from any other SQLite file
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE candidates (
    stage TEXT NOT NULL, position INTEGER NOT NULL, batch INTEGER NOT NULL, actions TEXT NOT NULL, key TEXT NOT NULL,
    architecture TEXT NOT NULL, costs TEXT NOT NULL, reward REAL NOT NULL, accuracy REAL, feasible INTEGER NOT NULL,
    provenance TEXT NOT NULL, created_s REAL NOT NULL, PRIMARY KEY (stage, position)) WITHOUT ROWID;
CREATE TABLE facts (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""

_COLUMNS = {
    table: tuple(
        column.split()[0] for column in re.sub(r"PRIMARY KEY \(.*?\)", "", columns).split(",") if column.strip()
    )
    for table, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\)(?: WITHOUT ROWID)?;", _TABLES, re.DOTALL)
}
_RUN_WAITS_S, _READER_WAITS_S = 60.0, 10.0


_TRIAL_COLUMNS = _COLUMNS["candidates"]
_COLUMN_TYPES = {
    "stage": str,
    "position": int,
    "batch": int,
    "key": str,
    "feasible": int,
    "provenance": str,
    "created_s": float,
}
"""What SQLite doesn't hold a column to; of the others, the parsers ask."""


class Journal(ClosedAtExit):
    """The journal of one run, open for this process alone; every method has committed when it returns.

    >>> with Journal.create(folder / "journal.sqlite", {"seed": 0}) as journal:
    ...     journal.store(Fact.SCORE, architecture.key, {"accuracy": 0.91})
    ...     journal.cached(Fact.SCORE, architecture.key)

    Killing the process at any instant loses nothing that was committed. `create` and `open` raise InputError if another
    process holds the run; `read` only looks, at any time.
    """

    def __init__(self, path: Path, lock: TextIO | None, address: str | None = None) -> None:
        self.path = path
        self._lock = lock
        # a run waits long for a program that copies the file, a reader doesn't
        patience = _READER_WAITS_S if lock is None else _RUN_WAITS_S
        self._database = sqlite3.connect(
            address or path, isolation_level=None, timeout=patience, uri=address is not None
        )
        self._file = _identity(path)

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, object] | None = None) -> Self:
        """Start a journal at `path` that holds `meta`; a journal never exists without it, even after a kill.

        Raises InputError if there is a file already, or the folder can't be written.
        """
        lock = acquire(path)
        try:
            if path.exists():
                raise InputError(f"{path} exists already: resume that run with ‹resume›, or choose another ‹out›")
            _write_tables(path, meta or {})
            return cls._start(path, lock)
        except BaseException:
            release(path, lock)
            raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal at `path`; raises InputError if it isn't one, or a newer n2n-edge wrote it."""
        if not path.is_file():
            raise InputError(f"{path} doesn't exist: there is no run to resume, start one without ‹resume›")
        lock = acquire(path)
        try:
            return cls._start(path, lock)
        except BaseException:
            release(path, lock)
            raise

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open the journal at `path` to look at, even while its run goes on; raises InputError as `open` does."""
        if not path.is_file():
            raise InputError(f"{path} doesn't exist: give the folder that a compress run wrote")
        try:
            return cls._start(path, None)
        except InputError:
            # SQLite puts files beside a journal that it reads; where it may not, and nobody writes, it can do without
            if os.access(path.parent, os.W_OK) or path.with_name(path.name + "-wal").exists():
                raise
            return cls._start(path, None, address=f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1")

    @classmethod
    def _start(cls, path: Path, lock: TextIO | None, address: str | None = None) -> Self:
        journal = cls(path, lock, address)
        try:
            application = journal._database.execute("PRAGMA application_id").fetchone()[0]
            version = journal._database.execute("PRAGMA user_version").fetchone()[0]
            if application != _APPLICATION_ID:
                raise InputError(f"{path} is not the journal of a run: give the folder that a compress run wrote")
            if version > SCHEMA:
                raise InputError(f"{path} has schema {version}, this n2n-edge knows {SCHEMA}: update n2n-edge")
            for table, columns in _COLUMNS.items():
                journal._database.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 1").fetchone()
            (state,) = journal._database.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise damaged(path, " ".join(str(state).split()))
            if lock is None:
                journal._database.execute("PRAGMA query_only=ON")
            else:
                journal._database.execute("PRAGMA journal_mode=WAL")
                journal._database.execute("PRAGMA synchronous=FULL")
        except sqlite3.DatabaseError as error:
            journal._database.close()
            if getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB":
                raise InputError(f"{path} is not a readable journal ({error}): give the folder of a run") from error
            raise failure(path, error) from error
        except BaseException:
            journal._database.close()
            raise
        return journal

    def close(self) -> None:
        """Close the file and let go of the run; closing again does nothing."""
        if self._lock is None:
            self._database.close()
        elif not self._lock.closed:
            self._database.close()
            release(self.path, self._lock)

    def set_meta(self, key: str, value: object) -> None:
        """Keep `value` (anything JSON can hold) under `key`, in place of an earlier one."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, _dump(value)))

    def meta(self) -> JsonObject:
        """Return everything that `create` and `set_meta` kept."""
        rows = self._rows("SELECT key, value FROM meta")
        return _Stored(self.path, {key: self._parsed(value) for key, value in rows})

    def record_trial(self, trial: Trial) -> None:
        """Add a trial; raises ValueError if its number is taken or its reward isn't finite."""
        if not math.isfinite(trial.reward):
            raise ValueError(f"the reward of a trial must be finite, not {trial.reward}")
        latency = trial.costs.latency
        row = {
            "stage": trial.stage,
            "position": trial.number,
            "batch": trial.batch,
            "actions": _dump(trial.actions),
            "key": trial.key,
            "architecture": _dump(trial.architecture.to_json()),
            "costs": _dump(trial.costs.to_json()),
            "reward": float(trial.reward),
            "accuracy": None if trial.score is None else float(trial.score),
            "feasible": int(trial.feasible),
            "provenance": "computed" if latency is None else latency.provenance,
            "created_s": time.time(),
        }
        try:
            self._write(f"INSERT INTO candidates VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
        except sqlite3.IntegrityError as error:
            raise ValueError(f"trial {trial.number} of stage {trial.stage} is recorded already") from error

    def trials(self, stage: StageName | None = None) -> list[Trial]:
        """Return the trials of `stage`, or of both, in order: stage 1 first, and by number in each."""
        rows = self._rows(
            f"SELECT {', '.join(_TRIAL_COLUMNS)} FROM candidates"
            " WHERE :stage IS NULL OR stage = :stage ORDER BY stage, position",
            {"stage": stage},
        )
        return [self._trial(row) for row in rows]

    def store(self, kind: str, key: str, value: Mapping[str, object]) -> None:
        """Keep a result, such as an evaluation or a latency, in place of an earlier one of that `kind` and `key`."""
        self._write("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (kind, key, _dump(value)))

    def cached(self, kind: str, key: str) -> JsonObject | None:
        """Return what `store` kept for `key`, or None."""
        rows = self._rows("SELECT value FROM facts WHERE kind = ? AND key = ?", (kind, key))
        return self._object(rows[0][0]) if rows else None

    def check_there(self) -> None:
        """Raise UnsuitableEnvironmentError where the file was moved, removed or replaced since it was opened."""
        if self._file is None or _identity(self.path) != self._file:
            raise missing(self.path)

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        self.check_there()
        try:
            self._database.execute(statement, values)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            if self._lock is None:
                raise  # a reader that writes is a fault of the program
            raise failure(self.path, error) from error

    def _rows(self, statement: str, values: tuple[object, ...] | dict[str, object] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise failure(self.path, error) from error

    def _parsed(self, text: object) -> Any:
        try:
            return json.loads(str(text))
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, f"a value is no JSON: {str(text)[:40]!r}") from error

    def _object(self, text: object) -> JsonObject:
        value = self._parsed(text)
        if not isinstance(value, dict):
            raise damaged(self.path, f"a value is no JSON object: {str(text)[:40]!r}")
        return _Stored(self.path, value)

    def _trial(self, row: tuple[Any, ...]) -> Trial:
        values = dict(zip(_TRIAL_COLUMNS, row, strict=True))
        for column, kind in _COLUMN_TYPES.items():
            if not isinstance(values[column], kind):
                raise damaged(self.path, f"{column} of a candidate: {str(values[column])[:40]!r}")
        if values["stage"] not in get_args(StageName):
            raise damaged(self.path, f"stage of a candidate: {values['stage'][:40]!r}")
        actions = self._parsed(values["actions"])
        if not isinstance(actions, list) or not all(isinstance(action, int) for action in actions):
            raise damaged(self.path, f"actions of a candidate: {str(values['actions'])[:40]!r}")
        numbers = [values["reward"], values["accuracy"] if values["accuracy"] is not None else 0.0]
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise damaged(self.path, f"reward or accuracy of a candidate: {numbers}")
        described, costs = self._object(values["architecture"]), self._object(values["costs"])
        try:
            regions, linear = (tuple(str(name) for name in described.get(key, ())) for key in ("int8", "linear"))
            removed = tuple((str(name), "") for name in described["removed"])
            # in the order in which they were written, by which the architecture's key goes
            names = Vocabulary((*removed, *((name, "") for name in linear)), regions=regions, mergeable=linear)
            widths = tuple((name, int(width)) for name, width in described["widths"].items())
            return Trial(
                Architecture(
                    frozenset(name for name, _ in removed), widths, names, frozenset(regions), frozenset(linear)
                ),
                TrialCosts.from_json(costs, values["provenance"]),
                reward=values["reward"],
                feasible=bool(values["feasible"]),
                score=values["accuracy"],
                stage=values["stage"],
                number=values["position"],
                batch=values["batch"],
                actions=tuple(actions),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise damaged(self.path, f"architecture or costs of a candidate: {str(error)[:80]}") from error


class _Stored(dict[str, Any]):
    """A JSON object of a journal; to lack what a run always writes is damage."""

    def __init__(self, path: Path, content: JsonObject) -> None:
        super().__init__(content)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise damaged(self._path, f"'{key}' is missing")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _write_tables(path: Path, meta: Mapping[str, object]) -> None:
    """Write a complete journal beside `path`, then move it there in one step; raises N2NError where it can't."""
    new = path.with_name(path.name + ".new")
    for leftover in (new, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        leftover.unlink(missing_ok=True)
    try:
        database = sqlite3.connect(new, isolation_level=None)
    except sqlite3.Error as error:
        raise failure(path, error) from error
    try:
        database.executescript(
            f"BEGIN; {_TABLES} PRAGMA application_id={_APPLICATION_ID}; PRAGMA user_version={SCHEMA}; COMMIT;"
        )
        database.executemany("INSERT INTO meta VALUES (?, ?)", [(key, _dump(value)) for key, value in meta.items()])
    except sqlite3.Error as error:
        raise failure(path, error) from error
    finally:
        database.close()
    new.replace(path)


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    """Turn a numpy scalar into the Python number it stands for; anything else isn't JSON."""
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    raise TypeError(f"{type(value).__name__} can't be kept in a journal")
