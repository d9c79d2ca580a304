"""A bench beside an earlier one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from n2n_edge.errors import InputError
from n2n_edge.metrics.figures import SCHEMA_VERSION
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.reading import read_json
from n2n_edge.report.bench_document import BenchJson, names_of_rows

__all__ = ["Change", "changes_since", "read_bench"]

COMPARABLE = ("cpu", "logical_cpus", "memory_mb", "os", "python", "onnxruntime", "n2n_edge")


@dataclass(frozen=True)
class Change:
    """A model's median beside an earlier one; `warnings` say why the two may not compare."""

    name: str
    before_ms: float
    after_ms: float
    overlap: bool
    warnings: tuple[str, ...]

    @property
    def words(self) -> str:
        """One line that says both medians, their ratio, and whether their intervals overlap."""
        ratio = self.after_ms / self.before_ms
        sure = "their intervals overlap" if self.overlap else "their intervals are apart"
        return f"{self.name}: {self.before_ms:.3f} ms then, {self.after_ms:.3f} ms now, {ratio:.3f} times; {sure}"


def read_bench(path: Path) -> BenchJson:
    """Read what `bench --save` wrote.

    Raises:
        InputError: no such file, or not a document of this kind and version.
    """
    document = read_json(path, "a bench document, which bench --save writes")
    if not isinstance(document, dict) or document.get("kind") != "bench" or "models" not in document:
        raise InputError(f"{path}: not a bench document; write one with bench --save")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path}: of version {document.get('schema_version')}, not {SCHEMA_VERSION}; measure again")
    bench = cast("BenchJson", document)
    try:
        for row in [row for row in document["models"] if "p50_ms" in row]:
            _ = row["sha256"]
            if not all(float(row["p50_ms"][part]) > 0 for part in ("value", "low", "high")):
                raise ValueError("a time that is none")
        _ = document["environment"]["cpu"], [change.words for change in changes_since(bench, bench)]
    except KeyError as error:
        raise InputError(f"{path}: a bench document without {error}; write one with bench --save") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{path}: a damaged bench document ({error}); write one with bench --save") from error
    return bench


def changes_since(earlier: BenchJson, now: BenchJson) -> tuple[Change, ...]:
    """Return a change for each model that both documents measured.

    It is found under the same runtime, by its path, else by its content, or by its file name where no other has it.
    The two weren't timed in turns: whatever else changed meanwhile is in the ratio.
    """
    warnings = []
    for name in COMPARABLE:
        before, after = earlier["environment"].get(name), now["environment"].get(name)
        if before != after:
            warnings.append(f"{name} differs: {before} then, {after} now")
    if earlier["target"]["name"] != now["target"]["name"]:
        warnings.append(f"the target differs: {earlier['target']['name']} then, {now['target']['name']} now")
    found = []
    names = names_of_rows(now)
    for name, model in zip(names, now["models"], strict=True):
        before_row = _same(model, earlier)
        if before_row is None or "p50_ms" not in model:
            continue
        own = list(warnings)
        for key in ("threads", "batch", "providers", *(() if _runtime(model) == ONNXRUNTIME else ("runtime",))):
            if before_row[key] != model[key]:
                own.append(f"{key} differs: {before_row[key]} then, {model[key]} now")
        if before_row["sha256"] != model["sha256"]:
            own.append("it is another file by the same name")
        old, new = before_row["p50_ms"], model["p50_ms"]
        overlap = old["low"] <= new["high"] and new["low"] <= old["high"]
        found.append(Change(name, old["value"], new["value"], overlap, tuple(own)))
    return tuple(found)


def _runtime(row: dict[str, Any]) -> str:
    """Return the name of the runtime that a model was timed under, without its version."""
    return str(row.get("runtime") or ONNXRUNTIME).split()[0]


def _same(model: dict[str, Any], earlier: BenchJson) -> dict[str, Any] | None:
    candidates = [row for row in earlier["models"] if "p50_ms" in row and _runtime(row) == _runtime(model)]
    for row in candidates:
        if row["path"] == model["path"]:
            return row
    alike = [row for row in candidates if Path(row["path"]).name == Path(model["path"]).name]
    same = (row for row in alike if row["sha256"] and row["sha256"] == model.get("sha256"))
    return next(same, alike[0] if len(alike) == 1 else None)
