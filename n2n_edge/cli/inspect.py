"""`n2n-edge inspect`: what a model is made of, what can be removed or shrunk, what can't and why, and what it costs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.output import print_json
from n2n_edge.errors import IncompressibleError, InputError
from n2n_edge.metrics.figures import SCHEMA_VERSION, Figure

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.devices.profile import Profile
    from n2n_edge.graph.groups import ChannelGroup
    from n2n_edge.graph.layers import Layer
    from n2n_edge.graph.teacher import Teacher
    from n2n_edge.runs.readiness import Obstacle

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
    from n2n_edge.devices.registry import load_profile
    from n2n_edge.foreign import foreign_file
    from n2n_edge.graph.input_shape import parse_input_shape
    from n2n_edge.runs.readiness import obstacles

    profile = load_profile(device)
    shape = parse_input_shape(input_shape) if input_shape is not None else None
    try:
        teacher = _load(model, weights, shape, trust_pt2)
    except IncompressibleError as error:
        _show_costs(Path(model), profile, error, as_json)
        return
    with foreign_file(model):
        figures = _figures(Path(model), teacher, profile)
        refused = obstacles(teacher, shape)
        document = _document(teacher, figures, refused)
    if as_json:
        print_json(document)
    else:
        _print(Path(model), profile.name, teacher, figures, refused)


def _show_costs(path: Path, profile: "Profile", reason: IncompressibleError, as_json: bool) -> None:
    """Show what a model costs that has no layers to remove or shrink, and why."""
    from n2n_edge.foreign import foreign_file
    from n2n_edge.graph.load import load_model
    from n2n_edge.graph.shapes import batch_of
    from n2n_edge.latency.file_figures import file_figures
    from n2n_edge.latency.prediction import predict_latency

    figures = file_figures(path)
    model = load_model(path)
    with foreign_file(path):
        figures["latency_ms"] = predict_latency(model, profile)
    if as_json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "layers": [],
                "groups": [],
                "costs": {name: figure.to_json() for name, figure in figures.items()},
                "touchable": {"params_share": 0.0, "macs_share": 0.0},
                "input": {"sizes": [], "assumed": False},
                "obstacles": [{"code": "incompressible", "text": str(reason)}],
                "reason": str(reason),
            }
        )
        return
    from n2n_edge.cli.console import Console

    console = Console(highlight=False)
    console.print(_cost_table(path, profile.name, figures, batch_of(model)))
    console.print(f"nothing can be compressed: {reason}", markup=False)


def _load(model: str, weights: str | None, input_shape: tuple[int, ...] | None, trust_pt2: bool) -> "Teacher":
    from n2n_edge.graph.teacher import Teacher

    if Path(model).suffix != ".pt2" and (":" not in model or Path(model).exists()):
        if weights is not None:
            raise InputError(f"--weights {weights}: an ONNX file holds its weights; leave it out")
        return Teacher.load(model, input_shape)
    from n2n_edge.runs.run import require_training_packages

    require_training_packages()
    from n2n_edge.training.torch_teachers import is_torch_teacher, torch_teacher

    if not is_torch_teacher(model):
        raise InputError(f"{model}: no such file; give an ONNX model or a torch network (see --help)")
    return Teacher(torch_teacher(model, weights, input_shape, trust_pt2=trust_pt2), input_shape)


def _figures(path: Path, teacher: "Teacher", profile: "Profile") -> dict[str, Figure]:
    from n2n_edge.graph.costs import costs
    from n2n_edge.latency.file_figures import static_figures
    from n2n_edge.latency.prediction import predict_latency
    from n2n_edge.measure.files import file_size_bytes

    found = costs(teacher.model)
    if path.is_file() and path.suffix != ".pt2":
        found = replace(found, size_bytes=file_size_bytes(path))
    return {**static_figures(found), "latency_ms": predict_latency(teacher.model, profile)}


def _document(teacher: "Teacher", figures: dict[str, Figure], refused: "Sequence[Obstacle]") -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "layers": [
            {
                "name": layer.name,
                "op_type": layer.op_type,
                "removable": layer.removable,
                "reason": layer.reason,
                "in_channels": layer.in_channels,
                "out_channels": layer.out_channels,
                "kernel": list(layer.kernel),
                "stride": list(layer.stride),
                "groups": layer.groups,
                "params": layer.params,
                "macs": layer.macs,
            }
            for layer in teacher.layers
        ],
        "groups": [
            {
                "name": group.name,
                "width": group.width,
                "shrinkable": group.shrinkable,
                "reason": group.reason,
                "layers": list(group.layers),
            }
            for group in teacher.groups
        ],
        "costs": {name: figure.to_json() for name, figure in figures.items()},
        "touchable": {
            "params_share": teacher.touchable.params_share,
            "macs_share": teacher.touchable.macs_share,
        },
        "input": {"sizes": _input_sizes(teacher), "assumed": any(item.code == "free_size" for item in refused)},
        "obstacles": [{"code": item.code, "text": item.text} for item in refused],
    }


def _input_sizes(teacher: "Teacher") -> list[int | None]:
    """Return the sizes of the first input that the figures hold for, without its batch."""
    inputs = teacher.model.graph.inputs
    shape = list(inputs[0].shape or ()) if inputs else []
    return [size if isinstance(size, int) else None for size in shape[1:]]


def _print(
    path: Path, device: str, teacher: "Teacher", figures: dict[str, Figure], refused: "Sequence[Obstacle]"
) -> None:
    from rich.text import Text

    from n2n_edge.cli.console import Console
    from n2n_edge.graph.shapes import batch_of
    from n2n_edge.runs.readiness import export_note

    console = Console(highlight=False)
    console.print(_layer_table(teacher.layers))
    console.print(_group_table(teacher.groups))
    console.print(_cost_table(path, device, figures, batch_of(teacher.model)))
    removable = sum(layer.removable for layer in teacher.layers)
    shrinkable = sum(group.shrinkable for group in teacher.groups)
    console.print(
        f"{removable} of {len(teacher.layers)} layers can be removed, {shrinkable} of {len(teacher.groups)} channel "
        f"groups can shrink: together they hold {teacher.touchable.params_share:.1%} of the params and "
        f"{teacher.touchable.macs_share:.1%} of the MACs of all layers"
    )
    if any(item.code == "free_size" for item in refused):
        sizes = "x".join(str(size) for size in _input_sizes(teacher))
        console.print(f"the input's size is free: all figures are for {sizes}", soft_wrap=True)
    if export_note(teacher):
        console.print(Text(export_note(teacher), style="yellow"), soft_wrap=True)
    for item in refused:
        console.print(Text(f"compress would refuse it ({item.code}): {item.text}", style="yellow"), soft_wrap=True)


def _layer_table(layers: "Sequence[Layer]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title="layers", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("op", no_wrap=True)
    table.add_column("width", no_wrap=True)
    for name in ("params", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("removable", overflow="fold", ratio=1)
    for layer in layers:
        table.add_row(
            Text(layer.name),
            _op(layer),
            f"{layer.in_channels}->{layer.out_channels}",
            _short(layer.params),
            _short(layer.macs),
            _yes_or(layer.reason),
        )
    return table


def _group_table(groups: "Sequence[ChannelGroup]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title="channel groups", title_justify="left")
    table.add_column("group", no_wrap=True)
    table.add_column("width", justify="right", no_wrap=True)
    table.add_column("layers", overflow="fold", ratio=2)
    table.add_column("shrinkable", overflow="fold", ratio=1)
    for group in groups:
        table.add_row(group.name, str(group.width), Text(_names(group.layers)), _yes_or(group.reason))
    return table


def _cost_table(path: Path, device: str, figures: dict[str, Figure], batch: int = 1) -> "Table":
    from rich.table import Table

    latency = figures["latency_ms"]
    bounded = latency.low is not None and latency.high is not None
    interval = f" ({latency.low:.3g} to {latency.high:.3g})" if bounded else ""
    table = Table(title=f"costs of {path.name}, batch {batch}", title_justify="left")
    table.add_column("cost", no_wrap=True)
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("source", overflow="fold")
    table.add_row("size MB", f"{figures['size_mb'].value:.3f}", "computed")
    table.add_row("params", f"{figures['params'].value:,.0f}", "computed")
    table.add_row("MACs", f"{figures['macs'].value:,.0f}", "computed")
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
