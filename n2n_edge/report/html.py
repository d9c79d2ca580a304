"""A run as one HTML file that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from n2n_edge.metrics.costs import COSTS, cost_named
from n2n_edge.metrics.formats import format_value
from n2n_edge.metrics.scores import metric_label, metric_title
from n2n_edge.metrics.verdict import VerdictJson
from n2n_edge.report.candidates import candidate_charts, describe_candidate, find_winner
from n2n_edge.report.chart import Chart
from n2n_edge.report.comparison import (
    VERDICT_WORDS,
    Cell,
    Row,
    budget_name,
    cell_of,
    chosen_text,
    class_rows,
    comparison_rows,
    device_names,
    device_text,
    figure_of,
    outcome_of,
    provenances_of,
)
from n2n_edge.report.conditions import condition_table
from n2n_edge.report.document import CandidateJson, GroupJson, RunReport
from n2n_edge.report.examples import example_pictures
from n2n_edge.report.front_table import front_table
from n2n_edge.report.known_costs import known_costs
from n2n_edge.report.network import layer_devices, layer_rows, network_charts
from n2n_edge.report.page import page_environment
from n2n_edge.report.precision import precision_charts
from n2n_edge.report.progress import entropy_chart, reward_chart
from n2n_edge.report.quantization import precision_words
from n2n_edge.report.score import metric_of
from n2n_edge.report.training import training_charts
from n2n_edge.writing import write_text

__all__ = ["facts_of", "render_html", "run_charts", "write_html"]


class _BudgetRow(TypedDict):
    name: str
    option: str
    bound: str
    limit: str
    reached: Cell
    met: bool
    verdict: str


class _WidthBar(TypedDict):
    name: str
    layers: str
    before: int
    after: int
    before_share: float
    after_share: float


class _Charts(TypedDict):
    detection: tuple[Chart, ...]
    search: tuple[Chart, ...]
    network: tuple[Chart, ...]
    training: tuple[Chart, ...]


def write_html(document: RunReport, run_rows: Sequence[CandidateJson], path: Path) -> None:
    """Write the report of a run to `path`; `run_rows` are the candidates in the order evaluated.

    The file is self-contained: no fonts, no requests, and everything is there without its script.
    """
    write_text(path, render_html(document, run_rows))


def render_html(document: RunReport, run_rows: Sequence[CandidateJson]) -> str:
    """Return the report as text."""
    charts = _charts(document, run_rows)
    groups = document["architecture"]["groups"]
    layers = document.get("layers", [])
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            document=document,
            device_names=device_names(document),
            device_text=device_text(document),
            chosen=chosen_text(document),
            passed=all(budget["met"] for budget in document["budgets"]),
            budgets=[_budget_row(budget, metric_of(document)) for budget in document["budgets"]],
            comparison=comparison_rows(document),
            classes=class_rows(document),
            headline=_headline(comparison_rows(document), metric_of(document)),
            provenances=provenances_of(document),
            metric=metric_label(metric_of(document)),
            metric_title=metric_title(metric_of(document)),
            interval="low" in document.get("difference", {}),
            detection_charts=charts["detection"],
            example_pictures=example_pictures(document),
            search_charts=charts["search"],
            front=front_table(run_rows, known_costs(document, run_rows), find_winner(document, run_rows)),
            candidate_count=len(run_rows),
            trained_count=sum(row["trained"] for row in run_rows),
            network_charts=charts["network"],
            layers=layer_rows(layers),
            layer_devices=layer_devices(layers),
            precision=precision_words(document),
            training_charts=charts["training"],
            widths=[_width_bar(group, groups) for group in groups if group["before"] != group["after"]],
            unchanged=[group for group in groups if group["before"] == group["after"]],
            conditions=condition_table(document["conditions"]) if "conditions" in document else None,
            data=facts_of(document["data"]),
            environment=facts_of(document["environment"]),
        )
    )


def run_charts(document: RunReport) -> tuple[Chart, ...]:
    """Return every picture of a run's report."""
    charts = _charts(document, document["search"]["candidates"])
    return (*charts["detection"], *charts["search"], *charts["network"], *charts["training"])


def _charts(document: RunReport, rows: Sequence[CandidateJson]) -> _Charts:
    costs, metric = known_costs(document, rows), metric_of(document)
    texts = [describe_candidate(place, costs, rows, metric) for place in range(len(rows))]
    search: tuple[Chart, ...] = ()
    if rows:
        entropy = entropy_chart(rows, texts)
        search = (
            *candidate_charts(document, rows, costs),
            reward_chart(rows, texts),
            *(() if entropy is None else (entropy,)),
        )
    return {
        "detection": precision_charts(document),
        "search": search,
        "network": network_charts(document.get("layers", [])),
        "training": training_charts(document["training"], metric),
    }


def facts_of(mapping: Mapping[str, object]) -> dict[str, str]:
    """Return free-form facts as words; lists are joined, nested facts get lines of their own."""
    facts: dict[str, str] = {}
    for key, value in mapping.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping):
            facts.update({f"{name} {inner}": text for inner, text in facts_of(value).items()})
        elif isinstance(value, Sequence) and not isinstance(value, str):
            facts[name] = ", ".join(str(one) for one in value)
        elif value is not None:
            facts[name] = str(value)
    return facts


def _budget_row(budget: VerdictJson, metric: str) -> _BudgetRow:
    cost = cost_named(budget["cost"])
    names = {"score": metric_title(metric), "drop": f"{metric_title(metric)} below the teacher's"}
    reached = figure_of(budget["reached"])
    return {
        "name": budget_name(budget, names.get(cost) or (COSTS[cost].label if cost in COSTS else cost)),
        "option": budget["option"],
        "bound": _bound(budget, reached.predicted),
        "limit": format_value(budget["limit"], reached.unit),
        "reached": cell_of(reached),
        "met": budget["met"],
        "verdict": VERDICT_WORDS[outcome_of(budget)],
    }


def _bound(budget: VerdictJson, predicted: bool) -> str:
    cost = cost_named(budget["cost"])
    if cost in COSTS and COSTS[cost].direction == "min":
        return "at least"
    return "upper bound at most" if predicted and not budget.get("accept_expected", False) else "at most"


def _headline(rows: Sequence[Row], metric: str) -> list[tuple[str, str, bool]]:
    """Pick the figures that open the report: what was lost, and what was gained; predictions are marked."""
    wanted = (metric, "params", "size_mb", "latency_ms")
    return [
        (row.name, row.change, bool(row.student and row.student.predicted))
        for row in rows
        if row.change and row.key in wanted
    ]


def _width_bar(group: GroupJson, groups: Sequence[GroupJson]) -> _WidthBar:
    widest = max(one["before"] for one in groups)
    return {
        "name": group["name"],
        "layers": ", ".join(group["layers"]),
        "before": group["before"],
        "after": group["after"],
        "before_share": round(100 * group["before"] / widest, 2),
        "after_share": round(100 * group["after"] / widest, 2),
    }
