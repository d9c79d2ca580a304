"""Options of commands, made of the fields of settings, and the numbers that their texts are."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.errors import InputError
from n2n_edge.metrics.costs import COSTS
from n2n_edge.runs.settings import REPEATED

__all__ = ["numbers_of", "with_settings"]

_PATHS = ("classes",)


def with_settings(command: Callable[..., None], items: Sequence["Field[Any]"], *, behind: str) -> None:
    """Give a command that takes ``**settings`` the options of these fields, behind its parameter `behind`.

    A parameter of the command's own that is called like one of them is replaced by it.
    """
    options = {item.name: _parameter(item) for item in items}
    own = list(inspect.signature(command).parameters.values())
    own = [options.pop(each.name, each) for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD]
    index = [each.name for each in own].index(behind) + 1
    parameters = [*own[:index], *options.values(), *own[index:]]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}


def _parameter(item: "Field[Any]") -> inspect.Parameter:
    """Return a setting as a parameter that typer makes an option of, or of the teacher an argument."""
    words = item.metadata
    kind = next(form for form in get_args(item.type) or (item.type,) if form is not type(None))
    more: dict[str, Any] = {"help": words["help"], "rich_help_panel": words["panel"]}
    if words["shown"] is not None:
        more["show_default"] = words["shown"]
    flags: tuple[str, ...] = ()
    default: object = item.default
    if item.name == "teacher":
        annotation: Any = Annotated[str | None, typer.Argument(help=words["help"], show_default=False)]
        return _positional(item.name, annotation, None)
    if item.name == "device":
        more["autocompletion"], kind, default = device_names, list[str], None
    elif item.name in REPEATED:
        kind, default = list[str], None
    elif item.name in _PATHS:
        kind = Path
    elif kind is bool:
        name = item.name.replace("_", "-")
        flags = (words["flag"] or (f"--{name}/--no-{name}" if item.default is None else f"--{name}"),)
    elif getattr(kind, "__origin__", None) is tuple:
        kind = str
    else:  # a limit may go by a former name, too
        flags = next((row.flags for row in COSTS.values() if row.field == item.name), ())
    optional = kind | None if default is None else kind
    return _positional(item.name, Annotated[optional, typer.Option(*flags, **more)], default)


def _positional(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def numbers_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with commas between numbers as these; raises `InputError` for anything else."""
    found: dict[str, Any] = {name: _numbers(f"--{name}", given[name]) for name in ("mean", "std")}
    color = _numbers("--pad-color", given["pad_color"])
    found["pad_color"] = color and tuple(int(value) if value.is_integer() else value for value in color)
    return found


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    example = "114,114,114" if option == "--pad-color" else "0.485,0.456,0.406"
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: not numbers with commas between; give such as {example}") from error
    if not all(map(isfinite, values)):
        raise InputError(f"{option} {text}: not a finite number; give such as {example}")
    return values
