"""A bench as one HTML file that needs nothing but itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from n2n_edge.metrics.costs import COSTS
from n2n_edge.metrics.formats import PROVENANCE_WORDS
from n2n_edge.report.bench_charts import bench_charts, comparisons_of, named_models
from n2n_edge.report.bench_document import BenchJson
from n2n_edge.report.bench_words import comparison_words
from n2n_edge.report.comparison import Cell, cell_of, figure_of
from n2n_edge.report.html import facts_of
from n2n_edge.report.page import page_environment

__all__ = ["render_bench_html"]

_FIGURES = {
    "p50_ms": "Median",
    "p90_ms": "p90",
    "p99_ms": "p99",
    "min_ms": "Fastest",
    "max_ms": "Slowest",
    "mad_ms": "Median absolute deviation",
    "cv": "Standard deviation over mean",
    "first_run_ms": "First run",
    "session_ms": "Creating the session",
    "engine_ms": "Building the engine",
    "energy_mj": "Energy per run",
    **{name: COSTS[name].label for name in ("size_mb", "params", "macs")},
    "integer_macs": "MACs in int8",
}
_MEMORY = {
    "memory_bound_mb": (
        COSTS["memory_bound_mb"].label,
        "weights and the largest live set of activations; budgets are held against it",
    ),
    "arena_mb": ("Arena", "what the runtime's allocator held"),
    "arena_in_use_mb": ("Arena in use", "the most of it that was in use"),
    "rss_growth_mb": ("RSS growth", "peak resident memory over that of a worker without a model"),
}
_PARTS_SHOWN, _NAMES_SHOWN = 25, 3


@dataclass(frozen=True)
class _Figures:
    """A row of a table: a figure of every model, None where one lacks it."""

    name: str
    note: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class _Part:
    """A kind of operator or a layer: how many kernels it takes, and how much of the time."""

    name: str
    kernels: int
    share: float
    latency_ms: float


@dataclass(frozen=True)
class _PerOp:
    """Where the time of one model goes."""

    model: str
    words: str
    kinds: tuple[_Part, ...]
    layers: tuple[_Part, ...]


def render_bench_html(document: BenchJson) -> str:
    """Return the report as text."""
    named = named_models(document)
    models = [model for model in named if "p50_ms" in model]
    first = named[0]["name"] if named else ""
    figures = [_figures(name, label, "", models) for name, label in _FIGURES.items()]
    memory = [_figures(name, label, note, models) for name, (label, note) in _MEMORY.items()]
    return (
        page_environment()
        .get_template("bench.html.j2")
        .render(
            document=document,
            title=_title([model["name"] for model in named]),
            names=[model["name"] for model in models],
            runs=[_run_facts(model) for model in models],
            figures=[row for row in figures if any(row.cells)],
            memory=[row for row in memory if any(row.cells)],
            throughput=_throughput(models),
            predicted=_predicted(models),
            comparisons=[comparison_words(name, first, found) for name, found in comparisons_of(document)],
            charts=bench_charts(document),
            per_op=[_per_op(model) for model in models if "per_op" in model],
            failures=[(model["name"], model["error"]) for model in named if "error" in model],
            warnings=[f"{model['name']}: {text}" for model in models for text in model["warnings"]],
            provenances=_provenances(models),
            place={"name": document["target"]["name"], **_limit(document["target"])},
            environment=facts_of(document["environment"]),
            state=facts_of({name: value for name, value in document["state"].items() if value != []}),
        )
    )


def _title(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMES_SHOWN else f"{names[0]} and {len(names) - 1} other models"


def _figures(name: str, label: str, note: str, models: list[dict[str, Any]]) -> _Figures:
    cells = tuple(cell_of(figure_of(model[name])) if name in model else None for model in models)
    return _Figures(label, note, cells)


def _throughput(models: list[dict[str, Any]]) -> list[_Figures]:
    if not any("throughput" in model for model in models):
        return []
    streams = next(model["throughput"]["streams"] for model in models if "throughput" in model)
    rows = {"inferences_per_second": "Inferences a second", "p50_ms": "Median meanwhile", "p99_ms": "p99 meanwhile"}
    return [
        _Figures(
            label,
            f"{streams} streams at once",
            tuple(cell_of(figure_of(model["throughput"][name])) if "throughput" in model else None for model in models),
        )
        for name, label in rows.items()
    ]


def _predicted(models: list[dict[str, Any]]) -> list[_Figures]:
    devices = dict.fromkeys(name for model in models for name in model.get("predicted_latency_ms", {}))
    return [
        _Figures(
            f"Latency on {device}",
            "predicted, not measured",
            tuple(
                cell_of(figure_of(model["predicted_latency_ms"][device]))
                if device in model.get("predicted_latency_ms", {})
                else None
                for model in models
            ),
        )
        for device in devices
    ]


def _run_facts(model: Mapping[str, Any]) -> dict[str, str]:
    return {
        "file": str(model["path"]),
        "sha256": str(model["sha256"]),
        "runtime": str(model["runtime"]),
        "providers": ", ".join(name.removesuffix("ExecutionProvider") for name in model["providers"]),
        "threads, batch": f"{model['threads']}, {model['batch']}",
        "runs": f"{model['n']:,}" + ("" if model["converged"] else ", not settled when the time was up"),
    }


def _per_op(model: Mapping[str, Any]) -> _PerOp:
    profile = model["per_op"]
    kernels = profile["kernels"]
    return _PerOp(
        model["name"],
        f"Operators take {profile['accounted']:.0%} of a run of {profile['plain_ms']:.3f} ms. Measured by the "
        f"runtime's profiler; what that adds, {profile['overhead_us']:.1f} µs a kernel, is taken off.",
        _parts(kernels, "op_type", "no type"),
        _parts(kernels, "layer", "no layer"),
    )


def _parts(kernels: list[Mapping[str, Any]], by: str, nobody: str) -> tuple[_Part, ...]:
    found: dict[str, _Part] = {}
    for kernel in kernels:
        name = str(kernel[by]) or nobody
        known = found.get(name, _Part(name, 0, 0.0, 0.0))
        found[name] = _Part(
            name, known.kernels + 1, known.share + kernel["share"], known.latency_ms + kernel["latency_ms"]
        )
    parts = sorted(found.values(), key=lambda part: -part.share)
    shown, rest = parts[:_PARTS_SHOWN], parts[_PARTS_SHOWN:]
    if rest:
        counts = (sum(part.kernels for part in rest), sum(part.share for part in rest))
        shown.append(_Part(f"{len(rest)} more", *counts, sum(part.latency_ms for part in rest)))
    return tuple(shown)


def _provenances(models: list[dict[str, Any]]) -> dict[str, str]:
    figures = [value for model in models for value in model.values() if isinstance(value, Mapping)]
    predicted = [figure for model in models for figure in model.get("predicted_latency_ms", {}).values()]
    present = {str(figure["provenance"]) for figure in (*figures, *predicted) if "provenance" in figure}
    return {name: words for name, words in PROVENANCE_WORDS.items() if name in present}


def _limit(target: Mapping[str, Any]) -> dict[str, str]:
    limit = target.get("memory_limit")
    if limit is None:
        return {}
    return {"memory limit": f"{limit['mb']:g} MB, {'enforced' if limit['enforced'] else 'only watched'}"}
