"""`n2n-edge quantize`: a float model in int8 or float16, written if it loses little and isn't slower."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.output import print_json, print_line, print_warning
from n2n_edge.cli.setting_options import numbers_of, with_settings
from n2n_edge.data.preprocessing_options import PREPROCESSING_OPTIONS
from n2n_edge.errors import BudgetMissedError, InputError, as_options
from n2n_edge.runs.settings import CompressSettings

if TYPE_CHECKING:
    from rich.table import Table

    from n2n_edge.metrics.figures import Figure
    from n2n_edge.quantize.ptq import Quantized
    from n2n_edge.runs.quantization_report import Distillation, QuantizationReport

__all__ = ["quantize"]

_HOW, _WHERE = "Quantization", "Timing"
_OF_DATA = (
    "data", "classes", "task", "decode", "input_shape", "bind", "seed", "label_weight", "augment", "flip",
    "train_device", *PREPROCESSING_OPTIONS,
)  # fmt: skip


def quantize(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="ONNX file of a float model.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="File to write; the report goes beside it, as .json.",
            show_default="MODEL-int8.onnx, -fp16 or -float",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="int8 or fp16.", rich_help_panel=_HOW)] = "int8",
    device: Annotated[
        str,
        typer.Option(
            help="Profile name or .toml file: decides the form of int8 and, unless it is this host, is predicted for.",
            autocompletion=device_names,
        ),
    ] = "cpu",
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer or node that stays float, or a pattern such as 'head*'. Repeatable.", rich_help_panel=_HOW
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            help="Most points of a hundred that the score may fall; layers that hurt most stay float for it.",
            rich_help_panel=_HOW,
        ),
    ] = 1.0,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset of the file.", show_default="the model's, 13 at least")
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(
            help="How ranges of activations are set: minmax, percentile, entropy, mse, or auto, by the loss on "
            "validation images.",
            rich_help_panel=_HOW,
        ),
    ] = "auto",
    images: Annotated[int, typer.Option(help="Training images that set the ranges.", rich_help_panel=_HOW)] = 256,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of distillation from the float model, with quantized values, after calibration.",
            rich_help_panel=_HOW,
            show_default="none",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time limit of that distillation; alone: as many epochs as fit.",
            rich_help_panel=_HOW,
            show_default="none",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the file even if it loses too much or is slower.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Write the float model that a quantized one was made from, but for rounding.")
    ] = False,
    target: Annotated[
        str, typer.Option(help="Where both files are timed: host, or ssh://[user@]host.", rich_help_panel=_WHERE)
    ] = "host",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads they are timed with.", rich_help_panel=_WHERE, show_default="all")
    ] = None,
    max_time: Annotated[
        float, typer.Option(help="Most seconds that each is timed for.", rich_help_panel=_WHERE)
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON document on stdout.")] = False,
    **given_of_data: Any,
) -> None:
    """Quantize a float model, calibrated on images; exit 1, nothing written, where it loses too much or is slower.

    With --epochs or --minutes it is then taught by the float model, and ships as it was taught if that made it better
    (--label-weight, --augment, --flip and --train-device are for that). The file is scored on the test images and timed
    in turns with the float one. What it does to either is in the report beside it.

    Examples:

    - `n2n-edge quantize teacher.onnx --data images/ --device raspberry-pi-4 --out small.onnx --max-drop 0.5`
    - `n2n-edge quantize teacher.onnx --data images/ --keep-float 'conv1*' --calibration mse --out small.onnx --force`
    - `n2n-edge quantize teacher.onnx --data images/ --epochs 1 --images 64 --out small.onnx --force`
    - `n2n-edge quantize teacher.onnx --data images/ --precision fp16 --out half.onnx --force`
    """
    if undo:
        _undo(context, model, out, as_json)
        return
    from n2n_edge.graph.input_shape import parse_input_shape
    from n2n_edge.runs.quantize_settings import QuantizeSettings, checked
    from n2n_edge.runs.run import require_training_packages

    require_training_packages()
    given = {**given_of_data, **numbers_of(given_of_data)}
    data = given.pop("data")
    if data is None:
        raise InputError(f"{model}: ranges are set by images; give --data, a folder of them as for `n2n-edge compress`")
    shape = given.pop("input_shape")
    bound = tuple(given.pop("bind") or ()) or None
    others: dict[str, Any] = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    of_data = CompressSettings(
        teacher=str(model),
        data=data,
        input_shape=None if shape is None else parse_input_shape(shape),
        bind=bound,
        **others,
    )
    settings = QuantizeSettings(
        of_data,
        precision,  # type: ignore[arg-type]
        device,
        tuple(keep_float or ()),
        max_drop,
        opset,
        calibration,  # type: ignore[arg-type]
        images,
        target,
        threads,
        max_time,
        force,
        epochs,
        minutes,
    )
    checked(settings, out)  # what is wrong is told before torch is imported, which takes seconds

    from n2n_edge.runs.quantization import quantize_file

    report = quantize_file(settings, out, lambda text: print_line(as_options(text), on_stderr=True))
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
    if not report.accepted:
        reasons = "; ".join(str(reason) for reason in report.reasons)
        if not force:
            raise BudgetMissedError(
                f"{model}: not written, in {precision} it {reasons}; --force writes it all the same"
            )
        print_warning(f"{model}: in {precision} it {reasons}")


def _undo(context: typer.Context, model: Path, out: Path | None, as_json: bool) -> None:
    from n2n_edge.graph.load import save_model
    from n2n_edge.metrics.figures import SCHEMA_VERSION
    from n2n_edge.quantize.undo import dequantize
    from n2n_edge.writing import refuse_unwritable

    allowed = ("model", "out", "undo", "as_json")
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            raise InputError(f"--{name.replace('_', '-')}: --undo takes nothing but --out and --json; leave it out")
    target = out if out is not None else model.with_name(f"{model.stem}-float.onnx")
    refuse_unwritable(target, inputs=[model])
    save_model(dequantize(model), target)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "model": str(model), "out": str(target)})
    else:
        print_line(f"float model: {target}")


def _print(report: "QuantizationReport") -> None:
    from rich.text import Text

    from n2n_edge.cli.console import Console

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(_table(report))
    found, distillation = report.found, report.distillation
    if found is not None:
        console.print(_steps(found))
        console.print(
            Text(f"ranges by {found.method}; activations {found.plan.activations}, weights {_weights(report)}")
        )
        if found.returned:
            names = ", ".join(name for name, _ in found.returned)
            console.print(Text(f"back in float, the most harmful first: {names}"), soft_wrap=True)
    if distillation is not None:
        console.print(Text(_training_in_words(distillation)), soft_wrap=True)
        if distillation.parity is not None:
            console.print(Text(distillation.parity.in_words), soft_wrap=True)
    for note in report.notes:
        console.print(Text(as_options(f"note: {note}"), style="dim"), soft_wrap=True)
    for warning in report.warnings:
        console.print(Text(as_options(f"warning: {warning}"), style="yellow"), soft_wrap=True)
    if report.out is not None:
        console.print(Text(f"quantized: {report.out}"), soft_wrap=True)
        console.print(Text(f"report:    {report.out.with_suffix('.json')}"), soft_wrap=True)


def _weights(report: "QuantizationReport") -> str:
    assert report.found is not None
    layers = report.precisions.layers
    quantized = sum(each.weight_type == "int8" for each in layers)
    return f"{report.found.plan.weight_bits} bits, in {quantized} of {len(layers)} layers"


def _table(report: "QuantizationReport") -> "Table":
    from rich.table import Table

    from n2n_edge.metrics.formats import format_figure, format_value
    from n2n_edge.metrics.precisions import share_in_words
    from n2n_edge.metrics.scores import metric_label

    table = Table(title="float and quantized", title_justify="left")
    for name in ("", "float", report.settings.precision, "change"):
        table.add_column(name, justify="right" if name else "left")

    def row(label: str, name: str, change: str = "") -> None:
        before, after = report.float_figures.get(name), report.quantized_figures.get(name)
        table.add_row(
            label, *("" if each is None else format_value(each.value, each.unit) for each in (before, after)), change
        )

    row("file", "size_mb", _times(report.float_figures["size_mb"], report.quantized_figures["size_mb"]))
    row(
        "memory bound",
        "memory_bound_mb",
        _times(report.float_figures["memory_bound_mb"], report.quantized_figures["memory_bound_mb"]),
    )
    macs = report.precisions.macs
    half: str = share_in_words(macs.get("fp16", 0), sum(macs.values()), "fp16")
    table.add_row("multiply-accumulates", "", share_in_words(macs.get("int8", 0), sum(macs.values())) or half, "")
    ratio = report.ratio
    where = "this host" if report.settings.target == "host" else report.settings.target
    table.add_row(f"time on {where}", "1", "" if ratio is None else format_figure(ratio).replace(" ratio", ""), "")
    if report.predicted is not None:
        before, after = report.predicted
        table.add_row(
            f"predicted on {report.settings.device}",
            format_value(before.value, "ms"),
            format_figure(after),
            _times(before, after),
        )
    difference = report.difference
    change = f"{-report.drop.value or 0.0:+.2f} points"
    if difference is not None and difference.low is not None and difference.high is not None:
        change = f"{difference.value:+.2f} points ({difference.low:+.2f} to {difference.high:+.2f})"
    row(metric_label(report.metric), report.metric, change)
    return table


def _steps(found: "Quantized") -> "Table":
    from rich.table import Table

    table = Table(title="by step, on validation images", title_justify="left")
    table.add_column("")
    for name in ("loss", "points lost"):
        table.add_column(name, justify="right")
    for name, loss in found.steps.items():
        table.add_row(name, f"{loss:.3g}", f"{found.drops[name]:.2f}")
    return table


def _training_in_words(made: "Distillation") -> str:
    trained = f"distilled for {made.epochs} epochs of {made.images:,} images"
    if made.ships:
        return f"{trained}, epoch {made.best_epoch} ships"
    return f"{trained}, which made it no better: what was calibrated ships"


def _times(before: "Figure", after: "Figure") -> str:
    return f"{after.value / before.value:.2f} times" if before.value else ""


with_settings(quantize, [item for item in fields(CompressSettings) if item.name in _OF_DATA], behind="model")
