"""Budgets, verdicts, and their writers (terminal, JSON)."""

from n2n_edge.gate.budget import OPTIONS, UNITS, Budget, Cost
from n2n_edge.gate.json_document import GateJson, RegressionJson, VerdictJson, gate_document, verdict_json
from n2n_edge.gate.reached import file_figures, latency_figure, static_figures
from n2n_edge.gate.regression import Regression, compare, parse_percent
from n2n_edge.gate.terminal import verdict_table
from n2n_edge.gate.verdict import Verdict, judge
from n2n_edge.gate.wording import (
    PROVENANCE_WORDS,
    format_figure,
    format_interval,
    format_provenance,
    format_value,
)

__all__ = [
    "OPTIONS",
    "PROVENANCE_WORDS",
    "UNITS",
    "Budget",
    "Cost",
    "GateJson",
    "Regression",
    "RegressionJson",
    "Verdict",
    "VerdictJson",
    "compare",
    "file_figures",
    "format_figure",
    "format_interval",
    "format_provenance",
    "format_value",
    "gate_document",
    "judge",
    "latency_figure",
    "parse_percent",
    "static_figures",
    "verdict_json",
    "verdict_table",
]
