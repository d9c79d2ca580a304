"""Budgets in a file: ``n2n-edge.toml``, or ``[tool.n2n-edge.gate]`` of ``pyproject.toml``, per model by glob."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2n_edge.errors import InputError
from n2n_edge.gating.globs import files_below, glob_matches, glob_parts
from n2n_edge.gating.settings import settings_of
from n2n_edge.reading import exists, is_file, read_toml, real_path

__all__ = ["FILE_NAME", "BudgetFile", "find_budget_file", "name_below", "read_budget_file"]

FILE_NAME = "n2n-edge.toml"
_PROJECT = "pyproject.toml"
_MOST_LETTERS = 4096
"""No path is longer."""


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
        name = name_below(self.path.parent, model)
        return name is not None and glob_matches(glob_parts(glob), name.split("/"))

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
            here = sorted(files_below(self.path.parent, glob_parts(glob)))
            if not here:
                raise InputError(f"{self.path}: '{glob}' names no file; give the path of a model relative to this file")
            found |= dict.fromkeys(here)
        return tuple(found)


def find_budget_file(start: Path) -> BudgetFile | None:
    """Return the nearest budget file, in `start` or above it up to the root of its git repository; None if none."""
    for folder in (start.absolute(), *start.absolute().parents):
        own = folder / FILE_NAME
        if is_file(own):
            return read_budget_file(own)
        project = folder / _PROJECT
        if is_file(project) and "gate" in _project_table(project):
            return read_budget_file(project)
        if exists(folder / ".git"):
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
        parts = glob_parts(glob)
        odd = any("**" in part and part != "**" for part in parts)
        if odd or not parts or ".." in parts or glob.startswith("/") or len(glob) > _MOST_LETTERS:
            raise InputError(
                f"{path}: '{glob[:200]}' is no path below this file's folder; give such as models/**/*.onnx"
            )
        if parts[-1] == "**":
            raise InputError(f"{path}: '{glob}' names folders only; give {glob}/*.onnx")
        settings_of([(f'{path}, [{section}.models."{glob}"]', table, path.parent)])
    return found


def _project_table(path: Path) -> dict[str, Any]:
    tool = _parse(path).get("tool", {})
    table = tool.get("n2n-edge", {}) if isinstance(tool, dict) else {}
    return table if isinstance(table, dict) else {}


def _parse(path: Path) -> dict[str, Any]:
    return read_toml(path, wanted="the path of a budget file")


def name_below(folder: Path, path: Path) -> str | None:
    """Return a file's path relative to a folder, None if it isn't below it; a link counts as what it is called."""
    plain = [Path(os.path.abspath(one)) for one in (path, folder)]  # noqa: PTH100 (resolve would follow the link)
    for place in (plain[0], real_path(path.parent) / path.name):
        for root in (plain[1], real_path(folder)):
            if place.is_relative_to(root):
                return place.relative_to(root).as_posix()
    return None
