"""`n2n-edge inspect`: what a model is made of, what can be removed or shrunk, what can't and why, and what it costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.output import print_json

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.cli.long_table import LongTable
    from n2n_edge.graph.groups import ChannelGroup
    from n2n_edge.graph.layers import Layer
    from n2n_edge.graph.quantized import Precisions
    from n2n_edge.graph.teacher import Teacher
    from n2n_edge.runs.inspection import Inspection

__all__ = ["inspect"]

NAMES_SHOWN = 4


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="ONNX file to look into, or a torch network: a .pt2 program, package.module:function, "
            "torchvision:NAME, timm:NAME.",
            show_default=False,
        ),
    ],
    weights: Annotated[str | None, typer.Option(help="State dict for a torch network; see `compress`.")] = None,
    device: Annotated[
        str, typer.Option(help="Profile name or .toml file; its latency is predicted.", autocompletion=device_names)
    ] = "cpu",
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Shape of the first input without its batch, such as 3x224x224, if the model leaves it free."
        ),
    ] = None,
    bind: Annotated[
        list[str] | None,
        typer.Option(help="Value of an input beside the image, such as scale=1.0; see `compress`.", show_default=False),
    ] = None,
    trust_pt2: Annotated[
        bool, typer.Option("--trust-pt2", help="Load a .pt2 program whatever it holds; see `compress`.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Show layers and channel groups, what can be removed or shrunk and what can't and why, and costs on a device.

    Examples:

    - `n2n-edge inspect teacher.onnx`
    - `n2n-edge inspect teacher.onnx --device raspberry-pi-4 --json`
    """
    from n2n_edge.graph.input_shape import parse_input_shape
    from n2n_edge.runs.inspection import inspect as inspect_model

    shape = parse_input_shape(input_shape) if input_shape is not None else None
    found = inspect_model(model, weights=weights, device=device, input_shape=shape, bind=bind, trust_pt2=trust_pt2)
    if as_json:
        print_json(found.to_json())
    elif found.teacher is None:
        from n2n_edge.cli.console import Console

        console = Console(highlight=False)
        if found.precisions.formats:
            console.print(_precision_table(found.precisions))
        console.print(_cost_table(Path(model), found.device, found))
        if found.precisions.formats:
            console.print(_quantized_in_words(found.precisions), soft_wrap=True)
        console.print(f"nothing can be compressed: {found.obstacles[0].text}", markup=False, soft_wrap=True)
    else:
        _print(Path(model), found.teacher, found)


def _print(path: Path, teacher: "Teacher", found: "Inspection") -> None:
    from rich.text import Text

    from n2n_edge.cli.console import Console
    from n2n_edge.runs.readiness import export_note, runtime_note

    console = Console(highlight=False)
    console.print(_layer_table(teacher))
    console.print(_group_table(teacher.groups))
    console.print(_cost_table(path, found.device, found))
    removable = len(teacher.removable)
    shrinkable = sum(group.shrinkable for group in teacher.groups)
    console.print(
        f"{removable} of {len(teacher.layers)} layers can be removed, {shrinkable} of {len(teacher.groups)} channel "
        f"groups can shrink: together they hold {teacher.touchable.params_share:.1%} of the params and "
        f"{teacher.touchable.macs_share:.1%} of the MACs of all layers"
    )
    if found.merges:
        saved = sum(priced.saved_ms for priced in found.merges)
        places = ", ".join(priced.merge.name for priced in found.merges[:NAMES_SHOWN])
        more = ", ..." if len(found.merges) > NAMES_SHOWN else ""
        console.print(
            Text(
                f"{len(found.merges)} merges of layers would lower the predicted latency on {found.device}, together "
                f"by about {saved:.3g} ms: {places}{more}"
            ),
            soft_wrap=True,
        )
    if found.input_assumed:
        sizes = "x".join(str(size) for size in found.input_sizes)
        console.print(f"the input's size is free: all figures are for {sizes}", soft_wrap=True)
    if export_note(teacher):
        console.print(Text(export_note(teacher), style="yellow"), soft_wrap=True)
    if by_runtime := runtime_note(teacher):
        console.print(Text(by_runtime, style="yellow"), soft_wrap=True)
    for item in found.obstacles:
        console.print(Text(f"compress would refuse it ({item.code}): {item.text}", style="yellow"), soft_wrap=True)


