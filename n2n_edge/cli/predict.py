"""`n2n-edge predict`: what a model will cost on a device that isn't at hand, and how sure that is."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.output import print_json, print_line
from n2n_edge.errors import InputError
from n2n_edge.metrics.figures import SCHEMA_VERSION, Figure
from n2n_edge.metrics.precisions import BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from n2n_edge.latency.estimate import Estimate
    from n2n_edge.metrics.precisions import Precision

    _Row = tuple[Path, Estimate]

__all__ = ["predict"]

LAYERS_SHOWN = 12


def predict(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX files.", show_default=False)],
    device: Annotated[
        list[str],
        typer.Option(
            help="Profile name or .toml file; see `n2n-edge profiles list`. Repeatable.", autocompletion=device_names
        ),
    ],
    threads: Annotated[int | None, typer.Option(help="CPU threads [default: the profile's].")] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="What runs the model there: onnxruntime, ncnn or openvino. Timings of that runtime speak first.",
            show_default="the profile's, onnxruntime",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="What float32 operators would be run in there: fp32, fp16 or int8. What the file itself quantizes, or "
            "holds in float16, counts so without it.",
            show_default="fp32; under ncnn fp16, where there is arithmetic for it",
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the first input without its batch, such as 3x224x224, if the model leaves them free."
        ),
    ] = None,
    bind: Annotated[
        list[str] | None,
        typer.Option(help="Values of an input beside the image, as for `compress`: scale=1.0. Repeatable."),
    ] = None,
    measured: Annotated[
        list[str] | None,
        typer.Option(
            help="A timing of the device, with these threads and in this precision, such as model.onnx=12.3ms: the "
            "prediction is corrected by it, and its interval narrows. Repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Predict latency, energy and memory of one inference on a device, with an interval and the evidence for it.

    Several models or devices make one table, a row for each model on each device.

    Examples:

    - `n2n-edge predict student.onnx --device raspberry-pi-4`
    - `n2n-edge predict student.onnx --device jetson-orin-nano --precision fp16 --json`
    - `n2n-edge predict student.onnx --device raspberry-pi-5 --runtime ncnn`
    - `n2n-edge predict teacher.onnx student.onnx --device raspberry-pi-4 --device raspberry-pi-5`
    - `n2n-edge predict student.onnx --device cortex-a73 --measured student.onnx=48.5ms`
    """
    from n2n_edge.devices.registry import load_profile
    from n2n_edge.graph.bind import bound_where_named
    from n2n_edge.graph.input_shape import at_one_size, parse_input_shape
    from n2n_edge.graph.load import load_model
    from n2n_edge.graph.shapes import batch_of
    from n2n_edge.latency.predict import predict as predict_model

    if precision is not None and precision not in BYTES:
        raise InputError(f"--precision {precision}: unknown; give one of {', '.join(BYTES)}")
    run_in = cast("Precision | None", precision)
    profiles = {profile.name: profile.under(runtime) for profile in map(load_profile, device)}
    if measured:
        from n2n_edge.calibration.timings import parse_timing, with_timings

        if len(profiles) > 1:
            raise InputError("--measured: timings are of one device, but several are given; ask for one at a time")
        timings = [parse_timing(each) for each in measured]
        profiles = {name: with_timings(each, timings, threads, run_in) for name, each in profiles.items()}
    paths = tuple(dict.fromkeys(models))
    asked = parse_input_shape(input_shape) if input_shape is not None else None
    loaded = bound_where_named([load_model(path) for path in paths], bind or ())
    sized = at_one_size([(str(path), model) for path, model in zip(paths, loaded, strict=True)], asked)
    for note in sized.notes:
        print_line(f"note: {note}", on_stderr=True)
    rows: list[_Row] = []
    for path, model in zip(paths, sized.models, strict=True):
        if batch_of(model) > 1:
            print_line(f"note: {path} takes {batch_of(model)} images at a time: figures are for all", on_stderr=True)
        for profile in profiles.values():
            rows.append((path, predict_model(model, profile, threads=threads, precision=run_in, name=str(path))))
    if as_json:
        documents = [
            {"schema_version": SCHEMA_VERSION, "model": str(path), **estimate.to_json()} for path, estimate in rows
        ]
        several = {"schema_version": SCHEMA_VERSION, "kind": "predictions", "predictions": documents}
        print_json(documents[0] if len(documents) == 1 else several)
    elif len(rows) == 1:
        _print(*rows[0])
    else:
        _print_table(rows)


def _precisions(estimate: "Estimate") -> str:
    """Return what it is calculated in: ``fp32``, ``int8 and fp32``."""
    return " and ".join(share.precision for share in estimate.shares)


def _room(estimate: "Estimate") -> str:
    """Return whether the memory that it takes is there."""
    return f"{'fits' if estimate.fits else 'does not fit'} into {estimate.profile.usable_memory_mb:.0f} MB"


def _print(path: Path, found: "Estimate") -> None:
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.cli.console import Console

    console = Console()
    where = f"{path.name} on {found.profile.name}, {found.unit}, {_precisions(found)}, {found.profile.runtime}"
    table = Table("", "predicted", "nine of ten between", title=Text(where), title_justify="left")
    table.add_row("latency", *_cells(found.figure))
    if found.energy is not None:
        table.add_row("energy", *_cells(found.energy))
    table.add_row("memory", f"{found.memory.value:.1f} MB", _room(found))
    console.print(table)
    total = found.figure.value or 1.0
    if len(found.shares) > 1:
        parts = Table("calculated in", "MACs", "ms", "share", "evidence")
        for share in found.shares:
            told = f"{share.basis.evidence.models} models on {share.basis.evidence.measured_on}"
            part = share.figure.value
            parts.add_row(share.precision, f"{share.macs:,}", f"{part:.3f}", f"{part / total:.1%}", Text(told))
        console.print(parts)
    layers = Table("layer", "ms", "share")
    for name, ms in list(found.by_layer().items())[:LAYERS_SHOWN]:
        layers.add_row(Text(name or "outside the layers"), f"{ms:.3f}", f"{ms / total:.1%}")
    console.print(layers)
    for notice in (*found.evidence, *found.warnings):
        console.print(Text(str(notice)), soft_wrap=True)


def _print_table(rows: "Sequence[_Row]") -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from n2n_edge.cli.console import Console

    energy = any(estimate.energy is not None for _, estimate in rows)
    columns = ["under", "on", "in", "latency", "nine of ten between", *(["energy"] if energy else []), "memory", ""]
    table = Table(
        Column("model", overflow="fold"), Column("device", overflow="fold"), *columns,
        title="predicted", title_justify="left",
    )  # fmt: skip
    for path, found in rows:
        value, interval = _cells(found.figure)
        table.add_row(
            Text(str(path)), found.profile.name, found.profile.runtime, found.unit, _precisions(found), value,
            interval,
            *([_cells(found.energy)[0] if found.energy is not None else ""] if energy else []),
            f"{found.memory.value:.1f} MB", _room(found),
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print("for the evidence and the layers: --json, or one model on one device", soft_wrap=True)


def _cells(figure: Figure) -> tuple[str, str]:
    assert figure.low is not None
    assert figure.high is not None
    return (
        f"{figure.value:.3g} {figure.unit} ({figure.provenance})",
        f"{figure.low:.3g} and {figure.high:.3g} {figure.unit}",
    )
