"""Budgets, verdicts, gates, and their writers (terminal, JSON, JUnit, Markdown, GitHub, GitLab)."""

from n2n_edge.gate.budget import OPTIONS, UNITS, Budget, Cost
from n2n_edge.gate.budget_file import FILE_NAME, BudgetFile, find_budget_file, read_budget_file
from n2n_edge.gate.check import Check, Gated, exit_code_of, summary_of
from n2n_edge.gate.github import append_outputs, append_summary, github_annotations, github_error
from n2n_edge.gate.gitlab import gitlab_report
from n2n_edge.gate.init_file import init_budgets
from n2n_edge.gate.jobs import gate_jobs
from n2n_edge.gate.json_document import GateJson, GatesJson, RegressionJson, VerdictJson, gates_document, verdict_json
from n2n_edge.gate.junit import junit_report
from n2n_edge.gate.latency_ratio import LatencyRatio, noise_of, ratio_outcome
from n2n_edge.gate.markdown import gate_markdown
from n2n_edge.gate.operators import Operators, judge_operators, parse_operators
from n2n_edge.gate.outcome import Outcome, worst
from n2n_edge.gate.reached import Latency, file_figures, latency_figure, static_figures
from n2n_edge.gate.regression import Regression, compare, parse_percent
from n2n_edge.gate.run import Accuracies, AccuracyOf, GateJob, gate_models
from n2n_edge.gate.settings import GateSettings, parse_regressions, settings_of
from n2n_edge.gate.terminal import check_table, outcome_text, verdict_table
from n2n_edge.gate.unanswered import Unanswered
from n2n_edge.gate.verdict import Verdict, judge
from n2n_edge.gate.wording import (
    PROVENANCE_WORDS,
    format_figure,
    format_interval,
    format_provenance,
    format_value,
)

__all__ = [
    "FILE_NAME",
    "OPTIONS",
    "PROVENANCE_WORDS",
    "UNITS",
    "Accuracies",
    "AccuracyOf",
    "Budget",
    "BudgetFile",
    "Check",
    "Cost",
    "GateJob",
    "GateJson",
    "GateSettings",
    "Gated",
    "GatesJson",
    "Latency",
    "LatencyRatio",
    "Operators",
    "Outcome",
    "Regression",
    "RegressionJson",
    "Unanswered",
    "Verdict",
    "VerdictJson",
    "append_outputs",
    "append_summary",
    "check_table",
    "compare",
    "exit_code_of",
    "file_figures",
    "find_budget_file",
    "format_figure",
    "format_interval",
    "format_provenance",
    "format_value",
    "gate_jobs",
    "gate_markdown",
    "gate_models",
    "gates_document",
    "github_annotations",
    "github_error",
    "gitlab_report",
    "init_budgets",
    "judge",
    "judge_operators",
    "junit_report",
    "latency_figure",
    "noise_of",
    "outcome_text",
    "parse_operators",
    "parse_percent",
    "parse_regressions",
    "ratio_outcome",
    "read_budget_file",
    "settings_of",
    "static_figures",
    "summary_of",
    "verdict_json",
    "verdict_table",
    "worst",
]
