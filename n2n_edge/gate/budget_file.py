"""Budgets in a file: ``n2n-edge.toml``, or ``[tool.n2n-edge.gate]`` of ``pyproject.toml``, per model by glob."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from n2n_edge.errors import InputError
from n2n_edge.gate.settings import settings_of

__all__ = ["FILE_NAME", "BudgetFile", "find_budget_file", "read_budget_file"]

FILE_NAME = "n2n-edge.toml"
_PROJECT = "pyproject.toml"


@dataclass(frozen=True)
class BudgetFile:
    """Settings for all models, and for those whose path, relative to the file's folder, matches a glob."""

    path: Path
    common: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]
    section: str
    """What the table is called, in errors."""

    def tables_for(self, model: Path) -> list[tuple[str, Mapping[str, Any], Path | None]]:
        """Return the tables that hold for a model, the more special ones later, as `settings_of` takes them."""
        folder = self.path.parent
        found: list[tuple[str, Mapping[str, Any], Path | None]] = [
            (f"{self.path}, [{self.section}]", self.common, folder)
        ]
        for glob, table in self.models.items():
            if self.matches(glob, model):
                found.append((f'{self.path}, [{self.section}.models."{glob}"]', table, folder))
        return found

    def matches(self, glob: str, model: Path) -> bool:
        """Tell whether a glob names a model: ``*`` within a folder's name, ``**`` over folders."""
        root = self.path.parent.resolve()
        resolved = model.resolve()
        if not resolved.is_relative_to(root):
            return False
        return _matches(glob.split("/"), resolved.relative_to(root).as_posix().split("/"))

    def found_models(self) -> tuple[Path, ...]:
        """Return the files that the globs name, in their order.

        Raises:
            InputError: there are no globs, or one of them names no file.
        """
        if not self.models:
            raise InputError(
                f'{self.path}: names no model; give one on the command line, or add [{self.section}.models."*.onnx"]'
            )
        found: dict[Path, None] = {}
        for glob in self.models:
            here = sorted(path for path in self.path.parent.glob(glob) if path.is_file())
            if not here:
                raise InputError(f"{self.path}: '{glob}' names no file; give the path of a model relative to this file")
            found |= dict.fromkeys(here)
        return tuple(found)


def find_budget_file(start: Path) -> BudgetFile | None:
    """Return the nearest budget file, in `start` or above it up to the root of its git repository; None if none."""
    for folder in (start.resolve(), *start.resolve().parents):
        own = folder / FILE_NAME
        if own.is_file():
            return read_budget_file(own)
        project = folder / _PROJECT
        if project.is_file() and "gate" in _project_table(project):
            return read_budget_file(project)
        if (folder / ".git").exists():
            return None
    return None


def read_budget_file(path: Path) -> BudgetFile:
    """Read budgets, every table of them checked at once.

    Raises:
        InputError: no such file, not TOML, no table of budgets in it, or a setting that doesn't exist.
    """
    if path.name == _PROJECT:
        section, document = "tool.n2n-edge.gate", _project_table(path)
    else:
        section, document = "gate", _parse(path)
        unknown = sorted(set(document) - {"gate"})
        if unknown:
            raise InputError(f"{path}: unknown table '{unknown[0]}'; budgets stand in [gate]")
    if not isinstance(document.get("gate"), dict):
        raise InputError(f"{path}: holds no table [{section}]; write one with `n2n-edge gate --init MODEL`")
    common = dict(document["gate"])
    models = common.pop("models", {})
    if not isinstance(models, dict) or not all(isinstance(table, dict) for table in models.values()):
        raise InputError(f'{path}: [{section}.models] must hold a table per glob, such as [{section}.models."*.onnx"]')
    found = BudgetFile(path, common, models, section)
    settings_of([(f"{path}, [{section}]", common, path.parent)])
    for glob, table in models.items():
        settings_of([(f'{path}, [{section}.models."{glob}"]', table, path.parent)])
    return found


def _project_table(path: Path) -> dict[str, Any]:
    tool = _parse(path).get("tool", {})
    table = tool.get("n2n-edge", {}) if isinstance(tool, dict) else {}
    return table if isinstance(table, dict) else {}


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); give the path of a budget file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as TOML ({error}); mend it") from error


def _matches(globs: list[str], parts: list[str]) -> bool:
    if not globs:
        return not parts
    if globs[0] == "**":
        return any(_matches(globs[1:], parts[start:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], globs[0]) and _matches(globs[1:], parts[1:])
