"""`n2n-edge bench`: time ONNX models on this machine, and predict them for a board."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.errors import InputError, N2NError
from n2n_edge.figures import MB, SCHEMA_VERSION, Figure

if TYPE_CHECKING:
    from n2n_edge.devices import Profile
    from n2n_edge.graph import Costs
    from n2n_edge.measure import Measurement

__all__ = ["bench"]

MODELS_A_TABLE = 2


@dataclass(frozen=True)
class _Row:
    """One model: timed on this machine (`measured`), and `predicted` for the named device where that is another one."""

    path: Path
    measured: "Measurement"
    costs: "Costs"
    device: str | None
    predicted: Figure | None


def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX files to time.", show_default=False)],
    device: Annotated[str, typer.Option(help="Profile name or .toml file; a board is predicted, not timed.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Intra-op threads [default: the usable cores].")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Size of a free batch axis.")] = 1,
    providers: Annotated[str | None, typer.Option(help="Execution providers in order, with commas between.")] = None,
    min_time: Annotated[float, typer.Option(min=0, help="Seconds to run each model at least.")] = 1.0,
    max_time: Annotated[float, typer.Option(help="Seconds after which a model that hasn't settled is stopped.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Time ONNX models on this machine, each in a process of its own; with --device, predict that board as well."""
    from n2n_edge.devices import load_profile
    from n2n_edge.measure import environment

    profile = load_profile(device)
    wanted = [name.strip() for name in providers.split(",") if name.strip()] if providers else None
    rows: list[_Row] = []
    failures: list[tuple[Path, N2NError]] = []
    for path in models:
        try:
            rows.append(_row(path, profile, threads, batch, wanted, (min(min_time, max_time), max_time)))
        except N2NError as error:
            if len(models) == 1:
                raise
            failures.append((path, error))
            print(f"n2n-edge: {' '.join(str(error).split())}", file=sys.stderr)
    if as_json:
        documents = [_row_json(row) for row in rows]
        documents += [{"path": str(path), "error": " ".join(str(error).split())} for path, error in failures]
        print(
            json.dumps({"schema_version": SCHEMA_VERSION, "environment": environment(), "models": documents}, indent=2)
        )
    elif rows:
        _print_tables(rows)
    if failures:
        raise typer.Exit(max(error.exit_code for _, error in failures))


def _row(
    path: Path,
    profile: "Profile",
    threads: int | None,
    batch: int,
    providers: list[str] | None,
    time_s: tuple[float, float],
) -> _Row:
    from n2n_edge.devices import predict_latency
    from n2n_edge.graph import costs, load_model
    from n2n_edge.measure import bench as measure

    if not time_s[1] > 0:
        raise InputError(f"--max-time {time_s[1]:g}: must be more than 0 seconds")
    model = load_model(path)
    predicted = None if profile.is_host else predict_latency(model, profile, threads)
    if profile.is_host:
        threads = threads or profile.default_threads
        providers = providers or list(profile.providers)
    measured = measure(
        path, threads=threads, batch=batch, providers=providers, min_time_s=time_s[0], max_time_s=time_s[1]
    )
    return _Row(path, measured, costs(model), None if profile.is_host else profile.name, predicted)


def _figures(row: _Row) -> dict[str, Figure]:
    """Return every figure of this machine and of the graph; predictions are kept apart."""
    from n2n_edge.gate import static_figures

    timed = row.measured
    figures = {"p50_ms": timed.latency()}
    for name in ("p90_ms", "p99_ms", "min_ms", "max_ms"):
        figures[name] = Figure(getattr(timed, name), "ms", timed.provenance, n=timed.n)
    for name in ("first_run_ms", "session_ms"):
        figures[name] = Figure(getattr(timed, name), "ms", timed.provenance, n=1)
    figures |= static_figures(replace(row.costs, size_bytes=timed.file_size_bytes))
    if timed.rss_growth_bytes is not None:
        figures["rss_growth_mb"] = Figure(timed.rss_growth_bytes / MB, "MB", timed.provenance)
    return figures


def _row_json(row: _Row) -> dict[str, object]:
    timed = row.measured
    document: dict[str, object] = {
        "path": str(row.path),
        "target": "host",
        "runtime": timed.runtime,
        "providers": list(timed.providers),
        "threads": timed.threads,
        "batch": timed.batch,
        "n": timed.n,
        "converged": timed.converged,
        "warnings": list(timed.warnings),
    }
    document |= {name: figure.to_json() for name, figure in _figures(row).items()}
    if row.device is not None and row.predicted is not None:
        document["predicted_latency_ms"] = {row.device: row.predicted.to_json()}
    return document


def _print_tables(rows: list[_Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for first in range(0, len(rows), MODELS_A_TABLE):
        part = rows[first : first + MODELS_A_TABLE]
        table = Table(title="measured on this host", title_justify="left")
        table.add_column("")
        for row in part:
            table.add_column(row.path.name, justify="right", overflow="fold")
        cells = [_cells(row) for row in part]
        for label in cells[0]:
            table.add_row(label, *(cell[label] for cell in cells))
        console.print(table)
        for row in part:
            for warning in row.measured.warnings:
                console.print(f"{row.path.name}: warning: {warning}", soft_wrap=True, markup=False)
    if rows[0].device is not None:
        table = Table("model", "device", "latency ms (interval)", "provenance", title="predicted, not measured")
        for row in rows:
            if row.predicted is not None:
                figure = row.predicted
                interval = f"{figure.value:.3g} ({figure.low:.3g} to {figure.high:.3g})"
                table.add_row(row.path.name, row.device, interval, figure.provenance)
        console.print(table)


def _cells(row: _Row) -> dict[str, str]:
    timed = row.measured
    growth = "unknown" if timed.rss_growth_bytes is None else f"{timed.rss_growth_bytes / MB:.1f}"
    return {
        "p50 ms (95% interval)": f"{timed.p50_ms:.3f} ({timed.p50_low_ms:.3f} to {timed.p50_high_ms:.3f})",
        "p90 ms": f"{timed.p90_ms:.3f}",
        "p99 ms": f"{timed.p99_ms:.3f}",
        "min ms": f"{timed.min_ms:.3f}",
        "runs": str(timed.n),
        "first run ms": f"{timed.first_run_ms:.3f}",
        "runtime": timed.runtime,
        "providers": ", ".join(name.removesuffix("ExecutionProvider") for name in timed.providers),
        "threads, batch": f"{timed.threads}, {timed.batch}",
        "size MB": f"{timed.file_size_bytes / MB:.3f}",
        "params": f"{row.costs.params:,}",
        "MACs (batch 1)": f"{row.costs.macs:,}",
        "memory bound MB": f"{row.costs.memory_bound_bytes / MB:.3f}",
        "RSS growth MB": growth,
    }
