"""Teacher and student side by side, figure by figure, with provenance."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import cast

from n2n_edge.metrics.costs import COSTS, OBJECTIVES
from n2n_edge.metrics.figures import Figure, FigureJson, Provenance
from n2n_edge.metrics.formats import PROVENANCE_WORDS, format_interval, format_value
from n2n_edge.metrics.outcome import Outcome
from n2n_edge.metrics.scores import detail_words, metric_title
from n2n_edge.metrics.verdict import VerdictJson
from n2n_edge.report.document import ModelJson, RunReport
from n2n_edge.report.score import difference_words, metric_of

__all__ = [
    "VERDICT_WORDS",
    "Cell",
    "Row",
    "budget_name",
    "cell_of",
    "chosen_text",
    "class_rows",
    "comparison_rows",
    "device_names",
    "device_text",
    "figure_of",
    "outcome_of",
    "provenances_of",
]


@dataclass(frozen=True)
class Cell:
    """A figure in words; `note` holds its interval, count and provenance."""

    value: str
    note: str
    predicted: bool


@dataclass(frozen=True)
class Row:
    """One figure of both models; `change` says what became of it, empty where a model lacks the figure.

    `key` is the cost or metric that `name` shows.
    """

    key: str
    name: str
    teacher: Cell | None
    student: Cell | None
    change: str


def figure_of(document: FigureJson) -> Figure:
    """Return the figure that a JSON document holds; raises ValueError for a provenance that doesn't exist."""
    provenance = str(document["provenance"])
    if provenance not in PROVENANCE_WORDS:
        raise ValueError(f"{provenance!r} is not a provenance; known are {', '.join(PROVENANCE_WORDS)}")
    bounds = {name: float(document[name]) for name in ("low", "high") if name in document}
    return Figure(
        float(document["value"]),
        str(document["unit"]),
        cast(Provenance, provenance),
        low=bounds.get("low"),
        high=bounds.get("high"),
        n=int(document["n"]) if "n" in document else None,
        runtime=str(document["runtime"]) if "runtime" in document else None,
    )


def cell_of(figure: Figure) -> Cell:
    """Return the figure in words: value, and a note such as ``1.4 to 2.5 ms, analytic``."""
    parts = []
    if figure.low is not None and figure.high is not None:
        parts.append(format_interval(figure.low, figure.high, figure.unit))
    if figure.n is not None:
        parts.append(f"n = {figure.n:,}")
    parts.append(figure.provenance)
    if figure.runtime is not None:
        parts.append(f"under {figure.runtime}")
    return Cell(_bare(figure.value, figure.unit), ", ".join(parts), figure.predicted)


def device_names(document: RunReport) -> str:
    """Return the names of the run's devices: ``raspberry-pi-4``, ``raspberry-pi-4 and jetson-orin-nano``."""
    names = [device["name"] for device in document.get("devices", [document["device"]])]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def device_text(document: RunReport) -> str:
    """Return what the run's devices are, and what runs the student there."""
    return "; ".join(
        device["description"] + (f", under {device['runtime']}" if "runtime" in device else "")
        for device in document.get("devices", [document["device"]])
    )


def budget_name(budget: VerdictJson, name: str) -> str:
    """Return a budget's `name` with the device on which it was held, where there is one."""
    return f"{name}, {budget['device']}" if "device" in budget else name


def chosen_text(document: RunReport) -> str:
    """Return in words that the student is a candidate that a person chose; '' for a run's own winner."""
    if "chosen" not in document:
        return ""
    chosen = document["chosen"]
    return f"Candidate {chosen['candidate']} of the run in {chosen['run']}, chosen by hand and trained to the end."


def comparison_rows(document: RunReport) -> tuple[Row, ...]:
    """Return the rows of the table: the score and its details, params, size, MACs, memory bound, latency per device."""
    metric = metric_of(document)
    teacher, student = (_figures(document[role], metric) for role in ("teacher", "student"))
    named = [row for row in dict.fromkeys([*teacher, *student]) if ":" not in row[0]]
    rows = (_row(*row, teacher.get(row), student.get(row)) for row in named)
    difference = difference_words(document).replace("-", "−")
    return tuple(replace(row, change=difference) if difference and row.key == metric else row for row in rows)


def class_rows(document: RunReport) -> tuple[Row, ...]:
    """Return the figures of single classes, which the student does worst by first."""
    metric = metric_of(document)
    teacher, student = (_figures(document[role], metric) for role in ("teacher", "student"))
    rows = [row for row in teacher if ":" in row[0] and row in student]
    rows.sort(key=lambda row: student[row].value - teacher[row].value)
    return tuple(_row(*row, teacher[row], student[row]) for row in rows)


VERDICT_WORDS: Mapping[Outcome, str] = MappingProxyType(
    {"pass": "met", "fail": "missed", "inconclusive": "inconclusive"}
)
"""How a budget's outcome is called on pages."""


def outcome_of(budget: VerdictJson) -> Outcome:
    """Return the outcome of a budget; older reports hold only whether it is met."""
    return budget.get("outcome", "pass" if budget["met"] else "fail")


def provenances_of(document: RunReport) -> dict[Provenance, str]:
    """Return the provenances that occur in the comparison with their meaning."""
    figures = [
        figure for role in ("teacher", "student") for figure in _figures(document[role], metric_of(document)).values()
    ]
    present = {figure.provenance for figure in figures} | {
        figure_of(budget["reached"]).provenance for budget in document["budgets"]
    }
    return {provenance: words for provenance, words in PROVENANCE_WORDS.items() if provenance in present}


def _figures(model: ModelJson, metric: str) -> Mapping[tuple[str, str], Figure]:
    """Return a model's figures by key and name."""
    name = "Fidelity to the teacher" if metric == "fidelity" else f"{metric_title(metric)} (test split)"
    figures: dict[tuple[str, str], FigureJson | None] = {
        (metric, name): cast("FigureJson | None", model.get(metric)),
        ("label_error", "Mean error"): model.get("label_error"),
        **{(detail, detail_words(detail)[0]): figure for detail, figure in model.get("details", {}).items()},
        **{
            (cost, COSTS[cost].label): cast("FigureJson", model.get(cost))
            for cost in OBJECTIVES
            if COSTS[cost].attribute
        },
        **{("latency_ms", f"Latency, {device}"): figure for device, figure in model["latency_ms"].items()},
    }
    return {row: figure_of(figure) for row, figure in figures.items() if figure is not None}


def _row(key: str, name: str, teacher: Figure | None, student: Figure | None) -> Row:
    change = _change(teacher, student) if teacher is not None and student is not None else ""
    return Row(
        key,
        name,
        cell_of(teacher) if teacher is not None else None,
        cell_of(student) if student is not None else None,
        change,
    )


def _change(teacher: Figure, student: Figure) -> str:
    if student.unit in ("fraction", "%"):
        points = (student.value - teacher.value) * (100 if student.unit == "fraction" else 1)
        return f"{points:+.1f} points".replace("-", "−")
    if teacher.value <= 0 or student.value <= 0:
        return ""
    ratio = teacher.value / student.value
    if abs(ratio - 1) < 0.005:
        return "same"
    word = "faster" if student.unit == "ms" else "fewer" if student.unit in ("params", "MACs") else "smaller"
    opposite = {"faster": "slower", "fewer": "more", "smaller": "larger"}[word]
    return f"{ratio:.3g}× {word}" if ratio > 1 else f"{1 / ratio:.3g}× {opposite}"


def _bare(value: float, unit: str) -> str:
    """The row's name already says params and MACs."""
    return format_value(value, unit).removesuffix(" params").removesuffix(" MACs")
