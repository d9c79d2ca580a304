"""Settings of a run as its file: TOML, with paths that hold from any folder."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from n2n_edge.errors import InputError
from n2n_edge.metrics.costs import with_present_names
from n2n_edge.reading import exists, expanded, read_toml
from n2n_edge.runs.setting_values import named_devices
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.writing import toml_value, write_text

__all__ = ["absolute_paths", "read_settings", "write_settings"]


def write_settings(settings: CompressSettings, path: Path) -> None:
    """Write the settings that were given, as TOML, in one step."""
    lines = ["# settings of this run; `n2n-edge compress --resume --out FOLDER` reads them"]
    for name, value in asdict(settings).items():
        if value is not None:
            lines.append(f"{name} = {toml_value(value)}")
    write_text(path, "\n".join(lines) + "\n")


def read_settings(path: Path) -> CompressSettings:
    """Read what `write_settings` wrote; raises InputError where that isn't what is there."""
    if not exists(path):
        raise InputError(f"{path.parent} holds no run to resume: {path.name} is missing")
    try:
        document = with_present_names(read_toml(path, wanted="the run.toml of a run"))
    except InputError as error:
        raise InputError(f"{error.text}; restore it or start a new run") from error
    if "policy_from" in document:  # of older versions
        raise InputError(
            f"{path}: 'policy_from' is gone, no search starts from another run's policies; "
            "take its line out to go on without, or start a new run"
        )
    known = {item.name for item in fields(CompressSettings)}
    unknown = sorted(set(document) - known)
    if unknown:
        raise InputError(f"{path}: unknown setting '{unknown[0]}'; known: {', '.join(sorted(known))}")
    try:
        document.setdefault("accept_expected", True)  # what runs did before they said so
        return CompressSettings(**document)
    except InputError as error:
        raise InputError(f"{path}: {error.text}; restore it or start a new run") from error


def _absolute_device(name: str) -> str:
    return str(expanded(name).absolute()) if name.endswith(".toml") else name


_PATHS = ("teacher", "weights", "data", "classes")


def absolute_paths(given: Mapping[str, object]) -> dict[str, object]:
    """Return settings as text with paths made absolute, so that a run can be resumed from any folder."""
    settings = dict(given)
    if settings.get("device") is not None:
        named = named_devices(settings["device"])
        settings["device"] = named_devices(
            [_absolute_device(name) for name in ([named] if isinstance(named, str) else named)]
        )
    for name in _PATHS:
        if settings.get(name) is not None:
            settings[name] = _absolute(settings[name])
    folders = settings.get("unlabelled")
    if isinstance(folders, list | tuple):
        settings["unlabelled"] = tuple(map(_absolute, folders))
    return settings


def _absolute(value: object) -> str:
    path = expanded(str(value))
    return str(path.absolute()) if path.exists() else str(value)
