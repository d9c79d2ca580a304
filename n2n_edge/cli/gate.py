"""`n2n-edge gate`: exit 1 when a model breaks a budget or costs more than a baseline."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.cli.completion import device_names

if TYPE_CHECKING:
    from n2n_edge.gate import Budget, Cost, GateJson, Regression, Verdict

__all__ = ["gate"]

DEFAULT_REGRESSION = "5%"


def gate(
    model: Annotated[Path, typer.Argument(help="ONNX model to judge.", show_default=False)],
    max_mb: Annotated[float | None, typer.Option(help="Largest file size in MB (10^6 bytes).")] = None,
    max_params: Annotated[float | None, typer.Option(help="Largest number of parameters.")] = None,
    max_macs: Annotated[float | None, typer.Option(help="Most multiply-accumulates per inference.")] = None,
    max_memory_mb: Annotated[float | None, typer.Option(help="Largest memory bound in MB.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Longest latency in ms; needs --device.")] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device for the latency: measured if it is this host (cpu), predicted otherwise.",
            autocompletion=device_names,
        ),
    ] = None,
    accept_expected: Annotated[
        bool,
        typer.Option(
            "--accept-expected",
            help="Hold a predicted latency's expected value against the limit, not its upper bound.",
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="Threads for the latency; the device's default if left out.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="ONNX model that the static costs are compared with.")] = None,
    max_regression: Annotated[
        str | None, typer.Option(help=f"Growth over the baseline that is allowed, default {DEFAULT_REGRESSION}.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Fail (exit 1) when a model breaks a budget, or costs more than a baseline model by too much.

    Size, params, MACs and the memory bound follow from the file; nothing is run for them.

    Examples:

    - `n2n-edge gate student.onnx --max-mb 0.6 --max-memory-mb 4`
    - `n2n-edge gate student.onnx --device raspberry-pi-4 --max-latency-ms 20`
    - `n2n-edge gate student.onnx --baseline main.onnx --max-regression 5%`
    """
    from n2n_edge.errors import InputError
    from n2n_edge.gate import gate_document

    budgets = _budgets(
        {
            "size_mb": max_mb,
            "params": max_params,
            "macs": max_macs,
            "memory_bound_mb": max_memory_mb,
            "latency_ms": max_latency_ms,
        }
    )
    if not budgets and baseline is None:
        raise InputError("gate: nothing to judge by; give a budget such as --max-mb 0.5, or --baseline MODEL")
    if max_latency_ms is not None and device is None:
        raise InputError(f"--max-latency-ms {max_latency_ms:g}: on which device? give --device, cpu for this host")
    if max_regression is not None and baseline is None:
        raise InputError(f"--max-regression {max_regression}: growth over what? give --baseline MODEL")
    verdicts, regressions, warnings = _judge(
        model, budgets, device, threads, baseline, max_regression or DEFAULT_REGRESSION, accept_expected
    )
    document = gate_document(str(model), verdicts, regressions)
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        _print(document, verdicts, regressions)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not document["passed"]:
        raise typer.Exit(1)


def _budgets(limits: "dict[Cost, float | None]") -> "tuple[Budget, ...]":
    from n2n_edge.gate import Budget

    return tuple(Budget(cost, limit) for cost, limit in limits.items() if limit is not None)


def _judge(
    model: Path,
    budgets: "tuple[Budget, ...]",
    device: str | None,
    threads: int | None,
    baseline: Path | None,
    max_regression: str,
    accept_expected: bool,
) -> "tuple[tuple[Verdict, ...], tuple[Regression, ...], tuple[str, ...]]":
    from n2n_edge.devices import load_profile
    from n2n_edge.gate import compare, file_figures, judge, latency_figure, parse_percent

    allowed = parse_percent(max_regression, "--max-regression")
    profile = load_profile(device) if device is not None else None
    figures = file_figures(model)
    regressions = compare(figures, file_figures(baseline), allowed) if baseline is not None else ()
    warnings: tuple[str, ...] = ()
    if profile is not None and any(budget.cost == "latency_ms" for budget in budgets):
        figures["latency_ms"], warnings = latency_figure(model, profile, threads)
    return judge(figures, budgets, accept_expected=accept_expected), regressions, warnings


def _print(document: "GateJson", verdicts: "tuple[Verdict, ...]", regressions: "tuple[Regression, ...]") -> None:
    from rich.console import Console

    from n2n_edge.gate import verdict_table

    console = Console(soft_wrap=False)
    console.print(verdict_table(verdicts, regressions))
    failed = sum(not verdict.met for verdict in verdicts) + sum(not one.met for one in regressions)
    total = len(verdicts) + len(regressions)
    console.print(
        f"[green]pass[/]: all {total} met" if document["passed"] else f"[bold red]FAIL[/]: {failed} of {total} missed",
        highlight=False,
    )
