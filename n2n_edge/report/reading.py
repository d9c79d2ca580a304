"""Reading what a report is made of: a run's `report.json`, or the document of a bench."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from n2n_edge.errors import InputError
from n2n_edge.metrics.figures import SCHEMA_VERSION
from n2n_edge.reading import is_file, read_json
from n2n_edge.report.bench_document import BenchJson
from n2n_edge.report.document import RunReport

__all__ = ["find_document", "read_document"]

_RUN_KEYS = ("teacher", "student", "budgets", "device", "search", "architecture", "training", "command")


def find_document(path: Path) -> Path:
    """Return the JSON document that `path` stands for: of a run's folder its `report.json`, else the file itself.

    Raises:
        InputError: there is none.
    """
    if path.is_dir():
        document = path / "report.json"
        if is_file(document):
            return document
        if (path / "journal.sqlite").is_file():
            raise InputError(
                f"{path}: has no report.json, since the run isn't finished or nothing met its budgets; "
                f"`n2n-edge compress --resume --out {path}` goes on with it or says so"
            )
        raise InputError(f"{path}: not the folder of a run, it has no report.json; give one that compress wrote")
    if not is_file(path):
        raise InputError(f"{path}: no such file or folder; give the folder of a run, or what bench --save wrote")
    return path


def read_document(path: Path) -> RunReport | BenchJson:
    """Read a document; one of a bench has ``kind`` "bench".

    Raises:
        InputError: it isn't readable, of another kind, or of another version.
    """
    document = read_json(path, "a report.json or a bench document")
    if not isinstance(document, Mapping):
        raise InputError(f"{path}: not a report; give the folder of a run, or what bench --save wrote")
    version = document.get("schema_version")
    bench = document.get("kind") == "bench" and "models" in document
    if not bench and not all(key in document for key in _RUN_KEYS):
        raise InputError(f"{path}: not a report; give the folder of a run, or what bench --save wrote")
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: of version {version}, this n2n-edge knows {SCHEMA_VERSION}; write it anew")
    return cast("BenchJson", document) if bench else cast("RunReport", document)