def _layer_table(teacher: "Teacher") -> "LongTable":
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.cli.long_table import LongTable

    together = {layer.name for layer in teacher.layers if not layer.removable} & teacher.removable
    table = Table(title="layers", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("op", no_wrap=True)
    table.add_column("width", no_wrap=True)
    for name in ("params", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("removable", overflow="fold", ratio=1)
    rows = [
        (
            Text(layer.name),
            Text(_op(layer)),
            Text(f"{layer.in_channels}->{layer.out_channels}"),
            Text(_short(layer.params)),
            Text(_short(layer.macs)),
            Text("with its branch", style="green") if layer.name in together else _yes_or(layer.reason),
        )
        for layer in teacher.layers
    ]
    return LongTable(table, rows)


def _group_table(groups: "Sequence[ChannelGroup]") -> "LongTable":
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.cli.long_table import LongTable

    table = Table(title="channel groups", title_justify="left")
    table.add_column("group", no_wrap=True)
    table.add_column("width", justify="right", no_wrap=True)
    table.add_column("layers", overflow="fold", ratio=2)
    table.add_column("shrinkable", overflow="fold", ratio=1)
    rows = [
        (Text(group.name), Text(str(group.width)), Text(_names(group.layers)), _yes_or(group.reason))
        for group in groups
    ]
    return LongTable(table, rows)


def _precision_table(found: "Precisions") -> "LongTable":
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.cli.long_table import LongTable

    table = Table(title="layers by precision", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("op", no_wrap=True)
    table.add_column("calculated in", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    for name in ("params", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    scaled = {True: " per channel", False: " per tensor", None: ""}
    rows = [
        (
            Text(layer.name),
            Text(layer.op_type),
            Text(layer.precision),
            Text(layer.weight_type + scaled[layer.per_channel]),
            Text(_short(layer.params)),
            Text(_short(layer.macs)),
        )
        for layer in found.layers
    ]
    return LongTable(table, rows)


def _quantized_in_words(found: "Precisions") -> str:
    """Return one line that says how a model is quantized, and what of it is."""
    ways = {
        "QDQ": "pairs of QuantizeLinear and DequantizeLinear (QDQ)",
        "QOperator": "operators on integers (QOperator)",
        "dynamic": "scales of activations found at run time (dynamic)",
        "weights": "weights alone",
    }
    integers = sum(layer.precision == "int8" for layer in found.layers)
    return (
        f"quantized by {' and '.join(ways[each] for each in found.formats)}: {integers} of {len(found.layers)} layers "
        f"are calculated in int8; {found.conversions} conversions from or to floats cost time"
    )


def _cost_table(path: Path, device: str, found: "Inspection") -> "Table":
    from rich.table import Table

    from n2n_edge.metrics.precisions import BYTES, share_in_words

    figures, batch = found.figures, found.batch
    macs = found.precisions.macs
    whole = sum(macs.values())
    parts = [share_in_words(macs.get(each, 0), whole, each) for each in BYTES if each != "fp32"]
    latency = figures["latency_ms"]
    bounded = latency.low is not None and latency.high is not None
    interval = f" ({latency.low:.3g} to {latency.high:.3g})" if bounded else ""
    table = Table(title=f"costs of {path.name}, batch {batch}", title_justify="left")
    table.add_column("cost", no_wrap=True)
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("source", overflow="fold")
    table.add_row("size MB", f"{figures['size_mb'].value:.3f}", "computed")
    table.add_row("params", f"{figures['params'].value:,.0f}", "computed")
    table.add_row("MACs", f"{figures['macs'].value:,.0f}", ", ".join(["computed", *filter(None, parts)]))
    table.add_row("memory bound MB", f"{figures['memory_bound_mb'].value:.3f}", "computed")
    table.add_row("latency ms", f"{latency.value:.3g}{interval}", f"{latency.provenance}: predicted for {device}")
    return table


def _op(layer: "Layer") -> str:
    parts = [layer.op_type]
    if layer.op_type in ("Conv", "ConvTranspose"):
        parts.append(f"{layer.kernel[0]}x{layer.kernel[1]}")
    if layer.stride != (1, 1):
        rows, columns = layer.stride
        parts.append(f"/{rows}" if rows == columns else f"/{rows}x{columns}")
    if layer.groups > 1:
        parts.append("dw" if layer.groups == layer.in_channels else f"g{layer.groups}")
    return " ".join(parts)


def _names(names: Sequence[str]) -> str:
    if len(names) <= NAMES_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: NAMES_SHOWN - 1])} ... {names[-1]} ({len(names)} in all)"


def _yes_or(reason: str) -> "Text":
    from rich.text import Text

    return Text("yes", style="green") if not reason else Text(f"no: {reason}", style="dim")


def _short(count: int) -> str:
    """Write a count in at most five characters: 937, 9.41k, 2.36M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
