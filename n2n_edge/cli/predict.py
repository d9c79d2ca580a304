"""`n2n-edge predict`: what a model will cost on a device that isn't at hand, and how sure that is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.output import print_json
from n2n_edge.errors import InputError
from n2n_edge.figures import SCHEMA_VERSION, Figure

if TYPE_CHECKING:
    from n2n_edge.devices import Precision, Prediction, Profile

__all__ = ["predict"]

LAYERS_SHOWN = 12
PRECISIONS = ("fp32", "fp16", "int8")


def predict(
    model: Annotated[Path, typer.Argument(help="ONNX file.", show_default=False)],
    device: Annotated[
        str,
        typer.Option(help="Profile name or .toml file; see `n2n-edge profiles list`.", autocompletion=device_names),
    ],
    threads: Annotated[int | None, typer.Option(help="CPU threads [default: the profile's].")] = None,
    precision: Annotated[str, typer.Option(help="What the model would be run in there: fp32, fp16 or int8.")] = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Predict latency, energy and memory of one inference on a device, with an interval and the evidence for it.

    Examples:

    - `n2n-edge predict student.onnx --device raspberry-pi-4`
    - `n2n-edge predict student.onnx --device jetson-orin-nano --precision fp16 --json`
    """
    from n2n_edge.devices import load_profile
    from n2n_edge.devices import predict as predict_costs
    from n2n_edge.graph import load_model

    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: unknown; give one of {', '.join(PRECISIONS)}")
    profile = load_profile(device)
    found = predict_costs(load_model(model), profile, threads, cast("Precision", precision))
    used = profile.default_threads if threads is None else threads
    if as_json:
        print_json(_document(model, profile, used, precision, found))
    else:
        _print(model, profile, used, precision, found)


def _document(model: Path, profile: "Profile", threads: int, precision: str, found: "Prediction") -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "model": str(model),
        "device": profile.name,
        "threads": threads,
        "precision": precision,
        "latency_ms": found.latency.to_json(),
        **({} if found.energy is None else {"energy_mj": found.energy.to_json()}),
        "memory_mb": {**found.memory.to_json(), "usable_mb": profile.usable_memory_mb, "fits": found.fits},
        "evidence": found.basis.to_json(),
        "layers": [{"name": name or None, "latency_ms": round(ms, 6)} for name, ms in found.by_layer().items()],
        "nodes": [
            {
                "name": node.name,
                "op_type": node.op_type,
                "kernel": node.kernel,
                "layer": node.layer or None,
                "latency_ms": round(node.latency_ms, 6),
            }
            for node in found.nodes
        ],
    }


def _print(model: Path, profile: "Profile", threads: int, precision: str, found: "Prediction") -> None:
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.cli.console import Console
    from n2n_edge.devices import threads_in_words

    console = Console()
    unit = threads_in_words(threads) if profile.compute_unit == "cpu" else "GPU"
    where = f"{model.name} on {profile.name}, {unit}, {precision}"
    table = Table("", "predicted", "nine of ten between", title=Text(where), title_justify="left")
    table.add_row("latency", *_cells(found.latency))
    if found.energy is not None:
        table.add_row("energy", *_cells(found.energy))
    room = "fits" if found.fits else "does not fit"
    table.add_row("memory", f"{found.memory.value:.1f} MB", f"{room} into {profile.usable_memory_mb:.0f} MB")
    console.print(table)
    layers = Table("layer", "ms", "share")
    total = found.latency.value or 1.0
    for name, ms in list(found.by_layer().items())[:LAYERS_SHOWN]:
        layers.add_row(Text(name or "outside the layers"), f"{ms:.3f}", f"{ms / total:.1%}")
    console.print(layers)
    for line in found.basis.words():
        console.print(Text(line), soft_wrap=True)


def _cells(figure: Figure) -> tuple[str, str]:
    assert figure.low is not None
    assert figure.high is not None
    return (
        f"{figure.value:.3g} {figure.unit} ({figure.provenance})",
        f"{figure.low:.3g} and {figure.high:.3g} {figure.unit}",
    )
