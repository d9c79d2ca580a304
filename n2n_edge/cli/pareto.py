"""`n2n-edge pareto`: the candidates of a run that no other one beats, and any of them shipped."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.outcome import conclude, conclude_several
from n2n_edge.cli.output import print_json
from n2n_edge.cli.stopping import resumable
from n2n_edge.errors import InputError, N2NError
from n2n_edge.metrics.scores import metric_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from n2n_edge.runs.front import Axis, RunTrial, RunTrials

__all__ = ["pareto"]

_SHIP = "Ship a candidate"


def pareto(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.", show_default=False)],
    cost: Annotated[
        str | None,
        typer.Option(
            help="Cost to hold against the score: params, size_mb, macs, memory_bound_mb or latency_ms.",
            show_default="the run's objective",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Whose latency, in a run for several devices.",
            show_default="the run's first",
            autocompletion=device_names,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List every trained candidate, not only the front.")] = False,
    ship: Annotated[
        str | None,
        typer.Option(
            help="Train candidate N to the end, without searching again, and ship it; or several, such as 3,5,9, each "
            "by itself.",
            metavar="N[,N...]",
            rich_help_panel=_SHIP,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for it; of several the folder that gets a folder candidate-N for each.",
            show_default="RUN/candidate-N",
            rich_help_panel=_SHIP,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of its distillation.", show_default="the run's", rich_help_panel=_SHIP)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time limit of its distillation.", rich_help_panel=_SHIP)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Of several, candidates that are trained side by side, each on as many threads as the run has; needs "
            "the extra [cluster]. Students stay the same.",
            show_default="1, on a cluster one for each",
            rich_help_panel=_SHIP,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Where they are trained, as for `compress`: auto, ray://host:10001 or local; its nodes need the run, "
            "teacher and data under the same paths.",
            show_default="this process",
            rich_help_panel=_SHIP,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """List the candidates of a run that no other one beats, or ship one that you prefer to the run's own choice.

    Examples:

    - `n2n-edge pareto demo-run`
    - `n2n-edge pareto demo-run --cost latency_ms --device raspberry-pi-4 --all`
    - `n2n-edge pareto demo-run --ship 1`
    - `n2n-edge pareto demo-run --ship 1,3,4 --workers 2`
    """
    on_workers: dict[str, object] = {"--workers": workers, "--cluster": cluster}
    if ship is None:
        _refuse("--ship N", {"--out": out, "--epochs": epochs, "--minutes": minutes, **on_workers})
        _list(run, cost, device, every, as_json)
        return
    _refuse("the list, not to --ship", {"--cost": cost, "--device": device, "--all": every or None})
    numbers = _numbers(ship)
    if len(numbers) == 1:
        _refuse("several candidates, such as --ship 3,5", on_workers)
        _ship(run, numbers[0], out, epochs, minutes, as_json)
    else:
        _ship_several(run, numbers, out, epochs, minutes, workers, cluster, as_json)


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise InputError(f"--ship {text}: not a candidate's number; give one such as 3, or several such as 3,5,9")
    return tuple(map(int, parts))


def _refuse(belongs_to: str, options: dict[str, object]) -> None:
    for option, value in options.items():
        if value is not None:
            text = "" if value is True else f" {value}"
            raise InputError(f"{option}{text}: belongs to {belongs_to}; leave it out")


def _ship(run: Path, number: int, out: Path | None, epochs: int | None, minutes: float | None, as_json: bool) -> None:
    from n2n_edge.runs.folder import RunFolder
    from n2n_edge.runs.run import Run, require_training_packages

    require_training_packages()
    folder, settings = RunFolder.existing(run)
    from n2n_edge.cli.live import live_view

    with (
        resumable(lambda: "go on by giving the same command again"),
        live_view(settings, as_json) as view,
    ):
        result = Run(folder, settings).ship(number, out=out, epochs=epochs, minutes=minutes, callbacks=[view])
    conclude(result, as_json)


def _ship_several(
    run: Path,
    numbers: tuple[int, ...],
    out: Path | None,
    epochs: int | None,
    minutes: float | None,
    workers: int | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    from n2n_edge.cli.live import live_view
    from n2n_edge.runs.folder import RunFolder
    from n2n_edge.runs.run import Run, require_training_packages
    from n2n_edge.runs.shipping_several import NotShippedError

    require_training_packages()
    folder, settings = RunFolder.existing(run)
    errors: dict[int, N2NError] = {}
    with (
        resumable(lambda: "go on by giving the same command again"),
        live_view(settings, as_json) as view,
    ):
        try:
            runs = Run(folder, settings).ship(
                numbers, out=out, epochs=epochs, minutes=minutes, workers=workers, cluster=cluster, callbacks=[view]
            )
            shipped = dict(zip(numbers, runs, strict=True))
        except NotShippedError as error:
            errors, shipped = error.errors, error.shipped
    conclude_several(run, numbers, shipped, errors, as_json)


def _list(run: Path, cost: str | None, device: str | None, every: bool, as_json: bool) -> None:
    from n2n_edge.runs.front import read_trials

    found = read_trials(run)
    axis = found.axis(cost, device)
    if as_json:
        print_json(found.to_json(axis))
    else:
        _print(found, axis, every)


def _print(found: "RunTrials", axis: "Axis", every: bool) -> None:
    from rich.text import Text

    from n2n_edge.cli.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    front = found.front(axis)
    against = axis.cost if axis.device is None else f"latency on {axis.device}"
    console.print(
        Text(
            f"{found.run}: {len(found.trials)} candidates, {len(found.trained)} of them trained; "
            f"{len(front)} on the front of {metric_label(found.metric)} against {against}"
        ),
        soft_wrap=True,
    )
    if not front:
        console.print("no candidate met the budgets, so none was trained")
        return
    shown = found.trained if every else _with_shipped(found, front, axis)
    console.print(_table(found, shown, front))
    for note in _notes(found, shown, front):
        console.print(Text(note), soft_wrap=True)
    if len(found.trained) > len(shown):
        others = len(found.trained) - len(shown)
        console.print(f"--all lists {others} more trained candidate{'s' if others > 1 else ''}")
    console.print(Text(f"ship one with: n2n-edge pareto {shlex.quote(str(found.run))} --ship N"), soft_wrap=True)


def _with_shipped(found: "RunTrials", front: "Sequence[RunTrial]", axis: "Axis") -> "Sequence[RunTrial]":
    """Return the front and what has been shipped, from the cheapest to the dearest."""
    wanted = [each for each in found.trained if each in front or each.shipped is not None]
    costs = {each.number: each.on(axis) for each in wanted}
    return sorted(wanted, key=lambda each: math.inf if (cost := costs[each.number]) is None else cost.value)


def _table(found: "RunTrials", shown: "Sequence[RunTrial]", front: "Sequence[RunTrial]") -> "Table":
    """Return a table of candidates; where some are not on the front, it says which are."""
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.metrics.formats import format_value

    timed = [profile.name for profile in found.devices if any(profile.name in each.latencies for each in shown)]
    mixed = len(shown) > len(front)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "candidate",
        "stage",
        metric_label(found.metric),
        "params",
        "MACs",
        "file",
        "memory",
        *(f"{one}, ms" for one in timed),
    ):
        table.add_column(name, justify="right")
    table.add_column("budgets")
    if mixed:
        table.add_column("front")
    table.add_column("shipped")
    for each in shown:
        assert each.metric is not None
        table.add_row(
            str(each.number),
            str(each.stage),
            format_value(each.metric.value, each.metric.unit),
            *(
                format_value(each.costs[cost].value, each.costs[cost].unit).removesuffix(suffix)
                for cost, suffix in (("params", " params"), ("macs", " MACs"), ("size_mb", ""), ("memory_bound_mb", ""))
            ),
            *(_latency(each, name) for name in timed),
            "met" if each.meets_budgets else "missed",
            *(["yes" if each in front else "no"] if mixed else []),
            Text("" if each.shipped is None else str(each.shipped.relative_to(found.run))),
        )
    return table


def _latency(candidate: "RunTrial", device: str) -> str:
    from n2n_edge.metrics.formats import format_interval, format_value

    figure = candidate.latencies.get(device)
    if figure is None:
        return ""
    if figure.low is None or figure.high is None:
        return format_value(figure.value, "")
    return f"{format_value(figure.value, '')} ({format_interval(figure.low, figure.high, '')})"


def _notes(found: "RunTrials", shown: "Sequence[RunTrial]", front: "Sequence[RunTrial]") -> list[str]:
    """Return what has to be known to read the table: where its figures come from."""
    from n2n_edge.metrics.formats import format_provenance

    notes = [
        f"{metric_label(found.metric)}: on validation images after a short distillation; what ships is trained to the "
        "end and judged on test images"
    ]
    if any(each.shipped == found.run / "student.onnx" and each not in front for each in shown):
        notes.append("the run chose its own student among the best after longer distillations, not by these figures")
    for profile in found.devices:
        known = [each.latencies[profile.name] for each in shown if profile.name in each.latencies]
        if known:
            interval = "; nine times out of ten within the interval" if known[0].predicted else ""
            notes.append(f"latency on {profile.name}: {format_provenance(known[0].provenance)}{interval}")
    if found.budgets:
        limits = ", ".join(f"{budget.option} {budget.limit:.10g}" for budget in found.budgets)
        notes.append(f"budgets: {limits}")
    return notes
