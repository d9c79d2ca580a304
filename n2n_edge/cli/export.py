"""`n2n-edge export`: a model in the forms that other runtimes read."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2n_edge.cli.output import print_error, print_json, print_line

if TYPE_CHECKING:
    from n2n_edge.runs.export import Export
    from n2n_edge.runs.run import Run

__all__ = ["export", "export_student"]


def export(
    model: Annotated[Path, typer.Argument(help="ONNX file.", show_default=False)],
    to: Annotated[str, typer.Option(help="Forms, with commas between: ncnn, openvino, fp16.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder to write into.", show_default="that of MODEL")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Images, as for compress, on which each form is compared with MODEL; else random inputs."),
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Channels, height, width, such as 3x224x224, if MODEL leaves them free.")
    ] = None,
    bind: Annotated[
        list[str] | None, typer.Option(help="Value of an input beside the image, such as scale=1.0. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Convert a model for other runtimes; a form that fails, or gives something else, isn't written (exit 1).

    Examples:

    - `n2n-edge export student.onnx --to ncnn,openvino`
    - `n2n-edge export student.onnx --to fp16 --data images/ --out board/`
    """
    from n2n_edge.graph.input_shape import parse_input_shape
    from n2n_edge.runs.export import export as export_model

    shape = None if input_shape is None else parse_input_shape(input_shape)
    found = export_model(model, [to], out=out, data=data, input_shape=shape, bind=bind or (), on_message=_say)
    if as_json:
        print_json(found.to_json())
    code = _show(found, on_stderr=as_json)
    if code:
        raise typer.Exit(code)


def export_student(run: "Run", forms: str) -> int:
    """Write a run's student in other forms beside it, and what became of them to `student.export.json`.

    Returns the exit code: 0 where every form was written.
    """
    from n2n_edge.runs.export import export as export_model
    from n2n_edge.writing import write_text

    settings = run.settings
    data = settings.data if isinstance(settings.data, str) else None
    # a student may take images of another size than the teacher's, which settings tell of
    taken: Any = run.report["data"]
    shape = None if settings.input_shape is None else tuple(taken["input_shape"])
    found = export_model(run.student, [forms], data=data, input_shape=shape, bind=settings.bind or (), on_message=_say)
    write_text(run.student.with_suffix(".export.json"), json.dumps(found.to_json(), indent=2) + "\n")
    return _show(found, on_stderr=True)


def _say(text: str) -> None:
    print_line(text, on_stderr=True)


def _show(found: "Export", *, on_stderr: bool) -> int:
    """Print what was written, and what wasn't, and return the exit code."""
    for each in found.exported:
        files = ", ".join(str(file) for file in each.files)
        print_line(f"{each.form}: {files} ({each.size_mb:.3f} MB), {each.parity.in_words}", on_stderr=on_stderr)
    for error in found.failures.values():
        print_error(error)
    return max((error.exit_code for error in found.failures.values()), default=0)
