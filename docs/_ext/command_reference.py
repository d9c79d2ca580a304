"""Writes the reference of commands from the commands themselves, so that it can't say anything else."""

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from n2n_edge.cli.app import app as command_line

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["command_reference", "setup"]

PLACE = "<!-- the commands -->"


def command_reference() -> str:
    """Return Markdown that describes every command: what it does, its arguments and options, examples."""
    root = typer.main.get_command(command_line)
    context = root.make_context("n2n-edge", [], resilient_parsing=True)
    parts = ["## n2n-edge", *_parameters(root, context)]
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        parts += _command(f"n2n-edge {name}", command, context)
    return "\n\n".join(parts) + "\n"


def _command(path: str, command: Any, parent: Any) -> Iterator[str]:
    yield f"## {path}"
    context = command.make_context(path.split()[-1], [], parent=parent, resilient_parsing=True)
    text, _, examples = inspect.cleandoc(command.help or "").partition("Examples:")
    yield text.strip()
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            parts = list(_command(f"{path} {name}", inner, context))
            yield "\n\n".join(parts).replace("## ", "### ", 1)
        return
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
    yield from _parameters(command, context)
    lines = [line.strip().removeprefix("- ").strip("`") for line in examples.splitlines() if line.strip()]
    if lines:
        yield "```sh\n" + "\n".join(lines) + "\n```"


def _parameters(command: Any, context: Any) -> Iterator[str]:
    panels: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
            continue
        row = f"| {_name(parameter)} | {_meaning(parameter, context)} |"
        panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(row)
    for panel, rows in panels.items():
        yield "\n".join([f"| {panel} | |", "| --- | --- |", *rows])


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name}`"
    return ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))


def _meaning(parameter: Any, context: Any) -> str:
    text = (parameter.help or "").replace("|", "\\|").replace("\n", " ")
    default = parameter.default
    shown = getattr(parameter, "show_default", True)
    if shown and default is not None and not callable(default) and not isinstance(default, bool) and default != ():
        text += f" Default: `{default}`."
    return text + (" Required." if parameter.required else "")


def fill_in(app: "Sphinx", docname: str, source: list[str]) -> None:
    """Put the reference where the page asks for it."""
    source[0] = source[0].replace(PLACE, command_reference())


def setup(app: "Sphinx") -> dict[str, bool]:
    app.connect("source-read", fill_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
