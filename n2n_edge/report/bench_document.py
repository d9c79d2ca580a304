"""JSON document of `n2n-edge bench` (`docs/schemas/bench.json`)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from n2n_edge.errors import N2NError
from n2n_edge.graph.costs import Costs
from n2n_edge.graph.model_file import model_files
from n2n_edge.latency.file_figures import static_figures
from n2n_edge.measure.bench import Throughput
from n2n_edge.measure.comparison import Comparison
from n2n_edge.measure.measurement import alone_in_failing
from n2n_edge.measure.per_op import OpProfile
from n2n_edge.measure.suite import Entry, Suite, names_of_runs
from n2n_edge.measure.target import Target
from n2n_edge.metrics.figures import MB, SCHEMA_VERSION, Figure, FigureJson
from n2n_edge.metrics.notices import codes_of, texts_of
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.report.histogram import histogram_of

__all__ = ["BenchJson", "Benched", "bench_document", "file_sha256", "names_of_rows", "timed_figures"]

BINS = 24
"""Bars of a histogram in the document."""

TIMES = ("p90_ms", "p99_ms", "min_ms", "max_ms", "mad_ms")


class BenchJson(TypedDict):
    """The document: the target's fingerprint and state, and a row per model."""

    schema_version: int
    kind: str
    target: dict[str, Any]
    environment: dict[str, Any]
    state: dict[str, object]
    models: list[dict[str, Any]]
    noise_floor: dict[str, Any] | None


@dataclass(frozen=True)
class Benched:
    """The entry of one model under one runtime, with what follows from the graph and what is predicted.

    A prediction is for a board that isn't the target; `told_for` says with which threads, precision and runtime.

    `name` tells it from the other models; see `names_of`.
    """

    name: str
    entry: Entry
    costs: Costs | None
    device: str | None
    predicted: Figure | None
    told_for: str = ""


def bench_document(suite: Suite, rows: Sequence[Benched], target: Target) -> BenchJson:
    """Return the document of a bench."""
    limit = target.limit
    place: dict[str, Any] = {"name": target.name, "provenance": target.provenance}
    if limit is not None:
        place["memory_limit"] = {"mb": limit.limit_bytes / MB, "enforced": limit.enforced}
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "bench",
        "target": place,
        "environment": dict(target.describe()),
        "state": suite.state.to_json(),
        "models": [_row(row) for row in rows],
        "noise_floor": _comparison(suite.noise_floor) if isinstance(suite.noise_floor, Comparison) else None,
    }


def timed_figures(row: Benched) -> dict[str, Figure]:
    """Return every figure of the target and of the graph; predictions are kept apart."""
    measured = row.entry.measurement
    assert measured is not None
    where, n = measured.provenance, measured.n
    figures = {"p50_ms": measured.latency()}
    figures |= {name: Figure(getattr(measured.quantiles, name), "ms", where, n=n) for name in TIMES}
    figures["cv"] = Figure(measured.quantiles.cv, "fraction", where, n=n)
    for name in ("first_run_ms", "session_ms", "engine_ms"):
        value = getattr(measured, name)
        if value is not None:
            figures[name] = Figure(value, "ms", where, n=1)
    if row.costs is not None:
        figures |= static_figures(replace(row.costs, size_bytes=measured.file_size_bytes))
    else:
        figures["size_mb"] = Figure(measured.file_size_bytes / MB, "MB", "computed")
    for name, held in (
        ("arena_mb", measured.arena_bytes),
        ("arena_in_use_mb", measured.arena_in_use_bytes),
        ("rss_growth_mb", measured.rss_growth_bytes),
    ):
        if held is not None:
            figures[name] = Figure(held / MB, "MB", where)
    if measured.energy is not None:
        figures["energy_mj"] = Figure(measured.energy.millijoules, "mJ", where, n=n)
    return figures


def names_of_rows(document: BenchJson) -> tuple[str, ...]:
    """Return a name for each model of a document, as `names_of_runs` has them."""
    runs = [(Path(row["path"]), str(row.get("runtime") or ONNXRUNTIME).split()[0]) for row in document["models"]]
    return names_of_runs(runs)


def file_sha256(path: Path) -> str:
    """Return the checksum of a model, external data included, by which a later document knows it again."""
    digest = hashlib.sha256()
    for part in model_files(path):
        digest.update(part.read_bytes())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    """Return the checksum of a model; '' where the file is gone, or can't be read, by the time it has been timed."""
    try:
        with alone_in_failing(str(path)):
            return file_sha256(path)
    except N2NError:
        return ""


def _row(row: Benched) -> dict[str, Any]:
    entry = row.entry
    if entry.error is not None:
        failed = {"path": str(entry.path), "error": " ".join(entry.error.on_command_line().split())}
        return failed if entry.runtime == ONNXRUNTIME else {**failed, "runtime": entry.runtime}
    measured = entry.measurement
    assert measured is not None
    document: dict[str, Any] = {
        "path": str(entry.path),
        "sha256": _sha256(entry.path),
        "target": measured.target,
        "runtime": measured.runtime,
        "providers": list(measured.providers),
        "threads": measured.threads,
        "batch": measured.batch,
        "n": measured.n,
        "converged": measured.converged,
        "warnings": list(texts_of(measured.warnings)),
        "warning_codes": list(codes_of(measured.warnings)),
    }
    if entry.parity is not None:
        document["parity"] = entry.parity.to_json()
    document |= {name: figure.to_json() for name, figure in timed_figures(row).items()}
    spread = histogram_of(measured.samples_ms, BINS)
    document["histogram"] = {
        "low_ms": spread.low_ms,
        "bin_ms": spread.bin_ms,
        "counts": list(spread.counts),
        "beyond": spread.beyond,
    }
    if entry.comparison is not None:
        document["against_first"] = _comparison(entry.comparison)
    if entry.throughput is not None:
        document["throughput"] = _throughput(entry.throughput, measured.provenance)
    if entry.profile is not None:
        document["per_op"] = _profile(entry.profile)
    if row.device is not None and row.predicted is not None:
        document["predicted_latency_ms"] = {row.device: row.predicted.to_json()}
    return document


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "ratio": {"value": found.ratio, "unit": "ratio", "low": found.low, "high": min(found.high, 1e9)},
        "level": found.level,
        "rounds": found.rounds,
        "threshold": found.threshold,
        "verdict": found.verdict,
    }


def _throughput(found: Throughput, provenance: Any) -> dict[str, Any]:
    figure = Figure(found.per_second, "1/s", provenance, low=found.low, high=found.high, n=found.n)
    latency: dict[str, FigureJson] = {
        name: Figure(getattr(found, name), "ms", provenance, n=found.n).to_json() for name in ("p50_ms", "p99_ms")
    }
    return {"streams": found.streams, "threads": found.threads, "inferences_per_second": figure.to_json(), **latency}


def _profile(profile: OpProfile) -> dict[str, Any]:
    kernels: list[Mapping[str, object]] = [
        {
            "name": kernel.name,
            "op_type": kernel.op_type,
            "provider": kernel.provider,
            "layer": kernel.layer,
            "latency_ms": kernel.latency_ms,
            "share": kernel.share,
        }
        for kernel in profile.kernels
    ]
    return {
        "run_ms": profile.run_ms,
        "plain_ms": profile.plain_ms,
        "overhead_us": profile.overhead_us,
        "accounted": profile.accounted,
        "kernels": kernels,
    }
