"""`n2n-edge compress`: from a teacher, data, a device and budgets to a student that meets them."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2n_edge.cli.outcome import conclude
from n2n_edge.cli.output import print_json
from n2n_edge.cli.setting_options import numbers_of, with_settings
from n2n_edge.cli.stopping import resumable
from n2n_edge.errors import BudgetMissedError, InputError
from n2n_edge.metrics.figures import SCHEMA_VERSION
from n2n_edge.runs.settings import REPEATED, CompressSettings

if TYPE_CHECKING:
    from n2n_edge.runs.run import Run

__all__ = ["compress"]

_RUN = "Run"


def compress(
    context: typer.Context,
    teacher: str | None,
    teacher_option: Annotated[
        str | None, typer.Option("--teacher", help="The same as an option.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.", rich_help_panel=_RUN)] = Path("n2n-run"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, with its own settings.", rich_help_panel=_RUN)
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Write the run's curves to OUT/tensorboard, too, for TensorBoard.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(
            help="Forms of the student to write beside it, with commas between: ncnn, openvino, fp16 (see `export`).",
            rich_help_panel=_RUN,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON document on stdout.", rich_help_panel=_RUN)
    ] = False,
    **settings: Any,
) -> None:
    """Search for a smaller student, train it by distillation, and ship it with proof that it meets the budgets.

    Examples:

    - `n2n-edge compress --device raspberry-pi-4 --max-mb 0.6 --effort quick --out demo`
    - `n2n-edge compress teacher.onnx --data images/ --device raspberry-pi-4 --max-mb 0.6 --max-latency-ms 20`
    - `n2n-edge compress --resume --out run`
    """
    from n2n_edge.runs.run import Run, new_run, require_tensorboard, require_training_packages
    from n2n_edge.runs.settings_file import absolute_paths

    require_training_packages()
    if export is not None:
        from n2n_edge.runs.export import parse_forms

        parse_forms([export])
    if tensorboard:
        require_tensorboard()
    if teacher is not None and teacher_option is not None:
        raise InputError(f"--teacher {teacher_option}: {teacher} is given as the teacher already; give one of them")
    given = {"teacher": teacher if teacher is not None else teacher_option, **settings}
    given["device"] = given["device"] or "cpu"
    for name in REPEATED:
        given[name] = given[name] or None
    given |= numbers_of(given)
    given["input_shape"] = _shape(given["input_shape"])
    given = absolute_paths(given)
    if resume:
        run = Run.open(out)
        run.take_settings({name: value for name, value in given.items() if _was_given(context, name)})
    else:
        run = new_run(out, given)
    try:
        with resumable(lambda: _way_on(run)):
            from n2n_edge.cli.live import live_view

            with live_view(run.settings, as_json) as view:
                run.resume(callbacks=[view], tensorboard=tensorboard)
    except BudgetMissedError as error:
        if as_json:
            failed = {"schema_version": SCHEMA_VERSION, "passed": False, "error": error.on_command_line()}
            print_json({**failed, **error.details})
        raise
    code = 0
    if export is not None:
        from n2n_edge.cli.export import export_student

        code = export_student(run, export)
    try:
        conclude(run, as_json)
    except typer.Exit as end:
        raise typer.Exit(end.exit_code or code) from None


def _way_on(run: "Run") -> str:
    """Return how to go on with a run that was stopped."""
    return f"go on with `{run.resume_command}`" if run.begun else "nothing had begun: give the same command again"


def _was_given(context: typer.Context, name: str) -> bool:
    asked = "teacher_option" if name == "teacher" and context.params.get("teacher_option") else name
    source = context.get_parameter_source(asked)
    return source is not None and source.name == "COMMANDLINE"


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--input-shape {text}: not channels, height and width; give such as 3x224x224")
    return tuple(int(part) for part in parts)


with_settings(compress, [item for item in fields(CompressSettings) if item.metadata], behind="teacher_option")
